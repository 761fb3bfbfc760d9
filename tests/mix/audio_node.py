"""An audio pool with a real process, its rings held by the test instead of by a plane, and people in real time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from relay.mix.audio.messages import Event
from relay.mix.audio.pool import AudioPool
from relay.plane.rings import InjectRing, OnGone, TapRing
from relay.plane.shared_ring import RingReader, RingWriter, SharedRing
from relay.settings import MixAudioSettings
from tests.mix.audio_world import Listener, Publisher

WAIT_S = 30.0
E = TypeVar("E")


class Ring:
    """A ring as a plane hands it out, with the relay's end at hand."""

    def __init__(self, number: int, ring: SharedRing, end: RingReader | RingWriter) -> None:
        self.number, self._ring, self._end = number, ring, end
        self.closed = False
        self.streams: dict[int, Listener] = {}

    @property
    def fds(self) -> tuple[int, ...]:
        return self._ring.fds

    def passed(self) -> None:
        self._ring.passed()

    def bind(self, stream: int, track: int, layer: int) -> None:
        raise NotImplementedError("a test binds listeners")

    def close(self) -> None:
        self.closed = True
        self._end.close()


class Rings:
    """Stands where the plane does: what a tap ring and an inject ring need, and nothing of sockets."""

    def __init__(self) -> None:
        self.number = 0
        self.writers: dict[int, RingWriter] = {}
        self.readers: dict[int, RingReader] = {}
        self.rings: dict[int, Ring] = {}

    def open_tap_ring(self, *, slots: int = 64, slot_size: int = 1536, on_gone: OnGone | None = None) -> TapRing:
        ring = SharedRing.create(slots, slot_size)
        handle = self._add(ring, writer := ring.writer())
        self.writers[handle.number] = writer
        return handle  # type: ignore[return-value]

    def open_inject_ring(self, *, slots: int = 64, slot_size: int = 1536, on_gone: OnGone | None = None) -> InjectRing:
        ring = SharedRing.create(slots, slot_size)
        handle = self._add(ring, reader := ring.reader())
        self.readers[handle.number] = reader
        return handle  # type: ignore[return-value]

    def _add(self, ring: SharedRing, end: RingReader | RingWriter) -> Ring:
        self.number += 1
        self.rings[self.number] = handle = Ring(self.number, ring, end)
        return handle

    def put(self, ring: int, stream: int, packet: bytes) -> None:
        if not self.rings[ring].closed:
            self.writers[ring].put(stream, time.monotonic_ns() // 1000, packet)

    def collect(self) -> None:
        """Give what was injected to whoever listens."""
        for number, reader in self.readers.items():
            ring = self.rings[number]
            while not ring.closed and (packets := reader.read(256)):
                for stream, arrival, data in packets:
                    if stream in ring.streams:
                        ring.streams[stream].take(bytes(data), arrival)


class Mouth:
    """A source: somebody's packets, put into whichever ring listens now."""

    streams = 0

    def __init__(self, rings: Rings, publisher: Publisher) -> None:
        self._rings, self._publisher = rings, publisher
        self._at: tuple[int, int] | None = None

    def open(self, ring: TapRing) -> int:
        Mouth.streams += 1
        self._at = ring.number, Mouth.streams
        return Mouth.streams

    def close(self) -> None:
        self._at = None

    def speak(self) -> None:
        packet = self._publisher.packet()
        if self._at is not None:
            self._rings.put(*self._at, packet)


class Ear:
    """A sink."""

    def __init__(self) -> None:
        self.listener = Listener()
        self._at: tuple[Ring, int] | None = None

    def open(self, ring: InjectRing, stream: int) -> None:
        assert isinstance(ring, Ring)
        ring.streams[stream] = self.listener
        self._at = ring, stream

    def close(self) -> None:
        if self._at is not None:
            ring, stream = self._at
            ring.streams.pop(stream, None)
            self._at = None


class Studio:
    """A started pool, its events, and people who speak every 20 ms."""

    def __init__(self, pool: AudioPool, rings: Rings, events: list[Event]) -> None:
        self.pool, self.rings, self.events = pool, rings, events
        self.mouths: list[Mouth] = []

    def join(self, room: str, identity: str, hz: float, amplitude: float = 0.2) -> None:
        mouth = Mouth(self.rings, Publisher(hz, amplitude, ssrc=len(self.mouths) + 1))
        self.mouths.append(mouth)
        self.pool.add_input(room, identity, mouth)

    def listen(self, room: str, mix: str, exclude: tuple[str, ...] = ()) -> Listener:
        ear = Ear()
        self.pool.open_mix(room, mix, ear, exclude=exclude)
        return ear.listener

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until something holds; fails after 30 s."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def heard(self, listener: Listener, packets: int) -> None:
        """Until a listener got so many more packets."""
        goal = len(listener.packets) + packets
        await self.until(lambda: len(listener.packets) >= goal)

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def live(self) -> None:
        """Speak and collect for ever, on deadlines that do not drift."""
        due = time.monotonic()
        while True:
            for mouth in self.mouths:
                mouth.speak()
            self.rings.collect()
            due += 0.02
            await asyncio.sleep(max(due - time.monotonic(), 0))


@contextlib.asynccontextmanager
async def studio(settings: MixAudioSettings | None = None) -> AsyncIterator[Studio]:
    """A pool that is started, and stopped however the test ends."""
    events: list[Event] = []
    rings = Rings()
    pool = AudioPool(settings or MixAudioSettings(), rings, events.append)
    await pool.start()
    show = Studio(pool, rings, events)
    life = asyncio.create_task(show.live())
    try:
        yield show
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        await pool.stop()

"""A plane and a video pool for the benches, feeds that play coded frames, and a look at the program's packets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Sequence

from relay.mix.executor import Executor
from relay.mix.video import events
from relay.mix.video.assembly import VideoCodec
from relay.mix.video.packets import NTP_EPOCH_S, Packetizer
from relay.mix.video.pool import VideoPool
from relay.mix.video.program import Program, Source
from relay.plane import open_plane
from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, PayloadType, PlaneConfig
from relay.plane.reference import rtp
from relay.plane.reference.state import INJECT_EXTENSIONS
from relay.settings import MixVideoSettings

PATIENCE_S = 90.0
TYPES: dict[VideoCodec, PayloadType] = {
    "h264": PayloadType(102, "h264", 90_000, None, "42e01f/1"),
    "vp8": PayloadType(96, "vp8", 90_000),
}
FEED_FPS = 30


class Mixer:
    """See the module's text. `pictures` counts those that came out."""

    def __init__(self, settings: MixVideoSettings, executor: Executor | None) -> None:
        self.plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
        self.handles = itertools.count(1)
        self.told: list[events.VideoEvent] = []
        self.pictures = 0
        self.sent: dict[int, int] = {}
        """When a picture's last packet came out, by the ms of its wall time."""
        self._captured: dict[int, int] = {}
        """Of each program's newest picture, by SSRC: packets of several programs come between each other."""
        self.plane.on_taps = self._on_taps
        self.plane.start()
        self.pool = VideoPool(self.plane, lambda: next(self.handles), settings, self.told.append, executor=executor)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, settings: MixVideoSettings | None = None, executor: Executor | None = None
    ) -> AsyncIterator[Mixer]:
        """With a worker that waits."""
        mixer = cls(settings or MixVideoSettings(), executor)
        try:
            await mixer.pool.start()
            await mixer.until(events.WorkerStarted, 1)
            yield mixer
        finally:
            await mixer.pool.stop()
            mixer.plane.close()

    @property
    def degraded(self) -> bool:
        return any(isinstance(event, events.ProgramDegraded) for event in self.told)

    def program(self, width: int, height: int, fps: int, bitrate: int) -> Program:
        track = self.track("h264")
        self.plane.submit(AddTap(next(self.handles), track, 0))
        return Program(track, TYPES["h264"].number, 0, width, height, fps, "h264", bitrate)

    def track(self, codec: VideoCodec) -> int:
        track = next(self.handles)
        self.plane.submit(AddTrack(track, None, Kind.VIDEO, "", (TYPES[codec],), (LayerSpec(),)))
        return track

    def pid(self, stage: str) -> int:
        return int(self.pool.worker_of(stage).removeprefix("local:"))

    def hurry(self, stage: str, core: int) -> None:
        """Have the stage's worker go before all else on a core, where we may."""
        for thread in os.listdir(f"/proc/{self.pid(stage)}/task"):
            os.sched_setaffinity(int(thread), {core})
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(1))

    async def shown(self, inputs: int) -> None:
        """Until all inputs are in the picture."""
        await self.until(events.InputShown, inputs)

    async def until(self, kind: type, count: int) -> None:
        async with self.patience(f"{count} × {kind.__name__}"):
            while sum(isinstance(event, kind) for event in self.told) < count:
                await asyncio.sleep(0.002)

    @contextlib.asynccontextmanager
    async def patience(self, what: str) -> AsyncIterator[None]:
        """Raises TimeoutError, with what was told last, when something takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except TimeoutError:
            last = f"{self.pictures} pictures, and at last {self.told[-8:]}"
            raise TimeoutError(f"no {what} within {PATIENCE_S:.0f} s; there were {last}") from None

    def _on_taps(self, tapped: list[tuple[int, bytes, int]]) -> None:
        for _, data, arrival in tapped:
            packet = rtp.parse(data, arrival)
            assert packet is not None
            if (value := packet.extension(INJECT_EXTENSIONS["abs_capture_time"])) is not None:
                micros = int.from_bytes(value, "big") * 1_000_000 + (1 << 31) >> 32
                self._captured[packet.ssrc] = micros // 1000 - NTP_EPOCH_S * 1000
            if packet.marker:
                self.pictures += 1
                self.sent[self._captured.get(packet.ssrc, 0)] = arrival


class Feed:
    """A publisher that plays coded frames over and over."""

    def __init__(self, mixer: Mixer, codec: VideoCodec, frames: Sequence[bytes]) -> None:
        self._mixer, self._frames, self.track = mixer, frames, mixer.track(codec)
        self.source = Source(self.track, 0, codec)
        self._packets = Packetizer(codec, 1000 + self.track, TYPES[codec].number, 0)

    def send(self, number: int) -> None:
        frame = self._frames[number % len(self._frames)]
        for packet in self._packets.packets(frame, number * 90_000 // FEED_FPS, time.time_ns() // 1000):
            self._mixer.plane.inject(self.track, 0, packet)

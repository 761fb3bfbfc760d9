"""The relay's side of pooled audio: one process for all rooms of the node, and a second one in reserve.

What was asked for stands here, so that a process which dies is replaced by the one in reserve within milliseconds: it
gets rings, rooms, inputs and mixes anew. Output positions live in shared memory (`positions`), and output timestamps
follow from the clock, so listeners see the same stream go on after a gap.

All methods but `start` and `stop` return at once and belong to the event loop's thread. Unknown rooms and identities
are UsageErrors; what the process refuses comes as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from relay.errors import Overloaded, UsageError
from relay.mix.audio.messages import (
    AddInput,
    AnchorInput,
    Begin,
    CloseMix,
    CloseRoom,
    Command,
    Event,
    FailMixer,
    FromProcess,
    InputRefused,
    OpenMix,
    OpenRoom,
    ProcessReplaced,
    Ready,
    RemoveInput,
    SetGain,
    WaitForPicture,
    WaitForPictures,
)
from relay.mix.audio.ports import RingPlane, Sink, Source
from relay.mix.audio.positions import Positions
from relay.mix.audio.spawn import AudioProcess
from relay.process.child import Restarts
from relay.settings import MixAudioSettings

READY_S = 20.0
HUNG_S = 3.0  # a starved machine makes nobody tick for a second; a new process would not help it
LOOK_S = 0.1
FADE_S = 0.015


@dataclass(slots=True)
class _Input:
    source: Source
    gain: float
    muted: bool
    payload_type: int | None
    more_ms: int = 0


@dataclass(slots=True)
class _Mix:
    sink: Sink
    told: OpenMix


@dataclass(slots=True)
class _Room:
    wait_ms: int = 0
    inputs: dict[str, _Input] = field(default_factory=dict)
    mixes: dict[str, _Mix] = field(default_factory=dict)


class AudioPool:
    """See the module. `on_event` is called in the loop with each of `relay.mix.audio.messages.Event`."""

    def __init__(self, settings: MixAudioSettings, plane: RingPlane, on_event: Callable[[Event], None]) -> None:
        self._settings, self._plane, self._on_event = settings, plane, on_event
        self._rooms: dict[str, _Room] = {}
        self._streams = 0
        self._positions: Positions | None = None
        self._active: AudioProcess | None = None
        self._reserve: AudioProcess | None = None
        self._restarts = Restarts()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Start the processes. Raises Overloaded when the first is not ready within 20 s; then nothing is left."""
        self._positions = Positions.create()
        try:
            self._active = self._spawn()
            async with asyncio.timeout(READY_S):
                await self._active.ready.wait()
        except (TimeoutError, OSError, Overloaded) as error:
            await self.stop()
            raise Overloaded(f"the audio process does not start: {error}") from error
        self._active.tell(Begin())
        self._keep(self._watch())
        if self._settings.reserve_process:
            self._reserve = self._spawn()

    async def stop(self) -> None:
        """End the processes and free everything. Repeatable."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for room in list(self._rooms):
            self.close_room(room)
        processes = [process for process in (self._active, self._reserve) if process is not None]
        self._active = self._reserve = None
        await asyncio.gather(*(process.stop() for process in processes))
        if self._positions is not None:
            self._positions.close()
            self._positions = None

    @property
    def pid(self) -> int | None:
        """Of the process that mixes; None while there is none."""
        return None if self._active is None else self._active.pid

    @property
    def has_reserve(self) -> bool:
        """Whether a second process is ready to take over."""
        return self._reserve is not None and self._reserve.ready.is_set()

    def open_room(self, room: str) -> None:
        """Begin to mix a room."""
        if room in self._rooms:
            raise UsageError(f"room {room!r} is open")
        self._rooms[room] = _Room()
        self._tell(OpenRoom(room))

    def close_room(self, room: str) -> None:
        """Close a room with its inputs and mixes."""
        found = self._room(room)
        for identity in list(found.inputs):
            self.remove_input(room, identity)
        for mix in list(found.mixes):
            self.close_mix(room, mix)
        del self._rooms[room]
        self._tell(CloseRoom(room))

    def add_input(
        self,
        room: str,
        identity: str,
        source: Source,
        *,
        gain: float = 1.0,
        muted: bool = False,
        payload_type: int | None = None,
    ) -> None:
        """Mix somebody in. An input of the same identity is faded out for it."""
        inputs = self._room(room).inputs
        _check_gain(gain, 0.0)
        if identity in inputs:
            inputs[identity].source.close()
        before = inputs.get(identity)
        inputs[identity] = one = _Input(source, gain, muted, payload_type, before.more_ms if before else 0)
        if self._active is not None:
            self._send_input(self._active, room, identity, one)

    def set_gain(self, room: str, identity: str, gain: float, seconds: float = FADE_S) -> None:
        """Move to a gain of 0 to 16 within `seconds`, at least 15 ms."""
        _check_gain(gain, seconds)
        one = self._input(room, identity)
        one.gain = gain
        self._tell(SetGain(room, identity, gain, one.muted, seconds))

    def mute(self, room: str, identity: str, muted: bool, seconds: float = FADE_S) -> None:
        """Fade somebody out or in again."""
        one = self._input(room, identity)
        _check_gain(one.gain, seconds)
        one.muted = muted
        self._tell(SetGain(room, identity, one.gain, muted, seconds))

    def remove_input(self, room: str, identity: str) -> None:
        """Fade somebody out and forget him."""
        one = self._input(room, identity)
        self._tell(RemoveInput(room, identity))
        one.source.close()
        del self._room(room).inputs[identity]

    def wait_for_pictures(self, room: str, wait_ms: int) -> None:
        """Have the room's sound wait so long at least, as the pictures that it has to match do; 0: as configured."""
        found = self._room(room)
        if wait_ms < 0:
            raise UsageError("nobody can wait for less than no time")
        if found.wait_ms != wait_ms:
            found.wait_ms = wait_ms
            self._tell(WaitForPictures(room, wait_ms))

    def wait_for_picture(self, room: str, identity: str, more_ms: int) -> None:
        """Have somebody's sound wait longer than that of others, as his picture comes later."""
        if more_ms < 0:
            raise UsageError("nobody can wait for less than no time")
        one = self._input(room, identity)
        if one.more_ms != more_ms:
            one.more_ms = more_ms
            self._tell(WaitForPicture(room, identity, more_ms))

    def anchor_input(self, room: str, identity: str, ssrc: int, timestamp: int, captured: int) -> None:
        """See `AnchorInput`; the input's next reports tell what follows. It is not kept for another process."""
        self._input(room, identity)
        self._tell(AnchorInput(room, identity, ssrc, timestamp, captured))

    def open_mix(
        self, room: str, mix: str, sink: Sink, *, exclude: tuple[str, ...] = (), payload_type: int = 111
    ) -> None:
        """Send the room's mix, without the inputs in `exclude`, to a sink. Overloaded when too many are open."""
        mixes = self._room(room).mixes
        if mix in mixes:
            raise UsageError(f"mix {mix!r} of room {room!r} is open")
        if self._positions is None:
            raise UsageError("the pool is not started")
        self._streams += 1
        slot = self._positions.take()
        start = secrets.randbits(32), secrets.randbits(16), secrets.randbits(32)
        told = OpenMix(room, mix, exclude, self._streams, slot, *start, payload_type)
        mixes[mix] = one = _Mix(sink, told)
        if self._active is not None:
            self._send_mix(self._active, one)

    def close_mix(self, room: str, mix: str) -> None:
        """Send it no more."""
        mixes = self._room(room).mixes
        if mix not in mixes:
            raise UsageError(f"no mix {mix!r} in room {room!r}")
        one = mixes.pop(mix)
        self._tell(CloseMix(room, mix))
        one.sink.close()
        if self._positions is not None:
            self._positions.give_back(one.told.slot)

    def fail_mixer(self, mixer: int, hang_s: float = 0.0) -> None:
        """A drill: have a mixer thread die, or hang."""
        self._tell(FailMixer(mixer, hang_s))

    # --- processes --------------------------------------------------------------------------------------------------

    def _spawn(self) -> AudioProcess:
        assert self._positions is not None
        return AudioProcess(self._settings, self._plane, self._positions, self._heard, self._ended)

    def _heard(self, process: AudioProcess, message: FromProcess) -> None:
        if isinstance(message, Ready):
            process.ready.set()
        if process is not self._active:
            return
        if isinstance(message, InputRefused):
            room = self._rooms.get(message.room)
            if room is not None and (one := room.inputs.pop(message.identity, None)) is not None:
                one.source.close()
        self._on_event(message)

    def _ended(self, process: AudioProcess, why: str) -> None:
        if self._stopping:
            return
        wait = self._restarts.died(time.monotonic() - process.born)
        if process is self._reserve:
            self._reserve = None
            self._keep(self._refill(wait))
        elif process is self._active:
            self._active, self._reserve = self._reserve, None
            if self._active is not None:
                self._hand_over(self._active, why)
            self._keep(self._refill(wait, why))

    async def _refill(self, wait: float, why: str = "") -> None:
        """Start what is missing, after a while if they keep dying."""
        await asyncio.sleep(wait)
        while True:
            try:
                if self._active is None:
                    self._active = self._spawn()
                    self._hand_over(self._active, why)
                if self._reserve is None and self._settings.reserve_process:
                    self._reserve = self._spawn()
                return
            except (OSError, Overloaded):  # no process, memory or descriptor to be had
                await asyncio.sleep(self._restarts.died(0.0))

    def _hand_over(self, process: AudioProcess, why: str) -> None:
        """Tell a process everything that was asked for."""
        process.tell(Begin())
        for name, room in self._rooms.items():
            process.tell(OpenRoom(name))
            if room.wait_ms:
                process.tell(WaitForPictures(name, room.wait_ms))
            for identity, one in room.inputs.items():
                self._send_input(process, name, identity, one)
            for mix in room.mixes.values():
                self._send_mix(process, mix)
        self._on_event(ProcessReplaced(why))

    async def _watch(self) -> None:
        """Kill a process whose mixers all stand still: the interpreter itself hangs then."""
        seen, since = -1, time.monotonic()
        process: AudioProcess | None = None
        while True:
            await asyncio.sleep(LOOK_S)
            assert self._positions is not None
            now = time.monotonic()
            tick = self._positions.tick
            if tick != seen or process is not self._active or process is None or not process.ready.is_set():
                seen, since, process = tick, now, self._active
            elif now - since > HUNG_S:
                process.kill("it does not tick")
                since = now

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send_input(self, process: AudioProcess, room: str, identity: str, one: _Input) -> None:
        with contextlib.suppress(UsageError):  # the ring or the track is gone, and its owner will be told
            stream = one.source.open(process.tap)
            process.tell(AddInput(room, identity, stream, one.gain, one.muted, one.payload_type))
            if one.more_ms:
                process.tell(WaitForPicture(room, identity, one.more_ms))

    def _send_mix(self, process: AudioProcess, one: _Mix) -> None:
        with contextlib.suppress(UsageError):
            one.sink.open(process.inject, one.told.stream)
            process.tell(one.told)

    def _tell(self, command: Command) -> None:
        if self._active is not None:
            self._active.tell(command)

    def _room(self, room: str) -> _Room:
        if room not in self._rooms:
            raise UsageError(f"no room {room!r}")
        return self._rooms[room]

    def _input(self, room: str, identity: str) -> _Input:
        inputs = self._room(room).inputs
        if identity not in inputs:
            raise UsageError(f"no input {identity!r} in room {room!r}")
        return inputs[identity]


def _check_gain(gain: float, seconds: float) -> None:
    if not (0 <= gain <= 16 and 0 <= seconds <= 600):
        raise UsageError("a gain is 0 to 16 and takes 0 to 600 s to reach")

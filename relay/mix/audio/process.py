"""The audio process: rings in and out, commands from the relay, and the pool of mixers.

`python -m relay.mix.audio TAP INJECT POSITIONS CONTROL PARENT`, the rings as three descriptors with commas between.
Its main thread reads commands, tells events and watches the mixers; it decides nothing about sound. It ends when the
relay does (0), and by itself when a ring or the control socket brings what cannot be (3) or too many mixers hang (4);
the relay then starts another one.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from relay.errors import CostreamError, PeerError, UsageError
from relay.mix.audio.input import PacketQueue, packet_queue
from relay.mix.audio.messages import (
    COMMANDS,
    AddInput,
    AnchorInput,
    Begin,
    CloseMix,
    CloseRoom,
    Command,
    CommandRefused,
    Configure,
    FailMixer,
    FromProcess,
    OpenMix,
    OpenRoom,
    Ready,
    RemoveInput,
    RoomCommand,
    SetGain,
    WaitForPicture,
    WaitForPictures,
)
from relay.mix.audio.mix import FRAME, Encoding
from relay.mix.audio.mixers import TICK_US, Mixers, Outlet
from relay.mix.audio.opus import Decoder, Encoder
from relay.mix.audio.positions import Positions
from relay.mix.audio.room import Output, Room
from relay.mix.audio.urgency import make_urgent
from relay.mix.jitter_steps import JitterSettings
from relay.plane.shared_ring import SharedRing
from relay.process.control import Wire
from relay.process.worker import ControlEnd, begin

LOOK_S = 0.005
REPORT_S = 5.0
SWITCH_S = 0.0001
MAX_EVENTS = 4096
MAX_PACKETS = 4096  # read from the ring at once: more than two of its lengths would hold up a tick
BAD_INPUT, HUNG = 3, 4


class Media:
    """The rings and what their streams are, for all mixers."""

    def __init__(self, tap: SharedRing, inject: SharedRing, positions: Positions) -> None:
        self._reader, self._writer, self._positions = tap.reader(), inject.writer(), positions
        self._lock = threading.Lock()
        self._queues: dict[int, PacketQueue] = {}
        self.fault: PeerError | None = None

    @property
    def dropped(self) -> int:
        """Packets that found the tap ring full."""
        return self._reader.dropped

    def listen(self, stream: int) -> PacketQueue:
        """Packets of this stream go to the queue that is returned."""
        queue = packet_queue()
        with self._lock:
            self._queues = self._queues | {stream: queue}
        return queue

    def ignore(self, stream: int) -> None:
        with self._lock:
            self._queues = {one: queue for one, queue in self._queues.items() if one != stream}

    def drain(self) -> None:
        """Take what has arrived. A ring that holds what cannot be shows in `fault`."""
        with self._lock:
            if self.fault is not None:
                return
            try:
                self._positions.tick = time.monotonic_ns() // 1000 // TICK_US
                for _ in range(MAX_PACKETS // 256):
                    packets = self._reader.read(256, wake=False)
                    for stream, arrival, data in packets:
                        queue = self._queues.get(stream)
                        if queue is not None:
                            queue.append((arrival, bytes(data)))
                    if len(packets) < 256:
                        break
                self._reader.release()
            except PeerError as error:
                self.fault = error

    def send(self, number: int, outputs: list[Output]) -> None:
        """Write the packets of a tick."""
        now = time.monotonic_ns() // 1000
        for mix, payload in outputs:
            before = self._positions.next(mix.told.slot, number)
            if before is not None:
                self._writer.put(mix.told.stream, now, mix.packet(number, before, payload), more=True)
        self._writer.flush()


class Process:
    """The commands' side."""

    def __init__(self, media: Media, control: ControlEnd[Command]) -> None:
        self._media, self._control = media, control
        self._events: deque[FromProcess] = deque(maxlen=MAX_EVENTS)
        self._mixers: Mixers | None = None
        self._told: Configure | None = None
        self._streams: dict[tuple[str, str], int] = {}
        self._reported = time.monotonic()

    def run(self) -> int:
        """Serve until the relay is gone; return the exit code."""
        while True:
            commands = self._control.receive(LOOK_S)
            if commands is None:
                return 0
            for command in commands:
                self._obey(command)
            if self._mixers is not None:
                self._look_after(self._mixers)
            if self._media.fault is not None:
                raise self._media.fault
            while self._events:
                if not self._control.send(self._events.popleft()):
                    return 0

    def close(self) -> None:
        if self._mixers is not None:
            self._mixers.close()

    def _look_after(self, mixers: Mixers) -> None:
        mixers.watch()
        if time.monotonic() - self._reported >= REPORT_S:
            self._reported += REPORT_S
            mixers.report(self._media.dropped)

    def _obey(self, command: Command) -> None:
        if isinstance(command, Configure):
            self._configure(command)
            return
        if self._mixers is None or self._told is None:
            raise PeerError("the first word is Configure")
        try:
            self._do(command, self._mixers, self._told)
        except UsageError as error:
            self._events.append(CommandRefused(type(command).__name__, str(error)))

    def _do(
        self, command: Begin | OpenRoom | CloseRoom | RoomCommand | FailMixer, mixers: Mixers, told: Configure
    ) -> None:
        match command:
            case Begin():
                mixers.begin()
            case OpenRoom(room):
                encoding = Encoding(told.channels, told.bitrate_bps, told.complexity)
                first, least, most = told.jitter_first_ms, told.jitter_least_ms, told.jitter_most_ms
                jitter = JitterSettings(first * 1000, most_us=most * 1000, least_us=least * 1000)
                mixers.add(Room(room, encoding, jitter, told.max_inputs, self._events.append))
            case CloseRoom(room):
                mixers.remove(room)
                for key in [key for key in self._streams if key[0] == room]:
                    self._media.ignore(self._streams.pop(key))
            case AddInput(room, identity, stream):
                found = mixers.find(room)
                self._forget(room, identity)
                self._streams[room, identity] = stream
                found.change(command, self._media.listen(stream))
            case RemoveInput(room, identity):
                mixers.find(room).change(command)
                self._forget(room, identity)
            case (
                SetGain(room)
                | OpenMix(room)
                | CloseMix(room)
                | WaitForPictures(room)
                | WaitForPicture(room)
                | AnchorInput(room)
            ):
                mixers.find(room).change(command)
            case FailMixer(mixer, hang_s):
                mixers.fail(mixer, hang_s)

    def _forget(self, room: str, identity: str) -> None:
        if (stream := self._streams.pop((room, identity), None)) is not None:
            self._media.ignore(stream)

    def _configure(self, told: Configure) -> None:
        if self._mixers is not None:
            raise PeerError("Configure comes once")
        _warm_up(told)
        self._told = told
        outlet = Outlet(self._media.drain, self._media.send)
        self._mixers = Mixers(told.mixers, outlet, told.priority, self._events.append)
        make_urgent(told.priority)  # the watchdog has to see a mixer hang when every core is busy
        self._events.append(Ready(self._mixers.got))


def _warm_up(told: Configure) -> None:
    """Load everything and touch the code once, then keep the collector away from what stays."""
    block = np.zeros((FRAME, told.channels), np.float32)
    encoder, decoder = Encoder(told.channels, told.bitrate_bps, told.complexity), Decoder(told.channels)
    for _ in range(3):
        decoder.decode(encoder.encode(block))
    gc.collect()
    gc.freeze()


def main(arguments: Sequence[str]) -> int:
    wire: Wire[Command] = Wire(*COMMANDS)
    control = begin(arguments, wire)
    sys.setswitchinterval(SWITCH_S)
    tap, inject = (SharedRing.attach([int(fd) for fd in words.split(",")]) for words in arguments[:2])
    process = Process(Media(tap, inject, Positions(int(arguments[2]))), control)
    try:
        code = process.run()
    except PeerError as error:
        print(f"audio process: {error}", file=sys.stderr)
        return BAD_INPUT
    except CostreamError as error:
        print(f"audio process: {error}", file=sys.stderr)
        return HUNG
    process.close()
    return code

"""The body of an egress process: reads a tap ring, makes units of it once, and hands them to its outputs.

One process serves a source's HLS and recordings; each push has one of its own, which can be killed when the network
hangs. The relay says what to do by the control socket; when that ends, outputs are closed and so is the process.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from collections.abc import Sequence

from relay.egress.codecs import check_codecs
from relay.egress.events import Kind
from relay.egress.hls import HlsOutput
from relay.egress.media import Unit
from relay.egress.messages import (
    TO_PROCESS,
    AddHls,
    AddPush,
    AddRecording,
    Begin,
    Counted,
    Follow,
    FromProcess,
    KeyframeWanted,
    KnowSender,
    Remove,
    Stated,
    Switched,
    ToProcess,
)
from relay.egress.outputs import Output
from relay.egress.record import RecordingOutput
from relay.egress.rtmp import PushOutput
from relay.egress.source import Source
from relay.errors import BadRequest, PeerError
from relay.plane.shared_ring import RingReader, SharedRing
from relay.process.control import Wire
from relay.process.worker import ControlEnd, begin

KINDS: dict[type[ToProcess], Kind] = {AddHls: "hls", AddRecording: "recording", AddPush: "rtmp"}
TICK_S = 0.03
COUNT_S = 1.0
NICE = 5
"""Below the mixers: when the processor is short, an audience some seconds behind can wait best."""


class Process:
    """Everything of one process."""

    def __init__(self, control: ControlEnd[ToProcess], reader: RingReader) -> None:
        self._control, self._reader = control, reader
        self._source: Source | None = None
        self._changes = 0
        """Of the source's video stream, as told."""
        self._outputs: dict[str, Output] = {}
        self._counted = 0.0
        # Moments of the axis as wall clock: taken once, so that a clock that is set does not tear the playlist.
        self._wall = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def run(self) -> None:
        """Until the relay or the ring is gone. Raises PeerError when either says nonsense."""
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._reader.fileno(), select.POLLIN)
        try:
            while self._listen() and not (self._read() == 0 and self._reader.ring.gone):
                poll.poll(TICK_S * 1000)
                self._tick(time.monotonic_ns() // 1000)
        finally:
            for name in list(self._outputs):
                self._end(name, Stated(name, "ended"))

    def _listen(self) -> bool:
        messages = self._control.receive(0)
        for message in messages or ():
            self._obey(message)
        return messages is not None

    def _read(self) -> int:
        """Take what is in the ring; returns how many packets."""
        count = 0
        while batch := self._reader.read():
            for packet in batch:
                if self._source is not None:
                    self._give(self._source.receive(packet.stream, packet.arrival, bytes(packet.data)))
            count += len(batch)
        return count

    def _tick(self, now: int) -> None:
        source, behind = self._source, 0
        if source is not None:
            self._give(source.tick(now))
            self._say(*(KeyframeWanted(stream) for stream in source.keyframes_wanted(now)))
            if source.video is not None and source.counts.changes != self._changes:
                self._changes = source.counts.changes
                self._say(Switched(source.video.number))
            behind = source.behind
        for output in list(self._outputs.values()):
            try:
                output.tick(now - behind)
            except OSError as error:
                self._fail(output, error)
        if now - self._counted >= COUNT_S * 1e6:
            self._counted = now
            self._say(*(Counted(o.id, o.bytes, o.pictures, o.dropped) for o in self._outputs.values()))

    def _give(self, units: Sequence[Unit]) -> None:
        for unit in units:
            for output in list(self._outputs.values()):
                try:
                    output.take(unit)
                except OSError as error:
                    self._fail(output, error)

    def _obey(self, message: ToProcess) -> None:
        match message:
            case Begin():
                self._source = Source(message.streams, 1000 * message.keyframe_ms)
            case KnowSender():
                if self._source is not None:
                    self._source.know_sender(message.session, message.captured)
            case Follow():
                if self._source is not None:
                    self._source.follow(message.stream)
            case Remove():
                if message.id in self._outputs:
                    self._end(message.id, Stated(message.id, "ended"))
            case _:
                self._add(message)

    def _add(self, wanted: AddHls | AddRecording | AddPush) -> None:
        if self._source is None or wanted.id in self._outputs:
            raise PeerError("an output without a source, or twice")
        source = self._source
        try:
            check_codecs(KINDS[type(wanted)], [source.video] if source.video is not None else [])
        except BadRequest as error:
            self._say(Stated(wanted.id, "failed", error.code, str(error)))
            return
        source.want_keyframe()
        try:
            match wanted:
                case AddHls():
                    self._outputs[wanted.id] = HlsOutput(
                        wanted, source.audio_config, source.video is not None, self._wall, self._control.send
                    )
                case AddRecording():
                    self._outputs[wanted.id] = RecordingOutput(
                        wanted, source.audio_config, source.video is not None, self._control.send
                    )
                case AddPush():
                    self._outputs[wanted.id] = PushOutput(
                        wanted, source.audio_config, source.video is not None, self._control.send
                    )
        except OSError as error:
            self._say(Stated(wanted.id, "failed", code_of(error), describe(error)))

    def _fail(self, output: Output, error: OSError) -> None:
        self._end(output.id, Stated(output.id, "failed", code_of(error), describe(error)))

    def _end(self, name: str, last: Stated) -> None:
        output = self._outputs.pop(name)
        try:
            output.close()
        except OSError as error:
            last = Stated(name, "failed", code_of(error), describe(error))
        self._say(Counted(name, output.bytes, output.pictures, output.dropped), last)

    def _say(self, *messages: FromProcess) -> None:
        for message in messages:
            self._control.send(message)


def code_of(error: OSError) -> str:
    """The API's name of what went wrong."""
    return "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "cannot-write"


def describe(error: OSError) -> str:
    """Without the path, which is nobody's business."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def main() -> None:
    """`python -m relay.egress MEMORY,WAKE,LIFE CONTROL PARENT`"""
    control: ControlEnd[ToProcess] = begin(sys.argv, Wire(*TO_PROCESS))
    os.nice(NICE)
    ring = SharedRing.attach([int(fd) for fd in sys.argv[1].split(",")])
    reader = ring.reader()
    try:
        Process(control, reader).run()
    finally:
        reader.close()

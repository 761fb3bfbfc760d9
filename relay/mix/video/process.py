"""The loop of a video worker: packets from the tap ring, words from the relay, output frames when they are due.

It looks at the ring by its own clock (`LOOK_US`), which saves the relay the waking, and ends with the relay, with its
rings or with its control socket.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import structlog

from relay.clock import now_us
from relay.errors import PeerError
from relay.mix.layout import Box, Cell
from relay.mix.scaler import MAX_WORKERS
from relay.mix.video import tiles
from relay.mix.video.assembly import VideoCodec
from relay.mix.video.composer import Composer, Content
from relay.mix.video.decoder import Decoder
from relay.mix.video.encoder import Encoders, Shape
from relay.mix.video.inputs import Input
from relay.mix.video.messages import (
    TO_WORKER,
    AddInput,
    AnchorInput,
    ChangeLayout,
    ChangeOverlays,
    CloseStage,
    DelayInput,
    OpenStage,
    RemoveInput,
    SendKeyframe,
    StageFailed,
    WorkerReady,
)
from relay.mix.video.page import Page
from relay.mix.video.stage import Stage
from relay.plane.shared_ring import SharedRing
from relay.process.control import Message, Wire
from relay.process.worker import ControlEnd, begin
from relay.stage.layout import Overlays

LOOK_US = 40_000
"""Inputs wait for their time anyway, and each look costs a wake-up: from 25 pictures a second on one for each."""
IDLE_US = 200_000
MAX_STRANGE = 1024
CODECS: tuple[VideoCodec, ...] = ("h264", "vp8")
NICE = 5
"""Sound and forwarding go first: a picture that is late is lowered, a sound that is late is heard."""

log = structlog.get_logger()


class Worker:
    """All stages of one process."""

    def __init__(
        self, tap: SharedRing, inject: SharedRing, page: Page, control: ControlEnd[Message], encoders: Encoders
    ) -> None:
        self._tap, self._inject, self._page, self._control, self._encoders = tap, inject, page, control, encoders
        self._reader, self._writer = tap.reader(), inject.writer()
        self._hands = ThreadPoolExecutor(MAX_WORKERS, "hand")
        self._lock = threading.Lock()
        self._stages: dict[str, Stage] = {}
        self._streams: dict[int, Input] = {}
        self._strange: set[int] = set()
        """Streams of inputs that are gone."""
        self._over = False

    def run(self) -> None:
        """Until the relay is gone, or this worker's rings are."""
        self._tell(WorkerReady(_resident()))
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        for ring in (self._tap, self._inject):
            poll.register(ring.life, select.POLLIN)
        while not self._over:
            now = now_us()
            self._page.beat = now
            due = min((stage.next_at for stage in self._stages.values()), default=now + IDLE_US)
            wait = min(due - now, LOOK_US if self._stages else IDLE_US)
            ready = poll.poll(max(0, -(-wait // 1000)))
            self._take_packets()
            if ready:
                self._hear()
                self._over = self._over or self._tap.gone or self._inject.gone
            for stage in list(self._stages.values()):
                if stage.next_at <= now_us():
                    self._tick(stage)

    def close(self) -> None:
        for stage in self._stages.values():
            stage.close()
        self._hands.shutdown()
        self._reader.close()
        self._writer.close()

    # --- packets ----------------------------------------------------------------------------------------------------

    def _take_packets(self) -> None:
        while batch := self._reader.read(wake=False):
            for stream, arrival, data in batch:
                one = self._streams.get(stream) or self._announced(stream)
                if one is not None:
                    one.receive(bytes(data), arrival)

    def _announced(self, stream: int) -> Input | None:
        """A new input's packets may be here before the words that announce it; its keyframe would be lost."""
        if stream in self._strange:
            return None
        self._hear()
        found = self._streams.get(stream)
        if found is None:
            if len(self._strange) >= MAX_STRANGE:
                self._strange.clear()
            self._strange.add(stream)
        return found

    def _send(self, stream: int, now: int, packets: list[bytes]) -> None:
        with self._lock:
            for packet in packets:
                self._writer.put(stream, now, packet, more=True)
            self._writer.flush()

    def _tick(self, stage: Stage) -> None:
        try:
            stage.tick(now_us())
        except (av.error.FFmpegError, MemoryError, OSError) as error:
            self._fail(stage.spec.stage, f"{type(error).__name__}: {error}")

    def _fail(self, stage: str, detail: str) -> None:
        log.error("a program cannot be made", stage=stage, detail=detail)
        self._close_stage(stage)
        self._tell(StageFailed(stage, detail))

    # --- words ------------------------------------------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        if not self._control.send(message):
            self._over = True

    def _hear(self) -> None:
        messages = self._control.receive(0)
        if messages is None:
            self._over = True
            return
        for message in messages:
            self._obey(message)

    def _obey(self, message: Message) -> None:
        if isinstance(message, OpenStage):
            self._open_stage(message)
            return
        if isinstance(message, CloseStage):
            self._close_stage(message.stage)
            return
        stage = self._stages.get(message.stage)  # type: ignore[attr-defined]
        if stage is None:
            return  # it failed meanwhile
        match message:
            case AddInput():
                self._drop_stream(stage.inputs.get(message.input.identity))
                self._add_stream(stage.add_input(message.input, now_us()))
            case RemoveInput():
                self._drop_stream(stage.inputs.get(message.identity))
                stage.remove_input(message.identity)
            case ChangeLayout() | ChangeOverlays():
                stage.change(message)
            case SendKeyframe():
                stage.want_keyframe()
            case AnchorInput():
                if (one := stage.inputs.get(message.identity)) is not None:
                    one.anchor(message.ssrc, message.timestamp, message.captured)
            case DelayInput():
                if (one := stage.inputs.get(message.identity)) is not None:
                    one.wait(message.delay)

    def _open_stage(self, message: OpenStage) -> None:
        spec = message.spec
        self._close_stage(spec.stage)
        try:
            stage = Stage(spec, now_us(), self._send, self._tell, self._page, self._hands, self._encoders, now_us)
        except (av.error.FFmpegError, MemoryError, ValueError) as error:
            self._fail(spec.stage, f"{type(error).__name__}: {error}")
            return
        self._stages[spec.stage] = stage
        for one in stage.inputs.values():
            self._add_stream(one)

    def _close_stage(self, name: str) -> None:
        stage = self._stages.pop(name, None)
        if stage is not None:
            for one in stage.inputs.values():
                self._drop_stream(one)
            stage.close()

    def _add_stream(self, one: Input) -> None:
        if one.spec.stream is not None:
            self._streams[one.spec.stream] = one
            self._strange.discard(one.spec.stream)

    def _drop_stream(self, one: Input | None) -> None:
        if one is not None and one.spec.stream is not None:
            self._streams.pop(one.spec.stream, None)


def warm_up(encoders: Encoders, shape: Shape) -> None:
    """Use everything once, so that no first frame waits for a library, a font or a page of memory."""
    composer = Composer(shape.width, shape.height)
    for codec in CODECS:
        encoder = encoders.take(shape._replace(codec=codec))
        data, _ = encoder.encode(composer.canvas.frame, True)
        picture = Decoder(codec).decode(data, 0)[0]
        cell = Cell("a", Box(0, 0, shape.width // 2, shape.height // 2), "letterbox")
        composer.draw((cell,), {"a": Content("a b", picture, 1)}, Overlays(), 0)
        if codec == shape.codec:
            encoders.give(encoder)
    tiles.avatar("a b", cell.box.width, cell.box.height)
    gc.collect()
    gc.freeze()


def main(arguments: Sequence[str]) -> int:
    """`TAP INJECT PAGE SHAPE FONT CONTROL PARENT`: descriptors (three of a ring with commas between), what most
    programs will be encoded as (`h264,1280,…`), a font file or nothing, and the relay's process id."""
    wire: Wire[Message] = Wire(*TO_WORKER)
    control = begin(arguments, wire)
    os.nice(NICE)
    sys.setswitchinterval(0.0005)
    tap, inject = (SharedRing.attach([int(word) for word in words.split(",")]) for words in arguments[:2])
    codec, *numbers = arguments[3].split(",")
    try:
        tiles.use_font(arguments[4])
    except OSError as error:
        log.error(
            "the font for programs cannot be read; the built-in one is used", path=arguments[4], reason=str(error)
        )
    encoders = Encoders()
    worker = Worker(tap, inject, Page(int(arguments[2])), control, encoders)
    warm_up(encoders, Shape("vp8" if codec == "vp8" else "h264", *map(int, numbers)))
    try:
        worker.run()
    except PeerError as error:
        log.error("a video worker ends", reason=str(error))
        return 1
    finally:
        worker.close()
    return 0


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

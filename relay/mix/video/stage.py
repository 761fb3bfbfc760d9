"""One stage's program inside a worker: at each of its output frames, compose, encode and send."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Protocol

from relay.mix.layout import LayoutState
from relay.mix.scaler import Plan, Scaler
from relay.mix.timeline import OutputTimeline
from relay.mix.video.composer import Composer
from relay.mix.video.encoder import Encoder, Encoders, Shape
from relay.mix.video.inputs import Input, Tell
from relay.mix.video.messages import (
    ChangeLayout,
    ChangeOverlays,
    InputSpec,
    PlanChanged,
    StageMeasured,
    StageSpec,
)
from relay.mix.video.packets import Packetizer
from relay.mix.video.page import Page, StageWords
from relay.stage.layout import MAX_CHANGES, STEP, C, SyncLog

MEASURE_US = 1_000_000
ALONE = 0.6
"""Of a frame's time: what one hand does by itself."""


class Sender(Protocol):
    """Where packets go: the inject ring, shared with the other stages of the worker."""

    def __call__(self, stream: int, now: int, packets: list[bytes]) -> None: ...


class Measured:
    """The last second of a stage."""

    def __init__(self, now: int) -> None:
        self.start, self.skipped, self.busy = now, 0, 0
        self.lateness: list[int] = []

    def message(self, stage: str) -> StageMeasured:
        ordered = sorted(self.lateness)
        count = len(ordered)
        high = ordered[max(0, -(-count * 95 // 100) - 1)]
        return StageMeasured(stage, count, self.skipped, high, self.busy // count)


class Stage:
    """See the module's text. Everything but the encoder's work is done by one thread."""

    def __init__(
        self,
        spec: StageSpec,
        now: int,
        send: Sender,
        tell: Tell,
        page: Page,
        hands: Executor,
        encoders: Encoders,
        clock: Callable[[], int],
    ) -> None:
        self.spec, self._send, self._tell, self._page, self._hands, self._clock = spec, send, tell, page, hands, clock
        self._encoders = encoders
        self._encoder: Encoder | None = None
        self.inputs: dict[str, Input] = {}
        self._timeline = OutputTimeline(spec.epoch, spec.timestamp, spec.fps, spec.wall_offset)
        self._overlays = SyncLog(*spec.overlays)
        self._layouts = LayoutState(spec.layouts, spec.width, spec.height)
        self._packets = Packetizer(spec.codec, spec.ssrc, spec.payload_type, spec.sequence, spec.picture_id)
        self._scaler = Scaler(spec.fps, spec.cores, now)
        self._encoding: Future[None] | None = None
        self._hold_until = now + spec.hold
        self._frame = self._timeline.frame_after(now)
        self._measured = Measured(now)
        self._frames = 0
        self._period, self._busy = 1_000_000 // spec.fps, 0.0
        self._keyframe = True
        self._open(self._scaler.plan)
        for one in spec.inputs:
            self.add_input(one, now)

    @property
    def next_at(self) -> int:
        """When the next output frame is due."""
        return self._timeline.at(self._frame)

    @property
    def parallel(self) -> bool:
        """More than one hand works for it: there are more, and one would be at work for much of the time.

        One hand alone costs less, as its pictures stay in its core's cache.
        """
        return self._scaler.plan.workers > 1 and self._busy > ALONE * self._period

    def add_input(self, spec: InputSpec, now: int) -> Input:
        """Add an input, or put another one in its place: without a flash where both have pictures."""
        made = Input(self.spec.stage, spec, self.spec.delay, self.spec.silence, now, self._tell)
        if (old := self.inputs.get(spec.identity)) is not None:
            made.go_on_from(old)
        self.inputs[spec.identity] = made
        return made

    def remove_input(self, identity: str) -> None:
        self.inputs.pop(identity, None)

    def change(self, message: ChangeLayout | ChangeOverlays) -> None:
        """Take a change for its time."""
        if isinstance(message, ChangeLayout):
            _add(self._layouts.log, message.change)
        else:
            _add(self._overlays, message.change)

    def want_keyframe(self) -> None:
        self._keyframe = True

    def tick(self, now: int) -> None:
        """Make the output frame that is due."""
        self._finish()
        skipped = self._skip(now)
        frame, due = self._frame, self.next_at
        divisor = self._scaler.plan.divisor
        self._frame = (frame // divisor + 1) * divisor
        sync_id = self._timeline.sync_id(frame)
        self._decode(due, sync_id)
        contents = {name: one.content(due, sync_id) for name, one in self.inputs.items()}
        for one in self.inputs.values():
            one.check(now)
        holds = self._timeline.holds(frame)
        cells = self._layouts.frame(holds, tuple(self.inputs))
        self._overlays.advance(holds)
        if now < self._hold_until and any(one.waits for one in self.inputs.values()):
            return
        self._hold_until = 0
        self._composer.draw(cells, contents, self._overlays.holds.overlays, self._timeline.wall_us(frame) // 1000)
        spent = self._clock() - now
        if self.parallel:
            self._encoding = self._hands.submit(self._encode, frame, spent, skipped)
        else:
            self._encode(frame, spent, skipped)

    def close(self) -> None:
        """Finish what is being encoded, and give the encoder back."""
        try:
            self._finish()
        finally:
            self.inputs.clear()
            if self._encoder is not None:
                self._encoders.give(self._encoder)
                self._encoder = None

    def _decode(self, due: int, sync_id: int) -> None:
        work = [one for one in self.inputs.values() if one.due(due)]
        if len(work) > 1 and self.parallel:
            list(self._hands.map(Input.decode, work))
        else:
            for one in work:
                one.decode()
                self._composer.paint(one.spec.identity, one.content(due, sync_id))

    def _finish(self) -> None:
        if self._encoding is not None:
            encoding, self._encoding = self._encoding, None
            encoding.result()

    def _skip(self, now: int) -> int:
        """Leave out the frames that are late by more than one frame's time. Returns how many those are."""
        divisor = self._scaler.plan.divisor
        newest = (self._timeline.frame_after(now) - 1) // divisor * divisor
        if newest - self._frame < divisor:
            return 0
        skipped = (newest - self._frame) // divisor
        self._frame = newest
        return skipped

    def _encode(self, frame: int, spent: int, skipped: int) -> None:
        start = self._clock()
        wanted, self._keyframe = self._keyframe, False
        encoder, self._encoder = self._encoder, None  # one that fails is not given back
        assert encoder is not None
        data, _ = encoder.encode(self._composer.canvas.frame, wanted)
        self._encoder = encoder
        packets = self._packets.packets(data, self._timeline.timestamp(frame), self._timeline.wall_us(frame))
        self._frames += 1
        words = StageWords(self._packets.sequence, self._packets.picture_id, self._frames, start)
        self._page.write(self.spec.place, words)
        self._send(self.spec.stream, start, packets)
        now = self._clock()
        self._measure(now, now - self._timeline.at(frame), now - start + spent, skipped)

    def _measure(self, now: int, lateness: int, busy: int, skipped: int) -> None:
        held = self._measured
        held.lateness.append(lateness)
        held.skipped += skipped
        held.busy += busy
        if now - held.start >= MEASURE_US:
            self._tell(held.message(self.spec.stage))
            self._measured = Measured(now)
        self._busy += (busy - self._busy) / 16
        before = self._scaler.plan
        plan = self._scaler.measured(now, lateness, busy, skipped)
        if plan is not None:
            self._adopt(before, plan)

    def _adopt(self, before: Plan, plan: Plan) -> None:
        if plan.quarters != before.quarters:
            self._open(plan)
        fps = self.spec.fps / plan.divisor
        self._tell(PlanChanged(self.spec.stage, plan.workers, fps, *self._size(plan), plan.degraded))

    def _size(self, plan: Plan) -> tuple[int, int]:
        width, height = self.spec.width * plan.quarters // 4, self.spec.height * plan.quarters // 4
        return max(STEP, width // STEP * STEP), max(2, height // 2 * 2)

    def _open(self, plan: Plan) -> None:
        """Begin with a picture of the plan's size."""
        spec, (width, height) = self.spec, self._size(plan)
        self._composer = Composer(width, height)
        self._layouts.width, self._layouts.height = width, height
        if self._encoder is not None:
            self._encoders.give(self._encoder)
        bitrate = spec.bitrate * plan.quarters // 4
        self._encoder = self._encoders.take(Shape(spec.codec, width, height, spec.fps, bitrate, spec.keyframe_ms))
        self._keyframe = True


def _add(log: SyncLog[C], change: C) -> None:
    """Where as many wait as may, the relay, which goes by its clock, has let go of the oldest: its time has come."""
    if len(log.changes) > MAX_CHANGES:
        log.advance(log.changes[1].at)
    log.add(change)

"""The relay's side of elastic video: programs are opened, fed, arranged and closed here; workers make them.

A program's state is kept here: its inputs, its layout log, its timeline. A worker that dies or hangs is replaced by
the next one that waits, which is told that state, takes the inputs' packets by taps of its own, and goes on with the
same timestamps and the next sequence number, from a keyframe. `relay.mix.video.events` says what happened.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import structlog

from relay.clock import now_us
from relay.errors import BadRequest, Conflict, NotFound, Overloaded, UsageError
from relay.ids import make_sync_id
from relay.mix.executor import Executor, LocalProcesses
from relay.mix.timeline import OutputTimeline
from relay.mix.video import events, messages
from relay.mix.video.crew import Crew
from relay.mix.video.pool_worker import PoolWorker
from relay.mix.video.program import InputState, Program, Source, StageState, input_spec
from relay.plane import Plane
from relay.plane.contract import AddTap, RemoveTap, RequestKeyframe
from relay.process.control import Message
from relay.settings import MixVideoSettings
from relay.stage.layout import (
    MAX_INPUTS,
    Layout,
    LayoutChange,
    OverlayChange,
    Overlays,
    SyncLog,
    check_layout,
    check_overlays,
    check_size,
)

DELAY_STEP_US = 5000
"""A delay that moves by less is not worth telling."""
_CLOCK_BITS = 32

log = structlog.get_logger()


class VideoPool:
    """See the module's text. `handles` gives plane handles that nobody else uses; `on_event` is called in the loop."""

    def __init__(
        self,
        plane: Plane,
        handles: Callable[[], int],
        settings: MixVideoSettings,
        on_event: Callable[[events.VideoEvent], None],
        *,
        executor: Executor | None = None,
    ) -> None:
        self._plane, self._handles, self._settings, self._on_event = plane, handles, settings, on_event
        self._crew = Crew(plane, executor or LocalProcesses(), settings, self._heard, self._lost)
        self._stages: dict[str, StageState] = {}

    async def start(self) -> None:
        """Start the workers that wait. Returns at once."""
        self._crew.start()

    async def stop(self) -> None:
        """Close all programs and end all workers. Repeatable."""
        self._crew.hire_no_more()
        for stage in list(self._stages):
            self.close_stage(stage)
        await self._crew.stop()

    @property
    def workers(self) -> list[str]:
        """Where workers run, those that wait included."""
        return [worker.running.where for worker in self._crew]

    @property
    def stages(self) -> list[str]:
        return list(self._stages)

    def worker_of(self, stage: str) -> str:
        """Where a stage's worker runs, empty while it has none. Raises NotFound."""
        worker = self._found(stage).worker
        return "" if worker is None else worker.running.where

    def sync_id(self) -> int:
        """Of the present moment, as `set_layout` takes it."""
        return make_sync_id(time.time_ns() // 1_000_000, 0)

    # --- programs ---------------------------------------------------------------------------------------------------

    def open_stage(
        self, stage: str, program: Program, layout: Layout | None = None, overlays: Overlays | None = None
    ) -> None:
        """Begin a program. Raises Conflict when it is open, BadRequest for what cannot be shown, Overloaded when no
        worker can be had."""
        if stage in self._stages:
            raise Conflict(f"stage {stage!r} has a program already", code="program-open")
        layout, overlays = layout or Layout(), overlays or Overlays()
        check_layout(layout)
        check_overlays(overlays)
        if self._crew.stopped:
            raise Overloaded("the video pool is stopped")
        opened = StageState(
            self._spec(stage, program),
            program,
            SyncLog(LayoutChange(0, layout)),
            SyncLog(OverlayChange(0, overlays)),
        )
        self._stages[stage] = opened
        try:
            self._take(opened, hold=0)
        except BaseException:
            del self._stages[stage]
            raise

    def close_stage(self, stage: str) -> None:
        """End a program; no error when there is none. Its track is the caller's."""
        closed = self._stages.pop(stage, None)
        if closed is None:
            return
        if closed.waiting is not None:
            closed.waiting.cancel()
        if (worker := closed.worker) is not None:
            for one in closed.inputs.values():
                self._untap(one)
            worker.running.send(messages.CloseStage(stage))
            if not worker.inject.closed:
                worker.inject.unbind(closed.spec.stream)
            worker.stages.pop(stage, None)
            self._crew.settle(worker)

    def add_input(self, stage: str, identity: str, name: str, source: Source | None = None) -> bool:
        """Show somebody; without `source` as an avatar tile. Who is shown already gets the new name and source.

        False, and InputRefused is told, when the program is full or the track is gone. Raises NotFound.
        """
        found = self._found(stage)
        old = found.inputs.get(identity)
        if old is None and len(found.inputs) >= MAX_INPUTS:
            self._on_event(events.InputRefused(stage, identity, f"a program shows {MAX_INPUTS} inputs"))
            return False
        if old is not None:
            self._untap(old)
        one = found.inputs[identity] = InputState(name, source)
        one.delay = 0 if old is None else old.delay
        if found.worker is not None:
            self._tap(found, identity, one)
            found.worker.running.send(messages.AddInput(stage, input_spec(identity, one)))
        return one.source == source

    def remove_input(self, stage: str, identity: str) -> None:
        """Show somebody no longer; no error when he was not shown. Raises NotFound for the stage."""
        found = self._found(stage)
        if (one := found.inputs.pop(identity, None)) is not None:
            self._untap(one)
            self._tell(found, messages.RemoveInput(stage, identity))

    def set_layout(self, stage: str, layout: Layout, at: int = 0, animate: int = 0) -> None:
        """Arrange the inputs from the first output frame on whose sync id is at least `at`; 0: from the next one.

        Raises NotFound, BadRequest.
        """
        check_layout(layout, animate)
        found, change = self._found(stage), LayoutChange(at, layout, animate)
        found.layouts.advance(self.sync_id())
        found.layouts.add(change)
        self._tell(found, messages.ChangeLayout(stage, change))

    def set_overlays(self, stage: str, overlays: Overlays, at: int = 0) -> None:
        """Draw names, score and timer from a sync id on, as `set_layout`. Raises NotFound, BadRequest."""
        check_overlays(overlays)
        found, change = self._found(stage), OverlayChange(at, overlays)
        found.overlays.advance(self.sync_id())
        found.overlays.add(change)
        self._tell(found, messages.ChangeOverlays(stage, change))

    def request_keyframe(self, track: int) -> bool:
        """A viewer of the program that is injected as `track` needs a keyframe. False: no program is."""
        for found in self._stages.values():
            if found.program.track == track:
                self._tell(found, messages.SendKeyframe(found.spec.stage))
                return True
        return False

    def anchor_input(self, stage: str, identity: str, ssrc: int, timestamp: int, captured: int) -> None:
        """See `AnchorInput`; InputLagged tells what follows. It is not kept for another worker. Raises NotFound."""
        self._tell(self._found(stage), messages.AnchorInput(stage, identity, ssrc, timestamp, captured))

    def set_delay(self, stage: str, identity: str, delay: int) -> None:
        """Show somebody's pictures `delay` µs after they could have come at the earliest, as long as his sound waits;
        never less than the settings say. Raises NotFound for the stage."""
        found = self._found(stage)
        one = found.inputs.get(identity)
        delay = max(delay, found.spec.delay)
        if one is not None and abs(delay - (one.delay or found.spec.delay)) >= DELAY_STEP_US:
            one.delay = delay
            self._tell(found, messages.DelayInput(stage, identity, delay))

    def anchor(self, stage: str, now: int) -> tuple[int, int, int] | None:
        """Return SSRC, RTP timestamp and wall time (µs since the epoch) of a frame near `now`; None: no such stage."""
        found = self._stages.get(stage)
        if found is None:
            return None
        spec = found.spec
        timeline = OutputTimeline(spec.epoch, spec.timestamp, spec.fps, spec.wall_offset)
        frame = timeline.frame_after(now)
        return spec.ssrc, timeline.timestamp(frame), timeline.wall_us(frame)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _spec(self, stage: str, program: Program) -> messages.StageSpec:
        settings, now = self._settings, now_us()
        width, height = program.width or settings.width, program.height or settings.height
        fps = program.fps or settings.fps
        check_size(width, height)
        if not 1 <= fps <= 120:
            raise BadRequest(f"a program has from 1 to 120 frames a second, not {fps}")
        return messages.StageSpec(
            stage=stage,
            place=0,
            stream=self._handles(),
            width=width,
            height=height,
            fps=fps,
            codec=program.codec or settings.codec,
            bitrate=program.bitrate or settings.bitrate_bps,
            keyframe_ms=settings.keyframe_ms,
            payload_type=program.payload_type,
            ssrc=secrets.randbits(_CLOCK_BITS),
            epoch=now,
            timestamp=secrets.randbits(_CLOCK_BITS),
            wall_offset=time.time_ns() // 1000 - now,
            sequence=secrets.randbits(15),  # RFC 3550 5.1; below 2^15, so that it does not turn at once
            picture_id=secrets.randbits(15),
            delay=settings.delay_ms * 1000,
            silence=settings.silence_ms * 1000,
            hold=0,
            cores=os.cpu_count() or 1,
            layouts=(),
            overlays=(),
        )

    def _found(self, stage: str) -> StageState:
        try:
            return self._stages[stage]
        except KeyError:
            raise NotFound(f"stage {stage!r} has no program") from None

    def _tell(self, stage: StageState, message: Message) -> None:
        if stage.worker is not None:
            stage.worker.running.send(message)

    def _take(self, stage: StageState, *, hold: int) -> None:
        """Have a worker make a stage. Raises Overloaded."""
        worker = self._crew.choose()
        name = stage.spec.stage
        place = worker.take_place(name)
        stage.worker, stage.taken = worker, time.monotonic()
        worker.inject.bind(stage.spec.stream, stage.program.track, stage.program.layer)
        for identity, one in stage.inputs.items():
            self._tap(stage, identity, one)
        inputs = tuple(input_spec(identity, one) for identity, one in stage.inputs.items())
        told = {"place": place, "hold": hold, "inputs": inputs}
        told |= {"layouts": stage.layouts.changes, "overlays": stage.overlays.changes}
        stage.spec = replace(stage.spec, **told)  # type: ignore[arg-type]
        worker.running.send(messages.OpenStage(stage.spec))
        self._crew.fill()

    def _tap(self, stage: StageState, identity: str, one: InputState) -> None:
        """Have an input's packets put into its worker's ring, and ask for a keyframe."""
        one.tap = None
        if one.source is None or stage.worker is None or stage.worker.tap.closed:
            return
        tap, source = self._handles(), one.source
        try:
            self._plane.submit(
                AddTap(tap, source.track, source.layer, ring=stage.worker.tap.number, canonical=True),
                RequestKeyframe(source.track, source.layer),
            )
        except UsageError as error:
            one.source = None
            self._on_event(events.InputRefused(stage.spec.stage, identity, str(error)))
            return
        one.tap = tap

    def _untap(self, one: InputState) -> None:
        if one.tap is not None:
            tap, one.tap = one.tap, None
            try:
                self._plane.submit(RemoveTap(tap))
            except UsageError:
                return  # it went with its track or its ring

    # --- what workers say -------------------------------------------------------------------------------------------

    def _lost(self, worker: PoolWorker, why: str) -> None:
        lost = tuple(worker.stages)
        self._on_event(events.WorkerLost(worker.running.where, why, lost))
        for name in lost:
            stage = self._stages[name]
            words = worker.left(name)
            if words.frames:
                stage.spec = replace(stage.spec, sequence=words.sequence & 0xFFFF, picture_id=words.picture_id)
            stage.worker = None
            for one in stage.inputs.values():
                one.tap = None
            wait = stage.restarts.died(time.monotonic() - stage.taken)
            self._retake(name, words.last, wait)

    def _retake(self, name: str, last: int, wait: float) -> None:
        if wait > 0:
            stage = self._stages[name]
            stage.waiting = asyncio.get_running_loop().call_later(wait, self._retake, name, last, 0.0)
            return
        stage = self._stages[name]
        stage.waiting = None
        try:
            self._take(stage, hold=self._settings.hold_ms * 1000)
        except Overloaded as error:
            log.error("a program has no worker", stage=name, reason=str(error))
            self._retake(name, last, 1.0)
            return
        assert stage.worker is not None
        self._on_event(events.StageMoved(name, stage.worker.running.where, now_us() - last if last else 0))

    def _heard(self, worker: PoolWorker, message: Message) -> None:
        for event in self._told(worker, message):
            self._on_event(event)

    def _told(self, worker: PoolWorker, message: Message) -> Iterator[events.VideoEvent]:
        if isinstance(message, messages.WorkerReady):
            yield events.WorkerStarted(worker.running.where, message.resident)
            self._crew.settle(worker)  # its program may have ended meanwhile
            return
        name = message.stage  # type: ignore[attr-defined]
        found = self._stages.get(name)
        if found is None or found.worker is not worker:
            return
        match message:
            case messages.FrameShown():
                yield events.InputShown(name, message.identity, message.after, message.sync_id)
            case messages.InputTrouble():
                yield events.InputTroubled(name, message.identity, message.fault, message.detail)
            case messages.KeyframeNeeded():
                self._ask(found.inputs.get(message.identity))
            case messages.LagMeasured():
                yield events.InputLagged(name, message.identity, message.lag, message.told)
            case messages.StageMeasured():
                found.layouts.advance(self.sync_id())
                figures = message.frames, message.skipped, message.lateness_p95, message.busy
                yield events.ProgramMeasured(name, *figures)
            case messages.PlanChanged(degraded=True):
                yield events.ProgramDegraded(name, message.fps, message.width, message.height, message.workers)
            case messages.PlanChanged():
                yield events.ProgramRecovered(name, message.workers)
            case messages.StageFailed():
                self.close_stage(name)
                yield events.StageFailed(name, message.detail)

    def _ask(self, one: InputState | None) -> None:
        if one is not None and one.source is not None and one.tap is not None:
            try:
                self._plane.submit(RequestKeyframe(one.source.track, one.source.layer))
            except UsageError:
                return  # its track has just gone

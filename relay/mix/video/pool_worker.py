"""One video worker as the pool sees it: its process, its two rings and its page."""

from __future__ import annotations

from collections.abc import Callable

from relay.mix.executor import Body, Executor
from relay.mix.video.messages import FROM_WORKER, WorkerReady
from relay.mix.video.page import PLACES, Page, StageWords
from relay.plane import Plane
from relay.plane.rings import Gone
from relay.process.control import Message, Wire
from relay.settings import MixVideoSettings

MODULE = "relay.mix.video"


class PoolWorker:
    """Started at once. `on_message` and `on_end` get the worker; after `on_end` it holds nothing any more, and
    `left` tells what its stages sent."""

    def __init__(
        self,
        plane: Plane,
        executor: Executor,
        settings: MixVideoSettings,
        now: int,
        on_message: Callable[[PoolWorker, Message], None],
        on_end: Callable[[PoolWorker, str], None],
    ) -> None:
        """Raises OSError or Overloaded when there is no memory or no process to be had."""
        self.started, self.ready = now, False
        self.stages: dict[str, int] = {}
        self.stopping = False
        self._start_us = round(executor.start_s * 1e6)
        self._on_message, self._on_end = on_message, on_end
        self._left: dict[int, StageWords] = {}
        self._tap_gone = self._inject_gone = False
        self.page = Page.create()
        self.tap = plane.open_tap_ring(on_gone=self._ring_gone)
        self.inject = plane.open_inject_ring(on_gone=self._ring_gone)
        rings = [",".join(map(str, ring.fds)) for ring in (self.tap, self.inject)]
        usual = settings.codec, settings.width, settings.height, settings.fps, settings.bitrate_bps
        shape = ",".join(map(str, (*usual, settings.keyframe_ms)))
        body = Body(
            MODULE,
            (*rings, str(self.page.descriptor), shape, settings.font),
            (*self.tap.fds, *self.inject.fds, self.page.descriptor),
        )
        try:
            self.running = executor.start(body, Wire(*FROM_WORKER), self._heard, self._ended)
        except BaseException:
            self._free()
            raise
        self.tap.passed()
        self.inject.passed()

    @property
    def idle(self) -> bool:
        return not self.stages and not self.stopping

    def take_place(self, stage: str) -> int:
        """Give the stage a place on the page."""
        place = min(set(range(PLACES)) - set(self.stages.values()))
        self.page.write(place, StageWords(0, 0, 0, 0))
        self.stages[stage] = place
        return place

    def left(self, stage: str) -> StageWords:
        """What the worker wrote of a stage last."""
        place = self.stages[stage]
        return self._left[place] if self.page.descriptor < 0 else self.page.read(place)

    def overdue(self, now: int, hang: int) -> bool:
        """It gives no sign of life."""
        if not self.ready:
            return now - self.started > self._start_us
        return bool(self.stages) and now - self.page.beat > hang

    def _heard(self, message: Message) -> None:
        if isinstance(message, WorkerReady):
            self.ready = True
        self._on_message(self, message)

    def _ring_gone(self, why: Gone) -> None:
        self.running.kill(f"its ring is {why}")

    def _ended(self, why: str) -> None:
        self._left = {place: self.page.read(place) for place in self.stages.values()}
        self._free()
        self._on_end(self, why)

    def _free(self) -> None:
        self.tap.close()
        self.inject.close()
        self.page.close()

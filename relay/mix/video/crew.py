"""The workers of a video pool: some wait, some make programs; those that hang are ended, those that died replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import structlog

from relay.clock import now_us
from relay.errors import Overloaded
from relay.mix.executor import Executor
from relay.mix.video.pool_worker import PoolWorker
from relay.plane import Plane
from relay.process.child import Restarts
from relay.process.control import Message
from relay.settings import MixVideoSettings

WATCH_S = 0.1

log = structlog.get_logger()


class Crew:
    """See the module's text. `on_lost` is told of a worker that ended though nobody wanted it to, with the reason."""

    def __init__(
        self,
        plane: Plane,
        executor: Executor,
        settings: MixVideoSettings,
        on_message: Callable[[PoolWorker, Message], None],
        on_lost: Callable[[PoolWorker, str], None],
    ) -> None:
        self._plane, self._executor, self._settings = plane, executor, settings
        self._on_message, self._on_lost = on_message, on_lost
        self._workers: list[PoolWorker] = []
        self._restarts = Restarts()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refill: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.stopped = False
        """Whether no worker is started any more."""

    def __iter__(self) -> Iterator[PoolWorker]:
        return iter(list(self._workers))

    def start(self) -> None:
        """Start the workers that wait. Returns at once."""
        self.fill()
        self._watcher = asyncio.create_task(self._watch())

    def hire_no_more(self) -> None:
        """Start no worker from now on, whatever ends."""
        self.stopped = True
        if self._watcher is not None:
            self._watcher.cancel()
        if self._refill is not None:
            self._refill.cancel()

    async def stop(self) -> None:
        """End all. Repeatable."""
        self.hire_no_more()
        await asyncio.gather(*(worker.running.stop() for worker in self), *self._tasks)

    def choose(self) -> PoolWorker:
        """Return the one that takes the next program. Raises Overloaded."""
        usable = [one for one in self._workers if not one.stopping and not one.running.ended and not one.tap.closed]
        busy = [one for one in usable if 0 < len(one.stages) < self._settings.stages_per_worker]
        ready = [one for one in usable if one.idle and one.ready]
        starting = [one for one in usable if one.idle]
        for found in (busy, ready, starting):
            if found:
                return found[0]
        if len(self._workers) >= self._settings.max_workers:
            raise Overloaded(f"all {self._settings.max_workers} video workers are in use")
        return self._hire()

    def fill(self) -> None:
        """Start workers until enough of them wait."""
        self._refill = None
        while not self.stopped and sum(one.idle for one in self._workers) < self._settings.spares:
            if len(self._workers) >= self._settings.max_workers:
                return
            try:
                self._hire()
            except Overloaded as error:
                log.error("a video worker cannot be started", reason=str(error))
                self._fill_later(1.0)
                return

    def settle(self, worker: PoolWorker) -> None:
        """Keep a worker that has no stage any more, or end it when enough wait."""
        keep = max(self._executor.keeps, self._settings.spares)
        if worker.idle and sum(one.idle and one.ready for one in self._workers) > keep:
            worker.stopping = True
            task = asyncio.get_running_loop().create_task(worker.running.stop())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _hire(self) -> PoolWorker:
        try:
            worker = PoolWorker(self._plane, self._executor, self._settings, now_us(), self._on_message, self._ended)
        except OSError as error:
            raise Overloaded(f"no video worker can be started: {error.strerror}") from error
        self._workers.append(worker)
        return worker

    def _fill_later(self, wait: float) -> None:
        if self._refill is None and not self.stopped:
            self._refill = asyncio.get_running_loop().call_later(wait, self.fill)

    def _ended(self, worker: PoolWorker, why: str) -> None:
        self._workers.remove(worker)
        if worker.stopping or self.stopped:
            return
        waited = not worker.stages
        self._on_lost(worker, why)
        if waited:
            self._fill_later(self._restarts.died((now_us() - worker.started) / 1e6))
        self.fill()

    async def _watch(self) -> None:
        hang = self._settings.hang_ms * 1000
        while True:
            await asyncio.sleep(WATCH_S)
            for worker in self:
                if worker.overdue(now_us(), hang):
                    worker.running.kill("it hangs")

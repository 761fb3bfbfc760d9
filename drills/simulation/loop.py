"""An event loop in virtual time: nobody waits, the clock jumps to whatever is due next.

Code for asyncio runs on it unchanged, in the same order each time, as long as it opens no sockets and starts no
threads. `time.monotonic` is not virtual: code under simulation takes its clock as an argument.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Deadlock(RuntimeError):
    """Everybody waits and nothing is due: no time could pass."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 seconds. Timers due at one time run in the order in which they were set.

    asyncio's own loop asks the operating system for news once a step, and orders its timers by a comparison written in
    Python: more than what most of a simulation's steps cost. Here a step is one entry of a heap.
    """

    _ready: deque[asyncio.Handle]  # asyncio's: what `call_soon` was given
    _stopping: bool

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = 0

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts,
                context: Context | None = None) -> asyncio.TimerHandle:  # fmt: skip
        """See `asyncio.loop.call_at`."""
        timer = events.TimerHandle(when, callback, args, self, context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, timer))
        return timer

    def call_later(self, delay: float, callback: Callable[[*Ts], object], *args: *Ts,
                   context: Context | None = None) -> asyncio.TimerHandle:  # fmt: skip
        """See `asyncio.loop.call_later`."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when its time comes."""

    def _run_once(self) -> None:
        """Do all that is ready; when nothing is, let time pass until something is due."""
        ready, timers = self._ready, self._timers
        while not ready and not self._stopping:
            if not timers:
                raise Deadlock("everybody waits and nothing is due")
            when, _, timer = heapq.heappop(timers)
            if not timer.cancelled():
                self._now = max(self._now, when)
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time and return its result. What it leaves running is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)

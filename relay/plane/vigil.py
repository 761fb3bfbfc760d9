"""Watches the threads of a native plane, and says in the log what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger()

LOOK_S = 1.0
"""Between looks: `rust/src/watch.rs` believes that no more time has passed."""


class Threads(Protocol):
    """Shards, each a thread; `_native.NativePlane` is one."""

    @property
    def healthy(self) -> bool:
        """No shard is lost. Each reading is a look at the threads."""
        ...

    @property
    def failures(self) -> list[tuple[int, str]]:
        """The shards that are lost, and why."""
        ...

    @property
    def late_us(self) -> list[int]:
        """By how much each shard's rounds began too late, altogether."""
        ...


class Vigil:
    """Looks at `threads` once a second."""

    def __init__(self, threads: Threads) -> None:
        self.on_failed: Callable[[str], None] = lambda why: None
        """Told of the first that is lost, and why: once, in the loop."""
        self._threads = threads
        self._late = threads.late_us
        self._said: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look once a second from now on."""
        self._timer = loop.call_later(LOOK_S, self._look_again, loop)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Look now."""
        if self._stopped:
            return
        late = self._threads.late_us
        for shard, (now, before) in enumerate(zip(late, self._late, strict=True)):
            if now > before:
                log.warning(
                    "a thread of the packet plane got no CPU: its packets had to wait",
                    shard=shard,
                    waited_ms=(now - before) // 1000,
                )
        self._late = late
        if self._threads.healthy:
            return
        first = not self._said
        failures = [(shard, why) for shard, why in self._threads.failures if shard not in self._said]
        for shard, why in failures:
            self._said.add(shard)
            log.error(
                "the packet plane failed: this node sends its sessions elsewhere and ends, to be started again",
                shard=shard,
                reason=why,
            )
        if first and failures:
            self.on_failed(f"shard {failures[0][0]}: {failures[0][1]}")

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK_S, self._look_again, loop)
        self.look()

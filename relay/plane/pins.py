"""Keeps each shard's thread on its CPU, and looks again when CPUs or limits may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from relay.plane import topology

log = structlog.get_logger()

LOOK_S = 5.0  # between looks


class Pins:
    """`pin(shard, cpus)` moves a thread; `root` is where /sys and /proc are. Nothing is pinned before `start`."""

    def __init__(self, shards: int, pin: Callable[[int, list[int]], None], root: Path = Path("/")) -> None:
        self._shards = shards
        self._pin_to = pin
        self._root = root
        self._cpus = topology.read_cpus(root)
        self._limits = topology.read_limits(root)
        self.cpus = topology.plan(self._cpus, self._limits, shards)
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pin all, and look again every LOOK_S."""
        self._pin()
        self._timer = loop.call_later(LOOK_S, self._look_again, loop)

    def stop(self) -> None:
        """Look no more; the threads stay where they are."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Pin anew if a CPU went on- or offline, or the cgroup's limits are others."""
        limits = topology.read_limits(self._root)
        if limits == self._limits:
            return
        if limits.online != self._limits.online:
            self._cpus = topology.read_cpus(self._root)
        self._limits = limits
        self.cpus = topology.plan(self._cpus, limits, self._shards)
        log.info("CPUs or their limits changed", cpus=list(self.cpus))
        self._pin()

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK_S, self._look_again, loop)  # first: one look that fails must not be the last
        self.look()

    def _pin(self) -> None:
        for shard, cpu in enumerate(self.cpus):
            self._pin_to(shard, [cpu])

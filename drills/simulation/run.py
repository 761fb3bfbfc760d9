"""Run a simulation of a plan, quietly."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from drills.simulation import loop
from drills.simulation.world import START_S, Outcome, Plan, World


def simulate(plan: Plan, out: TextIO | None = None) -> Outcome:
    """Simulate. All lines of the trace go to `out`."""

    async def main() -> Outcome:
        asyncio.get_running_loop().call_at(2 * START_S, _stays)
        return await World(plan, out).run()

    with _quiet(), _few_collections():
        return loop.run(main())


@contextmanager
def _quiet() -> Iterator[None]:
    """The nodes' own logs are thousands of lines, with a clock that is not theirs."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _few_collections() -> Iterator[None]:
    """A thousand nodes are millions of objects, nearly all of which stay: to look through them again and again for
    garbage takes a quarter of the time."""
    enabled, threshold = gc.isenabled(), gc.get_threshold()
    gc.disable()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
        (gc.enable if enabled else gc.disable)()


def _stays() -> None:
    """What is there now is not looked at again."""
    gc.freeze()
    gc.enable()

"""Run a simulation of a plan, quietly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from drills.simulation import loop
from drills.simulation.world import Outcome, Plan, World


def simulate(plan: Plan, out: TextIO | None = None) -> Outcome:
    """Simulate. All lines of the trace go to `out`."""

    async def main() -> Outcome:
        return await World(plan, out).run()

    with _quiet():
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

"""What a hundred stages leave behind in a relay as users run it: each is a room with a host on air whose program is
switched on, shown and switched off, by REST. Some are open at a time.

Before is after the first few, of which more are open at a time: they start the processes that wait for the next program
until the relay ends, and open connections to its store.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

from bench.footprint import Footprint, footprint
from bench.plan import Plan
from bench.processes import Server, relay
from bench.report import Figure, figure
from bench.rooms import Room
from costream.synthetic import Show, SyntheticHost

COMMAND = "make bench-mix"
STAGES, EARLY = 100, 20
QUICK_STAGES, QUICK_EARLY = 12, 4
WARM = 12
AT_A_TIME = 4
SHOWN_S = 0.3
SETTLE_S = 15.0
QUIET_S = 2.0
"""Counts that have not changed for so long have settled."""
FLAT_MIB = 5
POOLED = (os.cpu_count() or 1) + 4
"""Threads that a pool (`concurrent.futures`) of the relay or of a worker may still start, and keep, once needed."""
SHOW = Show(width=160, height=90, fps=10)
SMALL = {"width": 320, "height": 180, "fps": 15}


async def measure(plan: Plan) -> list[Figure]:
    """Counts of the relay and all its children, and its memory."""
    stages, early = (QUICK_STAGES, QUICK_EARLY) if plan.quick else (STAGES, EARLY)
    async with relay(*{plan.test, plan.load}, plane="auto") as server:
        await _open_and_close(server, WARM, 2 * AT_A_TIME)
        before = await _settled(server.pid)
        await _open_and_close(server, early)
        soon = await _settled(server.pid)
        began = time.monotonic()
        await _open_and_close(server, stages - early)
        took = (time.monotonic() - began) / (stages - early)
        after = await _settled(server.pid)
    return [*_counts(stages, before, after), *_memory(stages, early, before, soon, after), _took(took)]


def _counts(stages: int, before: Footprint, after: Footprint) -> Iterator[Figure]:
    for what in ("processes", "threads", "descriptors", "shared"):
        had, has = getattr(before, what), getattr(after, what)
        name = {"shared": "mappings of shared memory"}.get(what, what)
        told = f"{name} after {stages} stages were opened and closed"
        most = had + (POOLED if what == "threads" else 0)
        yield figure(told, [has], "", goal=f"<= {most}", beside="before", beside_values=[had], command=COMMAND)


def _memory(stages: int, early: int, before: Footprint, soon: Footprint, after: Footprint) -> Iterator[Figure]:
    for who, field in (("the relay", "resident"), ("the relay and its children", "all_resident")):
        start, middle, end = (getattr(one, field) for one in (before, soon, after))
        for count, value in ((early, middle), (stages, end)):
            name = f"memory of {who} after {count} stages"
            yield figure(name, [value], "MiB", beside="before", beside_values=[start], command=COMMAND)
        name = f"of it, grown from {early} stages to {stages}"
        yield figure(name, [end - middle], "MiB", goal=f"<= {FLAT_MIB}", command=COMMAND)


def _took(took: float) -> Figure:
    return figure(f"time per stage, {AT_A_TIME} at a time", [took], "s", command=COMMAND)


async def _open_and_close(server: Server, count: int, at_a_time: int = AT_A_TIME) -> None:
    """So many stages."""
    numbers = iter(range(count))

    async def lane() -> None:
        for _ in numbers:
            await _stage(server)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(at_a_time):
            lanes.create_task(lane())


async def _stage(server: Server) -> None:
    async with (
        Room.opened(server) as room,
        SyntheticHost(room.whip, room.token("host", "guest"), SHOW) as host,
    ):
        await host.connected()
        await room.program(**SMALL)
        await asyncio.sleep(SHOWN_S)
        await room.ask("DELETE", "program")


async def _settled(pid: int) -> Footprint:
    """When the counts have stood still for a while, or at last in any case."""
    seen = footprint(pid)
    since = begin = time.monotonic()
    while time.monotonic() < min(since + QUIET_S, begin + SETTLE_S):
        await asyncio.sleep(0.1)
        now = footprint(pid)
        if now.counts != seen.counts:
            since = time.monotonic()
        seen = now
    return seen

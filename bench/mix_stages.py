"""What a hundred stages leave behind in a relay as users run it: each is a room with a host on air whose program is
switched on, shown and switched off, by REST. Some are open at a time.

Before is after the first few, of which more are open at a time: they start the processes that wait for the next program
until the relay ends. The relay has all the connections to its store then that it ever keeps: it was asked much while
the store stood still, so that each call needed one of its own.

A leak grows with every stage, so memory is read several times and judged by the middle one of the slopes in between. It
is that which no other process has; what allocators keep for later is in it, some MiB that come and go. Shared memory is
judged by its size: rings are as large as they ever get from the beginning, but their pages become resident, in the
relay and in its worker, when packets first reach them. For those of sound that is 9 MiB each, after 6144 packets.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.footprint import Footprint, footprint, growth
from bench.plan import Plan
from bench.processes import Server, relay
from bench.report import Figure, figure
from bench.rooms import PATIENCE_S, Room
from costream.synthetic import Show, SyntheticHost
from relay.cluster.gate import CONNECTIONS

COMMAND = "make bench-mix"
STAGES, EARLY = 100, 20
QUICK_STAGES, QUICK_EARLY = 14, 4
READINGS = 6
WARM = 12
AT_A_TIME = 4
SHOWN_S = 0.3
SETTLE_S = 15.0
QUIET_S = 2.0
"""Counts that have not changed for so long have settled."""
STILL_S = 0.2
"""The store stands still: less than the relay waits for its answers."""
FLAT_MIB, ALL_FLAT_MIB = 2.5, 5.0
"""What the slope may come to over the stages in which memory is read: 32 KiB for each of 80 in the relay, 64 with its
children. Of those, video workers change from reading to reading, and no two are alike."""
POOLED = (os.cpu_count() or 1) + 4
"""Threads that a pool (`concurrent.futures`) of the relay or of a worker may still start, and keep, once needed."""
SHOW = Show(width=160, height=90, fps=10)
SMALL = {"width": 320, "height": 180, "fps": 15}


async def measure(plan: Plan) -> list[Figure]:
    """Counts of the relay and all its children, and its memory."""
    stages, early = (QUICK_STAGES, QUICK_EARLY) if plan.quick else (STAGES, EARLY)
    step = (stages - early) // (READINGS - 1)
    at = [early + step * number for number in range(READINGS)]
    async with relay(*{plan.test, plan.load}, plane="auto") as server:
        await _use_all_connections(server)
        await _open_and_close(server, WARM, 2 * AT_A_TIME)
        before = await _settled(server.pid)
        await _open_and_close(server, early)
        read, took = [await _settled(server.pid)], 0.0
        for _ in at[1:]:
            began = time.monotonic()
            await _open_and_close(server, step)
            took += time.monotonic() - began
            read.append(await _settled(server.pid))
    return [*_counts(at[-1], before, read[-1]), *_memory(at, before, read), _took(took / (at[-1] - early))]


def _counts(stages: int, before: Footprint, after: Footprint) -> Iterator[Figure]:
    names = {"shared": "mappings of shared memory", "shared_size": "size of shared memory"}
    for what in ("processes", "threads", "descriptors", "shared", "shared_size"):
        had, has = round(getattr(before, what), 3), round(getattr(after, what), 3)
        told = f"{names.get(what, what)} after {stages} stages were opened and closed"
        most = had + (POOLED if what == "threads" else 0)
        unit = "MiB" if what == "shared_size" else ""
        yield figure(told, [has], unit, goal=f"<= {most}", beside="before", beside_values=[had], command=COMMAND)


def _memory(at: Sequence[int], before: Footprint, read: Sequence[Footprint]) -> Iterator[Figure]:
    for who, resident, own, flat in (
        ("the relay", "resident", "own", FLAT_MIB),
        ("the relay and its children", "all_resident", "all_own", ALL_FLAT_MIB),
    ):
        for field, name in ((resident, "resident memory"), (own, "of it nobody else's,")):
            start, middle, end = (getattr(one, field) for one in (before, read[0], read[-1]))
            for count, value in ((at[0], middle), (at[-1], end)):
                told = f"{name} of {who} after {count} stages"
                yield figure(told, [value], "MiB", beside="before", beside_values=[start], command=COMMAND)
        slope = 1024 * growth(at, [getattr(one, own) for one in read])
        told = f"of {who} growing for each of the stages {at[0]} to {at[-1]}"
        yield figure(told, [slope], "KiB", goal=f"<= {flat * 1024 / (at[-1] - at[0]):g}", command=COMMAND)


def _took(took: float) -> Figure:
    return figure(f"time per stage, {AT_A_TIME} at a time", [took], "s", command=COMMAND)


async def _use_all_connections(server: Server) -> None:
    """Have the relay open as many connections to its store as it may, which it then keeps."""
    store = [each for each in psutil.Process(server.pid).children() if "valkey" in Path(each.exe()).name]
    async with Room.opened(server) as room:
        for each in store:
            each.suspend()
        asked = [asyncio.create_task(room.ask("GET", f"{server.base}/v1/rooms")) for _ in range(2 * CONNECTIONS)]
        await asyncio.sleep(STILL_S)
        for each in store:
            each.resume()
        await asyncio.gather(*asked, return_exceptions=True)  # on a busy machine some waited too long
        async with asyncio.timeout(PATIENCE_S):
            while isinstance(await _tried(room.ask("GET", f"{server.base}/v1/rooms")), RuntimeError):
                await asyncio.sleep(STILL_S)


async def _tried(asked: Awaitable[object]) -> object:
    """The answer, or the refusal."""
    try:
        return await asked
    except RuntimeError as error:
        return error


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

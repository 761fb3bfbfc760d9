"""How old a picture is when a viewer can show it: through the program, by a slot, by LL-HLS; and whether lips match.

A libwebrtc publisher in a process of its own paints the machine's monotonic clock into its pictures, and a libwebrtc
viewer reads it from what it decodes, at the moment it is handed out. The limit beside is the same two with nothing in
between: the publisher offers to the viewer itself. What the viewer's jitter buffer and decoder take of it is told
apart. The relay is a process as users run it, with the plane that they get; it and its workers may use the cores that
the bench has, clients keep to one of them. All go before what else this machine does, where that is allowed.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from bench import mix_hls, mix_sync
from bench.glass_viewer import GlassViewer, answering
from bench.plan import Plan
from bench.processes import hurried, publishing, relay
from bench.report import Figure, figure, percentile
from bench.rooms import Room

COMMAND = "make bench-mix"
LIMIT = "publisher and viewer without a relay"
GOALS = {"through the program": "<= 250", "by a slot": "<= 80"}
SETTLE_S = 4.0
"""Jitter buffers forget within it how packets came in the beginning."""
MEASURE_S, QUICK_S = 4.0, 3.0
CODECS = ["opus", "vp8"]  # libwebrtc as `wrtc` builds it decodes no H264


class Seen(NamedTuple):
    """One run of a viewer, in ms."""

    ages: Sequence[float]
    buffered: float
    decoding: float
    width: int


async def measure(plan: Plan) -> list[Figure]:
    """The ways take turns, so that a busy moment meets all of them."""
    seen: dict[str, list[Seen]] = defaultdict(list)
    async with relay(*{plan.test, plan.load}, plane="auto") as server:
        for _ in range(plan.runs):
            seen[LIMIT].append(await _alone(plan))
            async with (
                Room.opened(server, codecs=CODECS) as room,
                publishing(room.whip, room.token("host", "guest"), plan.load) as host,
            ):
                await room.until("publications", lambda found: len(found["publications"]) >= 2)
                seen["by a slot"].append(await _watched(plan, room, "", host.pid, server.pid))
                await room.program()
                seen["through the program"].append(await _watched(plan, room, "?play=program", host.pid, server.pid))
        figures = _figures(seen)
        figures += await mix_hls.measure(plan, server)
        figures += await mix_sync.measure(plan, server)
    return figures


async def _alone(plan: Plan) -> Seen:
    viewer = GlassViewer()
    try:
        async with answering(viewer) as whip, publishing(whip, "", plan.load) as host:
            return await _seen(plan, viewer, host.pid)
    finally:
        await viewer.close()


async def _watched(plan: Plan, room: Room, query: str, *pids: int) -> Seen:
    viewer = GlassViewer(mixed=bool(query))
    try:
        await viewer.watch(room.whep + query, room.token("viewer", "viewer"))
        return await _seen(plan, viewer, *pids)
    finally:
        await viewer.close()


async def _seen(plan: Plan, viewer: GlassViewer, *pids: int) -> Seen:
    """`pids` are the processes that have a part in it, besides this one."""
    await viewer.begun()
    with hurried(os.getpid(), *pids):
        await asyncio.sleep(SETTLE_S)
        ages = await viewer.measured(QUICK_S if plan.quick else MEASURE_S)
    return Seen(ages, *await viewer.waits(), viewer.width)


def _figures(seen: dict[str, list[Seen]]) -> list[Figure]:
    figures = []
    for way, goal in GOALS.items():
        runs, alone = seen[way], seen[LIMIT]
        for label, share, wanted in (("p50", 0.5, ""), ("p95", 0.95, goal)):
            figures.append(
                figure(
                    f"glass to glass {way} (VP8, {runs[0].width} wide), {label}",
                    [percentile(run.ages, share) for run in runs],
                    "ms",
                    goal=wanted,
                    beside=LIMIT,
                    beside_values=[percentile(run.ages, share) for run in alone],
                    command=COMMAND,
                )
            )
        for part, mine, limit in (
            ("in the viewer's jitter buffer", [run.buffered for run in runs], [run.buffered for run in alone]),
            ("in its decoder", [run.decoding for run in runs], [run.decoding for run in alone]),
        ):
            name = f"of it, {part} (mean)"
            figures.append(figure(name, mine, "ms", beside=LIMIT, beside_values=limit, command=COMMAND))
    return figures

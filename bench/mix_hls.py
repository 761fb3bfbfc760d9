"""How old a picture of the program is when a player of LL-HLS shows it that keeps to PART-HOLD-BACK."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from bench.glass_viewer import place
from bench.hls_player import Fetched, Playhead, decoded, fetch
from bench.plan import Plan
from bench.processes import Server, hurried, publishing
from bench.report import Figure, figure, percentile
from bench.rooms import Room
from costream.painting import CLOCK_MODULUS, read

COMMAND = "make bench-mix"
GOAL = "<= 2.5"
MEASURE_S, QUICK_S = 6.0, 4.0
SETTLE_S = 3.0


class Played(NamedTuple):
    """`ages` in s, from painting to showing; `newest` until the part with a picture had come, p50."""

    ages: Sequence[float]
    newest: float
    stalls: int


async def measure(plan: Plan, server: Server) -> list[Figure]:
    """Each run is a room, a program and an egress of its own."""
    ages, newest, held, stalls = list[Sequence[float]](), list[float](), list[float](), list[float]()
    for _ in range(min(plan.runs, 2)):  # each takes some 14 s
        async with Room.opened(server) as room, publishing(room.whip, room.token("host", "guest"), plan.load) as host:
            await room.until("publications", lambda found: len(found["publications"]) >= 2)
            await room.program()
            started = await room.ask("POST", "egress", {"kind": "hls"})
            await room.until(f"egress/{started['id']}", lambda found: found["state"] == "running")
            url = urljoin(room.base, (await room.ask("GET", "hls"))["url"])
            with hurried(os.getpid(), host.pid, server.pid):
                await asyncio.sleep(SETTLE_S)
                fetched = await fetch(url, QUICK_S if plan.quick else MEASURE_S)
            await room.ask("DELETE", f"egress/{started['id']}")
        found = await asyncio.to_thread(played, fetched)
        ages.append(found.ages)
        newest.append(found.newest)
        held.append(fetched.hold_back)
        stalls.append(found.stalls)
    shown = [(label, [percentile(run, share) for run in ages]) for label, share in (("p50", 0.5), ("p95", 0.95))]
    return [
        figure(
            f"glass to glass by LL-HLS of the program (H264), {label}",
            values,
            "s",
            goal=GOAL if label == "p95" else "",
            beside="PART-HOLD-BACK" if label == "p50" else "",
            beside_values=held if label == "p50" else [],
            command=COMMAND,
        )
        for label, values in shown
    ] + [
        figure("of it, until the part with a picture had been fetched (p50)", newest, "s", command=COMMAND),
        figure("times that the player stood still", stalls, "", goal="<= 0", command=COMMAND),
    ]


def played(fetched: Fetched) -> Played:
    """What the player would have shown. Raises RuntimeError when nothing can be read."""
    starts, told = list[float](), list[list[tuple[float, int]]]()
    for start, found in decoded(fetched.parts):
        starts.append(start)
        marks = [(picture.moment, _read(picture.luma)) for picture in found]
        told.append([(moment, clock) for moment, clock in marks if clock is not None])
    last = fetched.joined - 1
    head = Playhead(fetched.hold_back, starts[last] + fetched.parts[last].duration, fetched.parts[last].at)
    ages, waits = list[float](), list[float]()
    for number, (part, start, pictures) in enumerate(zip(fetched.parts, starts, told, strict=True)):
        if number > last:
            head.came(start, part.at)
            waits += [_age(part.at, clock) for _, clock in pictures]
        ages += [_age(head.shown_at(moment), clock) for moment, clock in pictures if moment >= head.begin]
    if not waits:
        raise RuntimeError("no picture of the program could be read")
    return Played(ages, percentile(waits, 0.5), head.stalls)


def _read(luma: NDArray[np.uint8]) -> int | None:
    told = read(luma, place(luma.shape[1], luma.shape[0]))
    return None if told is None else told.clock_ms


def _age(now: float, clock_ms: int) -> float:
    return (now * 1000 - clock_ms) % CLOCK_MODULUS / 1000

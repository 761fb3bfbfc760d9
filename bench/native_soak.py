"""The native plane under load for long: does it grow, and does it lose what the network did not lose?

    python -m bench.native soak --minutes 30

Frames come at random times at a rate that makes LOAD of the plane's core; between segments of SEGMENT_S the next ones
are sealed, so that the load is there for most of the time. One viewer of each room authenticates everything; what is
missing there is compared with what the kernel says it dropped at the plane's socket and at those viewers'. The others
only make load. Resident memory is compared with that at the end of the warm-up, when all histories have gone round.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop

from bench.native_plane import DELAY_ROOMS, FRAME, GUESS, Bed, bed, resident
from bench.report import Figure, figure, publish

LOAD = 0.8
SEGMENT_S = 4.0
WARM_UP = 0.2  # of the time


async def soak(minutes: float) -> list[Figure]:
    """Run it. A wrong count of what arrived is a figure that does not hold, not an error."""
    async with bed("native", DELAY_ROOMS, urgent=True) as under_test:
        await under_test.play()
        rate = await _rate(under_test)
        end = time.monotonic() + minutes * 60
        warm = time.monotonic() + minutes * 60 * WARM_UP
        wanted = arrived = 0
        before, dropped = 0, await _dropped(under_test)
        loads, sizes = [], []
        while time.monotonic() < end:
            if not before and time.monotonic() > warm:
                before = resident()
            await under_test.tell("prepare", FRAME, round(rate * SEGMENT_S))
            cpu = time.process_time()
            found = await under_test.tell("frames", rate)
            loads.append((time.process_time() - cpu) / found["seconds"] * 100)
            rate = max(rate / 2, rate * LOAD * 100 / loads[-1]) if loads[-1] > LOAD * 105 else rate
            wanted, arrived = wanted + found["wanted"], arrived + found["arrived"]
            sizes.append(resident())
        dropped = await _dropped(under_test) - dropped
        stats = under_test.plane.stats()
    if not before:
        raise RuntimeError("it ended within its warm-up: give it more minutes")
    # A packet that was dropped on its way in is missing at its room's watched viewer once.
    missing = wanted - arrived
    lost_in_plane = sum(count for reason, count in stats.drops.items() if not reason.startswith("out_"))
    command = f"python -m bench.native soak --minutes {minutes:g}"
    rows = [
        ("load", loads, "% of a core", ""),
        ("packets forwarded", [sum(slot.packets for slot in stats.slots.values()) / 1e6], "million", ""),
        ("packets watched", [arrived / 1e6], "million", ""),
        ("missing there beyond what the kernel dropped", [max(0, missing - dropped)], "packets", "<= 0"),
        ("dropped by the kernel on its way", [dropped], "packets", ""),
        ("dropped by the plane, not counting its full socket", [lost_in_plane], "packets", "<= 0"),
        ("growth of resident memory", [(sizes[-1] / before - 1) * 100], "%", "<= 1"),
        ("resident memory", [sizes[-1] / (1 << 20)], "MiB", ""),
    ]
    return [figure(f"soak: {name}", values, unit, goal=goal, command=command) for name, values, unit, goal in rows]


async def _dropped(under_test: Bed) -> int:
    """Packets that the kernel dropped on their way to watched viewers. A frame reaches the plane as one message."""
    found = await under_test.tell("dropped")
    return int(found["viewers"] + found["plane"] * (FRAME if "gro" in under_test.plane.ways else 1))


async def _rate(under_test: Bed) -> float:
    """Frames per second that make LOAD."""
    rate = GUESS["native"] / 4
    for _ in range(3):
        await under_test.tell("prepare", FRAME, round(rate))
        cpu = time.process_time()
        found = await under_test.tell("frames", rate)
        rate *= LOAD / ((time.process_time() - cpu) / found["seconds"])
    return rate


def main() -> None:
    """Soak, print the table and leave the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.native", description=__doc__)
    parser.add_argument("what", choices=["soak"])
    parser.add_argument("--minutes", type=float, default=30.0)
    chosen = parser.parse_args()

    async def bounded() -> list[Figure]:
        async with asyncio.timeout(chosen.minutes * 90 + 120):
            return await soak(chosen.minutes)

    publish("native_soak", uvloop.run(bounded()))

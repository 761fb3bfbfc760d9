"""The native plane under load for long: does it grow, and does it lose what the network did not lose?

    python -m bench.native soak --minutes 30

Frames come at random times at a rate that makes LOAD of the plane's core; between segments of SEGMENT_S the next ones
are sealed, so that the load is there for most of the time. One viewer of each room authenticates everything; the others
only make load. Packets are counted at four places: sent by the publishers, come into the plane, sent by it to the
watched viewers, authentic there. Between the second and the third only the plane can lose any, and must not lose one;
between the others only the kernel can, and says how many it dropped. Resident memory is compared with that at the end
of the warm-up, when all histories have gone round.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import uvloop

from bench.native_plane import DELAY_ROOMS, FRAME, GUESS, Bed, bed, resident
from bench.report import Figure, figure, publish

LOAD = 0.8
SEGMENT_S = 4.0
WARM_UP = 0.2  # of the time


@dataclass(slots=True)
class Counts:
    """Packets of all rooms since the bed was made, and what the kernel says it dropped."""

    entered: int
    forwarded: int
    kernel: Counter[str]

    @classmethod
    async def of(cls, under_test: Bed) -> Counts:
        """When nothing is on its way."""
        stats = under_test.plane.stats()
        return cls(
            sum(layer.packets for layers in stats.tracks.values() for layer in layers),
            sum(stats.slots[slot].packets for slot in DELAY_ROOMS.watched()),
            Counter(await under_test.tell("dropped")),
        )


async def soak(minutes: float) -> list[Figure]:
    """Run it. A wrong count of what arrived is a figure that does not hold, not an error."""
    async with bed("native", DELAY_ROOMS, urgent=True) as under_test:
        await under_test.play()
        rate = await _rate(under_test)
        end = time.monotonic() + minutes * 60
        warm = time.monotonic() + minutes * 60 * WARM_UP
        sent = arrived = 0
        before, first = 0, await Counts.of(under_test)
        loads, sizes = [], []
        while time.monotonic() < end:
            if not before and time.monotonic() > warm:
                before = resident()
            await under_test.tell("prepare", FRAME, round(rate * SEGMENT_S))
            cpu = time.process_time()
            found = await under_test.tell("frames", rate)
            loads.append((time.process_time() - cpu) / found["seconds"] * 100)
            rate = max(rate / 2, rate * LOAD * 100 / loads[-1]) if loads[-1] > LOAD * 105 else rate
            sent, arrived = sent + found["wanted"], arrived + found["arrived"]
            sizes.append(resident())
        last = await Counts.of(under_test)
        stats = under_test.plane.stats()
    if not before:
        raise RuntimeError("it ended within its warm-up: give it more minutes")
    kernel = last.kernel - first.kernel
    # With GRO the kernel drops a frame as one message.
    dropped_in = kernel["plane"] * (FRAME if "gro" in under_test.plane.ways else 1)
    entered, forwarded = last.entered - first.entered, last.forwarded - first.forwarded
    unexplained = max(0, sent - entered - dropped_in) + max(0, forwarded - arrived - kernel["viewers"])
    command = f"python -m bench.native soak --minutes {minutes:g}"
    rows = [
        ("load", loads, "% of a core", ""),
        ("packets forwarded", [sum(slot.packets for slot in stats.slots.values()) / 1e6], "million", ""),
        ("watched: sent by publishers", [sent / 1e6], "million", ""),
        ("watched: lost by the plane", [entered - forwarded], "packets", "<= 0"),
        ("watched: dropped at the plane's socket", [sent - entered], "packets", ""),
        ("watched: dropped at the viewers' sockets", [forwarded - arrived], "packets", ""),
        ("dropped by the kernel before a socket, all viewers", [kernel["backlog"]], "packets", ""),
        ("watched: lost and not counted by anyone", [max(0, unexplained - kernel["backlog"])], "packets", "<= 0"),
        ("growth of resident memory", [(sizes[-1] / before - 1) * 100], "%", "<= 1"),
        ("resident memory", [sizes[-1] / (1 << 20)], "MiB", ""),
    ]
    return [figure(f"soak: {name}", values, unit, goal=goal, command=command) for name, values, unit, goal in rows]


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

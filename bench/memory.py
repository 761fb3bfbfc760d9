"""Resident memory of a connected viewer for whom nothing plays: whole nodes with the reference and the native plane."""

from __future__ import annotations

from bench.crowd import crowd
from bench.plan import Plan
from bench.processes import relay, stock
from bench.report import Figure, figure
from relay.plane import native_missing

SLOTS = "aavv"
SESSIONS = 500
STOCK_SESSIONS = 60
WARM_UP = 20  # what the first ones cost is the process's, not theirs


async def measure(plan: Plan) -> list[Figure]:
    """Fill the relay and stock aiortc, each in a fresh process per run."""
    each: list[list[float]] = [[], []]
    base: list[list[float]] = [[], []]
    for _ in range(plan.runs):
        counts = (60, 30) if plan.quick else (SESSIONS, STOCK_SESSIONS)
        for which, endpoint in enumerate((relay(plan.test), stock(plan.test, "--idle"))):
            async with endpoint as server, crowd(server, counts[which], SLOTS, WARM_UP) as joined:
                grown = joined.resident_after - joined.resident_before
                each[which].append(grown / joined.count / 1024)
                base[which].append(joined.resident_before / 2**20)
    beside = "stock aiortc WHEP endpoint"
    native = [] if native_missing() else [figure("with the native plane, one run", [await _native(plan)], "KiB")]
    return [
        figure(
            "memory per idle viewer, 2 video + 2 audio slots",
            each[0],
            "KiB",
            goal="<= 300",
            beside=beside,
            beside_values=each[1],
        ),
        figure("memory of the process before them", base[0], "MiB", beside=beside, beside_values=base[1]),
        *native,
    ]


async def _native(plan: Plan) -> float:
    count = 60 if plan.quick else SESSIONS
    async with relay(plan.test, plane="native") as server, crowd(server, count, SLOTS, WARM_UP) as joined:
        return (joined.resident_after - joined.resident_before) / joined.count / 1024

"""What a tap of the native plane costs the relay: by a shared-memory ring, by `on_taps`, and beside the limit.

The limit is `rust/examples/ring_cost.rs`: the same packets copied into a ring in one thread and nothing else; it also
says what the plane's thread spends on a tap by a ring. Without cargo its rows are left out and the table says so. All
else comes from `bench.taps_plane`, which see: the whole process's CPU per packet that is injected, and tapped.
"""

from __future__ import annotations

from collections import defaultdict

from bench.native import built_example
from bench.plan import Plan
from bench.processes import json_of
from bench.report import Figure, figure
from relay.plane import native_missing

PACKETS = 200_000
QUICK_PACKETS = 50_000
COMMAND = "make bench ARGS=taps"
WAYS = ("none", "ring", "ticks", "callback")


async def measure(plan: Plan) -> list[Figure]:
    """Measure all in turns, so that what else the machine does falls on all alike."""
    if missing := native_missing():
        return [figure(f"the native plane is not built here ({missing}): its figures are left out", [0], "")]
    program, why_not = await built_example("ring_cost")
    values: dict[str, list[float]] = defaultdict(list)
    packets = QUICK_PACKETS if plan.quick else PACKETS
    for _ in range(plan.runs):
        for way in WAYS:
            words = ["-m", "bench.taps_plane", way, "--packets", str(packets)]
            for name, value in (await json_of(words, plan.test, plan.load)).items():
                values[f"{way} {name}"].append(value)
        if program is not None:
            found = await json_of([], plan.test, program=str(program))
            values["limit"].append(found["limit_ns"] / 1000)
            values["thread"].append(found["tap_ns"] / 1000)
            values["allocations"].append(found["allocations"])
    return _figures(values, why_not)


def _figures(values: dict[str, list[float]], why_not: str) -> list[Figure]:
    rows = (
        ("tapped by a ring", "ring"),
        ("by a ring without waking", "ticks"),
        ("not tapped", "none"),
    )
    figures = [
        figure(
            f"per packet injected by a ring, {name}",
            values[f"{way} us"],
            "µs CPU",
            beside="tapped by on_taps",
            beside_values=values["callback us"],
            command=COMMAND,
        )
        for name, way in rows
    ]
    if limit := values.get("limit", []):
        beside = "copying into the ring alone"
        figures += [
            figure(
                "of it the tap, in the plane's thread alone",
                values["thread"],
                "µs",
                beside=beside,
                beside_values=limit,
                command=COMMAND,
            ),
            figure("allocations by 1024 such taps", values["allocations"], "", goal="<= 0", command=COMMAND),
        ]
    else:
        figures.append(figure(why_not, [0], "", command=COMMAND))
    rates = {way: [1e6 / us for us in values[f"{way} us"]] for way in WAYS}
    return [
        *figures,
        figure(
            "such packets that a core injects and taps by a ring",
            rates["ring"],
            "per s",
            beside="tapped by on_taps",
            beside_values=rates["callback"],
            command=COMMAND,
        ),
        figure("lost by a ring", [share * 100 for share in values["ring lost"]], "%", command=COMMAND),
        figure("lost by a ring without waking", [share * 100 for share in values["ticks lost"]], "%", command=COMMAND),
        figure("lost by on_taps", [share * 100 for share in values["callback lost"]], "%", command=COMMAND),
    ]

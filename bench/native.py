"""The native plane: CPU per forwarded packet beside its limit and the reference plane, fan-out, added delay, memory.

The limit is `rust/examples/limit.rs`, a loop that only seals and sends; without cargo its rows are left out and the
table says so. All else comes from `bench.native_plane`, which see.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.native_plane import DELAY_ROOMS, FRAME, IDLE
from bench.plan import Plan
from bench.processes import ROOT, json_of
from bench.report import Figure, figure
from relay.plane import native_missing

FAN_OUTS = (10, 100, 500, 2000)
SAME_LOAD = 2000  # viewers in rooms of each fan-out
FLAT = "<= 25"
BURST = 8
VIEWERS = 100
REFERENCE_PACKETS = 16_000
BUILD_S = 120.0
LIMIT_ROUNDS = 20
_UNIT = "µs CPU"

Values = dict[str, list[float]]


async def measure(plan: Plan) -> list[Figure]:
    """Measure all in turns, so that what else the machine does falls on all alike."""
    if missing := native_missing():
        return [figure(f"the native plane is not built here ({missing}): its figures are left out", [0], "")]
    limit, why_not = await built_example("limit")
    values: Values = defaultdict(list)
    for run in range(plan.runs):
        if limit is not None:
            for name, reader in (("limit", ()), ("limit apart", (plan.load,))):
                for burst, ns in (await _limit(limit, plan.test, *reader)).items():
                    values[f"{name} {burst}"].append(ns / 1000)
        await _costs(plan, values)
        if run == 0:
            await _once(plan, values)
    return [*_cost_figures(values, why_not), *_fan_out_figures(values), *_rest(values)]


async def _costs(plan: Plan, values: Values) -> None:
    for name, words in (
        ("single", ["native", "--burst", "1"]),
        ("reference", ["reference", "--packets", str(REFERENCE_PACKETS)]),
        *((f"one room of {each}", ["native", "--viewers", str(each)]) for each in FAN_OUTS),
    ):
        found = await _ask(plan, "cost", *words)
        values[name].append(found["us"])
        values[f"{name}, user"].append(found["user_us"])
        values["lost"].append(found["lost"] * 100)
    for name, value in (await _ask(plan, "delay", "native")).items():
        values[f"delay {name}"].append(value)


async def _once(plan: Plan, values: Values) -> None:
    for each in FAN_OUTS[:-1]:
        rooms = ["--rooms", str(SAME_LOAD // each), "--viewers", str(each)]
        values[f"rooms of {each}"].append((await _ask(plan, "cost", "native", *rooms))["us"])
    for name, value in (await _ask(plan, "delay", "reference")).items():
        values[f"reference delay {name}"].append(value)
    values["memory"].append((await _ask(plan, "memory", "native"))["kib"])
    values["reference memory"].append((await _ask(plan, "memory", "reference"))["kib"])


async def _ask(plan: Plan, *words: str) -> dict[str, float]:
    return dict(await json_of(["-m", "bench.native_plane", *words], plan.test, plan.load))


# --- the limit ------------------------------------------------------------------------------------------------------


async def built_example(name: str) -> tuple[Path | None, str]:
    """The crate's example, built; or None and why not."""
    cargo = shutil.which("cargo")
    if cargo is None:
        return None, "no limit: cargo is not installed"
    command = [cargo, "build", "--quiet", "--release", "--locked", "--example", name]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT / "rust", stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(BUILD_S):
            told = (await process.communicate())[1].decode(errors="replace").strip()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None, f"no limit: `{' '.join(command[1:])}` took more than {BUILD_S:.0f} s; run it before"
    if process.returncode:
        return None, f"no limit: its build failed ({told[-100:]})"
    return ROOT / "rust" / "target" / "release" / "examples" / name, ""


async def _limit(program: Path, core: int, *reader: int) -> dict[int, float]:
    """Nanoseconds per packet by burst size, the best way of each; with a `reader`, that core reads as packets come."""
    rows = await json_of([str(LIMIT_ROUNDS), *map(str, reader)], core, program=str(program))
    best: dict[int, float] = {}
    for row in rows:
        if row["way"] != "seal only":
            best[row["burst"]] = min(row["ns_median"], best.get(row["burst"], row["ns_median"]))
    return best


# --- the table ------------------------------------------------------------------------------------------------------


def _cost_figures(values: Values, why_not: str) -> list[Figure]:
    burst = values[f"one room of {VIEWERS}"]
    # without segmentation offload the limit sends one by one, whatever the burst
    limits = {size: values.get(f"limit {size}", values.get("limit 1", [])) for size in (BURST, 1)}
    beside = "" if why_not else "seal and send alone, in Rust"
    figures = [
        figure(
            f"per forwarded packet, 1x{VIEWERS}, {label}",
            found,
            _UNIT,
            goal=goal,
            beside=beside or why_not,
            beside_values=limits[size],
        )
        for label, size, found, goal in (
            (f"bursts of {BURST}", BURST, burst, "<= 0.9"),
            ("single packets", 1, values["single"], "<= 2.2"),
        )
    ]
    if not why_not:
        figures += [
            figure(f"of the limit, {label}", _ratios(found, limits[size]), "times", goal="<= 1.4")
            for label, size, found in ((f"bursts of {BURST}", BURST, burst), ("single packets", 1, values["single"]))
        ]
        # On loopback the sender's CPU time has the wake-ups of the plane's receivers; this limit has them too.
        figures += [
            figure(f"limit with receivers on the other core, {label}", values[name], _UNIT)
            for label, name in ((f"bursts of {BURST}", f"limit apart {BURST}"), ("single packets", "limit apart 1"))
            if values[name]
        ]
    user = values[f"one room of {VIEWERS}, user"]
    reference = values["reference"]
    return [
        *figures,
        figure(f"of it outside the kernel, bursts of {BURST}", user, _UNIT),
        figure("bursts again", burst, _UNIT, beside="reference plane", beside_values=reference),
        figure("not authentic at the viewers, worst of all runs", [max(values["lost"])], "%"),
    ]


def _ratios(values: Sequence[float], limits: Sequence[float]) -> list[float]:
    return [value / limit for value, limit in zip(values, limits, strict=True)]


def _fan_out_figures(values: Values) -> list[Figure]:
    alone = {each: values[f"one room of {each}"] for each in FAN_OUTS}
    outside = {each: values[f"one room of {each}, user"] for each in FAN_OUTS}
    # one room of all is both
    same = {each: values.get(f"rooms of {each}", alone[each][:1]) for each in FAN_OUTS}
    rows = [
        figure(f"per forwarded packet, one room of {each}", found, _UNIT, command="make bench ARGS=native")
        for each, found in alone.items()
    ]
    return [
        *rows,
        figure(f"spread of fan-outs {FAN_OUTS[0]} to {FAN_OUTS[-1]}, one room", [spread(alone)], "%", goal=FLAT),
        figure("spread, of it outside the kernel", [spread(outside)], "%"),
        figure(f"spread of fan-outs, always {SAME_LOAD} viewers", [spread(same)], "%", goal=FLAT),
    ]


def spread(values: dict[int, list[float]]) -> float:
    """By how many percent the dearest median is above the cheapest."""
    medians = [statistics.median(each) for each in values.values()]
    return (max(medians) / max(min(medians), 1e-9) - 1) * 100


def _rest(values: Values) -> list[Figure]:
    where = f"{DELAY_ROOMS.rooms} rooms of {DELAY_ROOMS.viewers}, frames of {FRAME}"
    load = statistics.median(values["delay load"]) * 100
    beside = "reference plane at its own half load"
    delays = [
        figure(
            f"added delay at {load:.0f} % load, {name} ({where})",
            values[f"delay {name}"],
            "ms",
            goal=goal,
            beside=beside,
            beside_values=values[f"reference delay {name}"],
        )
        for name, goal in (("p50", "<= 0.15"), ("p99", "<= 1"), ("p99.9", ""))
    ]
    rate, other = values["delay per_second"], values["reference delay per_second"]
    return [
        *delays,
        figure(
            "of the delay: waiting while others had the core",
            values["delay waited"],
            "ms per s",
            beside=beside,
            beside_values=values["reference delay waited"],
        ),
        figure("packets out at that load", rate, "per s", beside=beside, beside_values=other),
        figure("lost at that load", [share * 100 for share in values["delay lost"]], "%"),
        figure(
            f"memory per idle viewer in the plane, of {IDLE}",
            values["memory"],
            "KiB",
            goal="<= 64",
            beside="reference plane",
            beside_values=values["reference memory"],
        ),
    ]


if __name__ == "__main__":  # `python -m bench native` measures; this is for what takes longer
    from bench.native_soak import main

    main()

"""A path between two nodes: RTP packets of 1,100 bytes over QUIC, sender on one core, receiver on the other.

Beside our endpoint runs aioquic's own asyncio protocol, on asyncio's loop (on uvloop, whose clock has milliseconds, its
pacing stalls), and qh3's where that is installed (`pip install qh3`). Packets per core are what arrived, divided by the
processor seconds of the busier end, so that neighbours on the machine cost everybody the same. Both ends run at
real-time priority where that is allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench import link_end, link_relay
from bench.plan import Plan
from bench.processes import Child, free_port, started
from bench.report import Figure, figure
from costream import ca

COMMAND = "make bench-link"
STOCK = "aioquic as shipped"
KINDS = {
    "aioquic": STOCK,
    "qh3": "qh3",
    "ours": "our endpoint",
    "ours-jumbo": "our endpoint, 8,952-byte packets",
}
START_S = 15.0
LAG_S = 75.0  # a link process and a subscriber start on one core
Result = dict[str, float]


async def measure(plan: Plan) -> list[Figure]:
    """Run all kinds in turns, so that what the machine does meanwhile meets each of them."""
    kinds = [kind for kind in KINDS if kind != "qh3" or importlib.util.find_spec("qh3")]
    seconds = 1.5 if plan.quick else 3.0
    full: dict[str, list[Result]] = {kind: [] for kind in kinds}
    paced: dict[str, list[Result]] = {kind: [] for kind in kinds}
    lags: dict[str, list[Result]] = {"local": [], "process": []}
    with tempfile.TemporaryDirectory(prefix="costream-bench-link-") as made:
        directory = Path(made)
        ca.init(directory)
        for name in ("a", "b"):
            ca.issue(directory, name)
        for _ in range(plan.runs):
            for kind in kinds:
                full[kind].append(await _run(plan, directory, kind, link_end.SATURATED, seconds))
                paced[kind].append(await _run(plan, directory, kind, link_end.PACED, seconds))
            for mode, runs in lags.items():
                runs.append(await _lag(plan, directory, mode, seconds))
    return [*_throughput(full), *_latency(paced), *_lags(lags)]


def _throughput(runs: dict[str, list[Result]]) -> list[Figure]:
    def values(kind: str, of: Callable[[Result], float]) -> list[float]:
        return [of(run) for run in runs[kind]]

    def per_core(run: Result) -> float:
        return run["received"] / max(run["cpu_receive"], run["cpu_send"])

    def wall(run: Result) -> float:
        return run["received"] / run["seconds"]

    figures = []
    stock = values("aioquic", per_core)
    best_stock = stock
    for kind in runs:
        if kind == "aioquic":
            continue
        mine = values(kind, per_core)
        name = KINDS[kind]
        figures.append(_figure(f"packets/s per core, {name}", mine, "1/s", STOCK, stock))
    ratios = [mine / theirs for mine, theirs in zip(values("ours", per_core), best_stock, strict=True)]
    figures.append(figure("the endpoint against aioquic, per core", ratios, "×", goal=">= 2.5", command=COMMAND))
    for kind in ("ours", "ours-jumbo"):
        name = KINDS[kind]
        mbit = [value * link_end.SIZE * 8 / 1e6 for value in values(kind, wall)]
        theirs = [value * link_end.SIZE * 8 / 1e6 for value in values("aioquic", wall)]
        figures.append(_figure(f"goodput, {name}", mbit, "Mbit/s", STOCK, theirs))
        for side, label in (("cpu_send", "send"), ("cpu_receive", "receive")):
            each = values(kind, lambda run, side=side: run[side] / run["received"] * 1e6)  # type: ignore[misc]
            other = values("aioquic", lambda run, side=side: run[side] / run["received"] * 1e6)  # type: ignore[misc]
            figures.append(_figure(f"processor time to {label}, {name}", each, "µs/packet", STOCK, other))
    return figures


def _latency(runs: dict[str, list[Result]]) -> list[Figure]:
    figures = []
    for kind in ("ours", "ours-jumbo"):
        for share, goal in (("p50_ms", ""), ("p99_ms", "<= 3")):
            name = f"hop at {link_end.RATE:,} packets/s, {share[:3]}, {KINDS[kind]}"
            mine = [run[share] for run in runs[kind]]
            theirs = [run[share] for run in runs["aioquic"]]
            made = figure(name, mine, "ms", goal=goal, beside=STOCK, beside_values=theirs, command=COMMAND)
            figures.append(made)
    return figures


def _lags(runs: dict[str, list[Result]]) -> list[Figure]:
    packets = link_relay.TRACKS * link_relay.RATE
    beside = "in the relay's process"
    figures = []
    for key, name, unit in (
        ("api_p50_ms", f"answer of a relay's API while its link process sends {packets:,} packets/s, p50", "ms"),
        ("api_p99_ms", "the same, p99", "ms"),
        ("p50_ms", "lag of that relay's loop, p50", "ms"),
        ("p99_ms", "the same, p99", "ms"),
        ("cpu", "processor time of that relay", "cores"),
        ("packets", "packets/s that came over that link", "1/s"),
    ):
        mine, theirs = ([run[key] for run in runs[mode]] for mode in ("process", "local"))
        figures.append(_figure(name, mine, unit, beside, theirs))
    return figures


async def _lag(plan: Plan, directory: Path, mode: str, seconds: float) -> Result:
    port = str(free_port())
    subscribe = ["-m", "bench.link_relay", "subscribe", str(directory), port]
    relay = ["-m", "bench.link_relay", "relay", mode, str(directory), port, str(seconds), str(plan.load)]
    async with (
        started(subscribe, plan.load, urgent=True) as subscriber,
        started(relay, plan.test, urgent=True) as measured,
    ):
        told: Result = await _words(measured, LAG_S + seconds)
        seen = [json.loads(line) for line in subscriber.words().splitlines() if line.startswith("{")]
    rate = median((b["received"] - a["received"]) / (b["at"] - a["at"]) for a, b in pairwise(seen))
    if not rate:
        raise RuntimeError(f"nothing came over the link\n{measured.tail()}")
    return told | {"packets": rate}


def _figure(name: str, mine: list[float], unit: str, beside: str, theirs: list[float]) -> Figure:
    return figure(name, mine, unit, beside=beside, beside_values=theirs, command=COMMAND)


async def _run(plan: Plan, directory: Path, kind: str, mode: str, seconds: float) -> Result:
    port = str(free_port())
    base = ["-m", "bench.link_end", kind]
    async with started([*base, "receive", str(directory), port], plan.test, urgent=True) as receiver:
        await asyncio.sleep(1.0 if kind == "qh3" else 0.6)  # until it listens; a dialler would try again anyway
        receiver.alive()
        arguments = [*base, "send", str(directory), port, mode, str(seconds)]
        async with started(arguments, plan.load, urgent=True) as sender:
            told = await _words(sender), await _words(receiver)
    sent, received = told
    return {
        "sent": sent["sent"],
        "received": received["received"],
        "seconds": received["seconds"],
        "cpu_send": sent["cpu"],
        "cpu_receive": received["cpu"],
        "p50_ms": received["p50_ms"],
        "p99_ms": received["p99_ms"],
    }


async def _words(child: Child, seconds: float = START_S) -> Any:
    async with asyncio.timeout(seconds):
        while child.running():
            await asyncio.sleep(0.05)
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(child.words().strip().splitlines()[-1])
    raise RuntimeError(f"one end failed\n{child.tail()}")

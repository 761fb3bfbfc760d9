"""A worker that Ray starts, behind links, beside a local one: its start, its delay, its loss, what is left to do here.

The Ray cluster runs on this machine, so that delays of a network come on top.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bench.mix_clips import clip, frames
from bench.mix_first import SIZE, first_picture
from bench.mix_world import PATIENCE_S, Feed, Mixer
from bench.plan import Plan
from bench.report import Figure, figure, percentile
from relay.mix.executor import Executor
from relay.mix.video import events
from relay.settings import MixRaySettings, MixVideoSettings
from relay.workers.executor import RayActors

COMMAND = "make bench-ray"
SETTINGS = MixVideoSettings()
KILLS, ROUNDS, LOAD_S = 5, 20, 10.0
QUICK_KILLS, QUICK_ROUNDS, QUICK_LOAD_S = 2, 5, 3.0
INPUTS = 4


@dataclass
class Seen:
    """All in ms, but `cpu`, which is the share of a core that the process beside the relay takes for one program (as it
    is: a busy machine makes fewer pictures)."""

    started: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    """From the time at which a picture was due to its last packet's leaving the plane."""
    cpu: float = 0.0
    per_packet: float = 0.0
    """µs of that process."""


async def measure(plan: Plan) -> list[Figure]:
    """Both in one run, with all cores for each."""
    import pytest

    from tests.workers.ray_cluster import cluster

    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with tempfile.TemporaryDirectory(prefix="costream-bench-") as name:
        coded = frames(await clip(Path(name), "h264", 360, 0), "h264")
    local = await _seen(plan, coded, None)
    with pytest.MonkeyPatch.context() as patch, cluster(2, patch) as address:
        far = await _seen(plan, coded, RayActors(MixRaySettings(address=address, cpus=0.5), SETTINGS.hang_ms))
    rows = (
        ("start of a worker, median", far.started, local.started),
        ("first picture of an input in a program that runs, p50", *_each(0.5, far.first, local.first)),
        ("first picture of an input in a program that runs, p95", *_each(0.95, far.first, local.first)),
        ("a picture's way from when it is due until it leaves the plane, p50", *_each(0.5, far.due, local.due)),
        ("a picture's way from when it is due until it leaves the plane, p95", *_each(0.95, far.due, local.due)),
        ("without a picture after a worker's process was killed, median", far.without, local.without),
    )
    taken = [
        figure(f"CPU of the stand-in, one program of {INPUTS} inputs, of a core", [far.cpu], "", command=COMMAND),
        figure("CPU of the stand-in, for each packet", [far.per_packet], "µs", command=COMMAND),
    ]
    return [
        figure(name, values, "ms", beside="local", beside_values=beside, command=COMMAND)
        for name, values, beside in rows
    ] + taken


def _each(share: float, *values: list[float]) -> tuple[list[float], ...]:
    return tuple([percentile(each, share)] for each in values)


async def _seen(plan: Plan, coded: list[bytes], executor: Executor | None) -> Seen:
    seen = Seen()
    async with Mixer.opened(SETTINGS, executor) as mixer:
        mixer.pool.open_stage("s", mixer.program(*SIZE))
        await mixer.until(events.WorkerStarted, 2)
        await asyncio.sleep(0.5)
        for number in range(QUICK_ROUNDS if plan.quick else ROUNDS):
            seen.first.append(await first_picture(mixer, "s", f"a{number}", coded))
            mixer.pool.remove_input("s", f"a{number}")
        mixer.sent.clear()
        seen.cpu, seen.per_packet = await _load(mixer, coded, QUICK_LOAD_S if plan.quick else LOAD_S)
        ahead = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        seen.due = [(at + ahead) / 1000 - due for due, at in mixer.sent.items()]
        mixer.pool.close_stage("s")
        for number in range(QUICK_KILLS if plan.quick else KILLS):
            await _kill(mixer, seen, f"k{number}")
    return seen


async def _load(mixer: Mixer, coded: list[bytes], seconds: float) -> tuple[float, float]:
    feeds = [Feed(mixer, "h264", coded) for _ in range(INPUTS)]
    for identity, feed in enumerate(feeds):
        mixer.pool.add_input("s", f"b{identity}", "Ann", feed.source)
    stage = mixer.pool._stages["s"]
    assert stage.worker is not None
    pid: int = stage.worker.running.pid  # type: ignore[attr-defined]
    rings = stage.worker.tap, stage.worker.inject
    begin, before, packets = time.monotonic(), _cpu(pid), sum(ring.counts().packets for ring in rings)
    number = 0
    while (now := time.monotonic()) < begin + seconds:
        for feed in feeds:
            feed.send(number)
        number += 1
        await asyncio.sleep(max(0.0, begin + number / 30 - now))
    spent = _cpu(pid) - before
    packets = sum(ring.counts().packets for ring in rings) - packets
    print(f"{packets / seconds:.0f} packets/s; degraded: {mixer.degraded}")
    return spent / seconds, spent / packets * 1e6


def _cpu(pid: int) -> float:
    """Seconds of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def _kill(mixer: Mixer, seen: Seen, stage: str) -> None:
    """A program of nothing but its background: what is measured is how soon the loss shows, and the successor."""
    mixer.sent.clear()
    mixer.pool.open_stage(stage, mixer.program(*SIZE))
    async with asyncio.timeout(PATIENCE_S):
        while len(mixer.sent) < 30 or _starting(mixer):
            await asyncio.sleep(0.01)
        where = mixer.pool.worker_of(stage)
        os.kill(int(where.replace("/", ":").rpartition(":")[2]), signal.SIGKILL)
        killed = time.monotonic()
        while mixer.pool.worker_of(stage) in ("", where):
            await asyncio.sleep(0.001)
        taken, last = time.monotonic(), max(mixer.sent.values())
        while max(mixer.sent.values()) <= last:
            await asyncio.sleep(0.001)
        while _starting(mixer):
            await asyncio.sleep(0.005)
    seen.started.append((time.monotonic() - taken) * 1000)
    times = sorted(mixer.sent.values())
    seen.without.append(max(after - before for before, after in pairwise(times)) / 1000)
    print(f"{where}: taken over after {(taken - killed) * 1000:.0f} ms")
    mixer.pool.close_stage(stage)


def _starting(mixer: Mixer) -> bool:
    return not all(worker.ready for worker in mixer.pool._crew)

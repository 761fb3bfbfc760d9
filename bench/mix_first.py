"""How long after an input's first keyframe the program shows it: to a program that runs, and to one that begins."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.mix_clips import clip, frames
from bench.mix_world import Feed, Mixer
from bench.plan import Plan
from bench.report import Figure, figure, percentile
from relay.ids import sync_id_milliseconds
from relay.mix.video import events

COMMAND = "make bench-mix"
GOAL = "<= 142"
ROUNDS, QUICK_ROUNDS = 30, 5
SIZE = (1280, 720, 30, 2_500_000)


async def measure(plan: Plan) -> list[Figure]:
    """Times from the injection of a keyframe's packets to the program's packets with it leaving the plane."""
    with tempfile.TemporaryDirectory(prefix="costream-bench-") as name:
        path = await clip(Path(name), "h264", 360, 0)
        coded = frames(path, "h264")
    rounds = QUICK_ROUNDS if plan.quick else ROUNDS
    joined, begun = [], []
    async with Mixer.opened() as mixer:
        mixer.pool.open_stage("runs", mixer.program(*SIZE))
        await mixer.until(events.WorkerStarted, 2)
        await asyncio.sleep(0.5)
        for number in range(rounds):
            joined.append(await first_picture(mixer, "runs", f"a{number}", coded))
            mixer.pool.remove_input("runs", f"a{number}")
        for number in range(rounds):
            mixer.pool.open_stage(f"s{number}", mixer.program(*SIZE))
            begun.append(await first_picture(mixer, f"s{number}", "a", coded))
            mixer.pool.close_stage(f"s{number}")
            await asyncio.sleep(0.1)
    rows = (("in a program that runs", joined), ("in a program that is opened then, by a worker that waits", begun))
    return [
        figure(
            f"first picture of an input {name}, {label}", [percentile(values, share)], "ms", goal=goal, command=COMMAND
        )
        for name, values in rows
        for label, share, goal in (("p50", 0.5, ""), ("p95", 0.95, GOAL))
    ]


async def first_picture(mixer: Mixer, stage: str, identity: str, coded: list[bytes]) -> float:
    """Milliseconds. The phase of the program's frames is at random, as publishers' is."""
    feed = Feed(mixer, "h264", coded)
    mixer.pool.add_input(stage, identity, "Ann", feed.source)
    start = time.monotonic_ns() // 1000
    number = 0
    async with mixer.patience(f"picture of {identity} in {stage}"):
        while True:
            if time.monotonic_ns() // 1000 - start >= number * 1_000_000 // 30:
                feed.send(number)
                number += 1
            shown = [event for event in mixer.told if isinstance(event, events.InputShown)]
            for event in shown:
                at = mixer.sent.get(sync_id_milliseconds(event.sync_id))
                if (event.stage, event.identity) == (stage, identity) and at is not None:
                    return (at - start) / 1000
            await asyncio.sleep(0.005)

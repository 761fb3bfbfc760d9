"""A hundred programs come and go, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from relay.mix.video import events
from tests.mix.video_world import SMALL, held, opened, until

STAGES = 100
TOGETHER = 5
SETTLED = 40
"""Programs after which caches and pools are full."""
GROWTH = 24 << 20
"""Bytes that a worker may grow by in the rest: less than one program's picture and encoder each."""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_programs_that_end_before_their_workers_are_ready_leave_only_the_spare() -> None:
    async with opened() as world:
        for index in range(3):
            program, _ = world.program()
            world.pool.open_stage(f"s{index}", program)
        assert len(world.pool.workers) == 4
        for index in range(3):
            world.pool.close_stage(f"s{index}")
        await until(lambda: len(world.event(events.WorkerStarted)) >= 2 and len(world.pool.workers) == 1)
        assert not world.event(events.WorkerLost)


@pytest.mark.timeout(900)
async def test_a_hundred_programs_leave_no_process_thread_descriptor_or_memory() -> None:
    gc.collect()
    before = held()
    await (
        a_hundred_programs()
    )  # of its own, so that nothing here keeps its plane: that has descriptors until it is gone
    await asyncio.sleep(0)
    gc.collect()
    assert held() == before


async def a_hundred_programs() -> None:
    settings = SMALL.model_copy(update={"stages_per_worker": TOGETHER, "fps": 5})
    async with opened(settings) as world:
        await until(lambda: world.event(events.WorkerStarted))
        one = world.publish("vp8")
        sizes: list[int] = []
        for number in range(0, STAGES, TOGETHER):
            viewers = []
            for index in range(number, number + TOGETHER):
                program, viewer = world.program()
                world.pool.open_stage(f"s{index}", program)
                world.pool.add_input(f"s{index}", "ann", f"Ann {index}", one.source)
                world.pool.add_input(f"s{index}", "bob", f"Bob {index}")
                viewers.append((program, viewer))
            await until(lambda viewers=viewers: all(viewer.frames for _, viewer in viewers), 300)
            pid = int(world.pool.worker_of(f"s{number}").removeprefix("local:"))
            for index in range(number, number + TOGETHER):
                world.pool.close_stage(f"s{index}")
            for program, _ in viewers:
                world.remove(program.track)
            if number >= SETTLED:
                sizes.append(resident(pid))
        assert not world.event(events.WorkerLost)
        assert not world.event(events.StageFailed)
        assert len(world.pool.workers) <= 2
        print(f"resident: {[size >> 20 for size in sizes]} MiB")
        assert sizes[-1] - sizes[0] < GROWTH

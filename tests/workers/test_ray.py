"""Programs that workers on a real Ray cluster make: the picture, and what becomes of it when one dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from relay.mix.layout import Box
from relay.mix.video import events
from relay.settings import MixRaySettings
from relay.workers.executor import RayActors
from tests.mix.video_world import FPS, HEIGHT, SMALL, WIDTH, opened, shows, until
from tests.workers.ray_cluster import cluster

LEFT, RIGHT, WHOLE = Box(0, 90, 320, 180), Box(320, 90, 320, 180), Box(0, 0, WIDTH, HEIGHT)
START_S = 60.0


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayActors]:
    with cluster(2, monkeypatch) as address:
        yield RayActors(MixRaySettings(address=address, start_timeout_s=60), SMALL.hang_ms)


async def test_an_actor_makes_the_picture_and_another_goes_on_when_it_is_killed(actors: RayActors) -> None:
    async with opened(SMALL, actors) as world:
        await until(lambda: world.event(events.WorkerStarted), START_S)
        first, second = world.publish("h264"), world.publish("vp8")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "Ann", first.source)
        world.pool.add_input("s", "bob", "Bob", second.source)
        await until(lambda: len(shows(viewer, LEFT, first.track)) > 20 and len(shows(viewer, RIGHT, second.track)) > 20)
        for box, one in ((LEFT, first), (RIGHT, second)):
            counters = shows(viewer, box, one.track)
            assert counters == sorted(counters)
            assert len(set(counters)) > 10

        await until(lambda: len(world.event(events.WorkerStarted)) >= 2, START_S)
        lost = world.pool.worker_of("s")
        os.kill(int(lost.rpartition("/")[2]), signal.SIGKILL)
        await until(lambda: world.event(events.StageMoved))
        assert [event.stages for event in world.event(events.WorkerLost)] == [("s",)]
        assert world.pool.worker_of("s") not in ("", lost)
        frames = len(viewer.frames)
        shown = len(shows(viewer, LEFT, first.track))
        await until(lambda: len(shows(viewer, LEFT, first.track)) > shown + 10)
        steps = [(b - a) & 0xFFFF for a, b in pairwise(viewer.sequences)]
        assert set(steps) == {1}
        around = viewer.frames[frames - 1 : frames + 1]
        assert around[1].keyframe
        ticks = (around[1].timestamp - around[0].timestamp) % (1 << 32)
        assert ticks % (90_000 // FPS) == 0
        gap_ms = around[1].sync_ms - around[0].sync_ms
        assert abs(ticks / 90 - gap_ms) < 2
        print(f"without a picture for {gap_ms} ms")

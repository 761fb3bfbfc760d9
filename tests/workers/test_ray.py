"""Programs that workers on a real Ray cluster make: the picture, and what becomes of it when one dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from relay.clock import now_us
from relay.errors import SettingsError
from relay.metrics import Metrics
from relay.mix.layout import Box
from relay.mix.video import events
from relay.node.programs import Pools
from relay.plane import open_plane
from relay.plane.contract import PlaneConfig
from relay.settings import MixRaySettings, MixSettings, MixVideoSettings
from relay.workers.executor import RayActors
from tests.mix.video_world import SMALL, Viewer, opened, shows, until
from tests.workers.in_process import check_numbers, check_successor
from tests.workers.ray_cluster import cluster, machine, need_ray

LEFT, RIGHT = Box(0, 90, 320, 180), Box(320, 90, 320, 180)
START_S = 90.0
NEAR_US = 5_000_000
"""By which clocks may differ that are the same but for a busy machine."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with cluster(0, monkeypatch) as address:
        yield address


def advances(viewer: Viewer, box: Box, track: int) -> bool:
    """Whether the last pictures show a publisher's counters, one after the other."""
    counters = shows(viewer, box, track, max(0, len(viewer.frames) - 20))
    return len(set(counters)) > 10 and counters == sorted(counters)


@pytest.mark.timeout(300)
async def test_an_actor_makes_the_picture_and_another_goes_on_when_it_is_killed(address: str) -> None:
    """All that dies here dies by SIGKILL: the actor, then a stand-in, with which its actor has to go."""
    actors = RayActors(MixRaySettings(address=address), SMALL.hang_ms)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(opened(SMALL, actors))
        assert world.pool.workers == ["ray:not placed yet"]  # there is no room for it in the cluster, until:
        stack.enter_context(machine(address, 2))
        await until(lambda: world.event(events.WorkerStarted), START_S)
        first, second = world.publish("h264"), world.publish("vp8")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "Ann", first.source)
        world.pool.add_input("s", "bob", "Bob", second.source)
        for box, one in ((LEFT, first), (RIGHT, second)):
            await until(partial(advances, viewer, box, one.track), START_S)
        # The actors' monotonic clock may be another one than ours (`another_clock`); what is said here is in ours.
        assert abs(viewer.frames[-1].sync_ms - time.time() * 1000) < NEAR_US / 1000
        ours = now_us() - time.time_ns() // 1000
        assert all(abs(event.lag - ours) < NEAR_US for event in world.event(events.InputLagged))

        await until(lambda: len(world.event(events.WorkerStarted)) >= 2, START_S)
        assert world.event(events.WorkerLost) == []
        lost = world.pool.worker_of("s")
        os.kill(int(lost.rpartition("/")[2]), signal.SIGKILL)
        await until(lambda: world.event(events.StageMoved), START_S)
        assert [event.stages for event in world.event(events.WorkerLost)] == [("s",)]
        assert world.pool.worker_of("s") not in ("", lost)
        frames = len(viewer.frames)
        await until(lambda: len(viewer.frames) > frames and len(shows(viewer, LEFT, first.track, frames)) > 5, START_S)
        print(f"without a picture for {check_successor(viewer, frames)} ms")

        await until(lambda: len(world.event(events.WorkerStarted)) >= 3, START_S)
        (gone,) = [one for one in world.pool._crew if one.running.where == world.pool.worker_of("s")]
        os.kill(gone.running.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        await until(lambda: len(world.event(events.StageMoved)) == 2, START_S)
        actor = Path("/proc") / gone.running.where.rpartition("/")[2]
        await until(lambda: not actor.exists(), START_S)
        frames = len(viewer.frames)
        await until(lambda: len(viewer.frames) > frames and len(shows(viewer, LEFT, first.track, frames)) > 5, START_S)
        check_numbers(viewer.sequences)
        await world.pool.stop()  # before the machine goes


async def test_without_a_cluster_workers_fail_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    need_ray()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    async with opened(SMALL, RayActors(MixRaySettings(address="127.0.0.1:9"), SMALL.hang_ms)) as world:
        await until(lambda: world.event(events.WorkerLost), START_S)
        assert world.event(events.WorkerLost)[0].reason.startswith("no Ray cluster at 127.0.0.1:9")


def test_without_ray_a_node_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.workers.executor.find_spec", lambda name: None)
    plane = open_plane("reference", PlaneConfig(), "127.0.0.1", 0)
    with pytest.raises(SettingsError, match=r"pip install costream\[ray\]"):
        Pools(MixSettings(executor="ray"), plane, lambda: 1, lambda track: [], Metrics())
    plane.close()


def test_a_worker_on_another_machine_is_given_time_to_show_that_it_lives() -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        MixSettings(executor="ray", video=MixVideoSettings(hang_ms=500))
    MixSettings(executor="local", video=MixVideoSettings(hang_ms=500))


def test_the_address_for_workers_is_one() -> None:
    assert MixRaySettings(host="192.0.2.1").host == "192.0.2.1"
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        MixRaySettings(host="relay.example")

"""The native plane's threads go before the rest where they may, and nobody is kept from his CPU for good."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.plane import open_plane
from relay.plane.contract import PlaneConfig
from relay.plane.topology import Limits, read_limits
from relay.plane.urgency import FIFO_PRIORITY, NICE, Priority, fitting, plane_threads
from tests.mix.test_urgency import SETUID, SYS_NICE, may

pytest.importorskip("relay.plane.native", reason="the native plane is not built: see rust/README.md")


def scheduled(priority: Priority) -> set[tuple[int, int, int]]:
    """Policy, real-time priority and niceness of each thread of a plane that runs, and of this one, in a set."""

    async def story() -> set[tuple[int, int, int]]:
        plane = open_plane("native", PlaneConfig(), "127.0.0.1", 0, shards=2, priority=priority)
        plane.start()
        try:
            plane.stats()  # who answers has its name
            assert len(plane_threads()) == 2
            assert _scheduling(0) == _scheduling(os.getpid()) == usual
            return {_scheduling(thread) for thread in plane_threads()}
        finally:
            plane.close()

    usual = _scheduling(0)
    return asyncio.run(story())


def _scheduling(thread: int) -> tuple[int, int, int]:
    policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    return policy, os.sched_getparam(thread).sched_priority, os.getpriority(os.PRIO_PROCESS, thread)


def first() -> bool:
    return {each[:2] for each in scheduled("fifo")} == {(os.SCHED_FIFO, FIFO_PRIORITY)}


def nice() -> bool:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return scheduled("nice") == {(os.SCHED_OTHER, 0, NICE)}


def none() -> bool:
    return scheduled("none") == {_scheduling(0)}


def nobody() -> bool:
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(limit, (0, 0))
    os.setresuid(65_534, 65_534, 65_534)
    return scheduled("auto") == {_scheduling(0)}


@pytest.mark.skipif(not (may(SETUID) and may(SYS_NICE)), reason="needs the right to be urgent, and to lose it")
@pytest.mark.parametrize("holds", [first, nice, none, nobody])
def test_threads_get_what_they_may_have_and_nobody_else_does(holds: Callable[[], bool]) -> None:
    code = f"from tests.plane.test_urgency import {holds.__name__} as holds; raise SystemExit(not holds())"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True)


@pytest.mark.parametrize(
    ("cpus", "quota", "threads", "wish", "fits"),
    [
        (2, None, 1, "auto", "auto"),
        (1, None, 1, "auto", "nice"),
        (4, None, 4, "auto", "nice"),
        (8, 1.5, 1, "auto", "nice"),
        (8, 2.0, 1, "auto", "auto"),
        (1, None, 1, "fifo", "fifo"),
        (1, None, 1, "none", "none"),
    ],
)
def test_a_cpu_is_left_to_python(cpus: int, quota: float | None, threads: int, wish: Priority, fits: str) -> None:
    every = frozenset(range(cpus))
    assert fitting(wish, threads, Limits(every, every, quota)) == fits


def killed_when_it_works_on() -> bool:
    resource.setrlimit(resource.RLIMIT_RTTIME, (500_000, resource.RLIM_INFINITY))
    wishes: tuple[Priority, ...] = ("auto", "fifo", "nice")
    return [fitting(wish, 0, read_limits()) for wish in wishes] == ["nice", "none", "nice"]


def test_a_limit_of_real_time_ends_no_relay() -> None:
    code = "from tests.plane.test_urgency import killed_when_it_works_on as holds; raise SystemExit(not holds())"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True)

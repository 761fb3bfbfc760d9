"""Who goes first when the processor is short: the mixers' threads, then the relay, then pictures. The kernel knows."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from relay.mix.audio.urgency import FIFO_PRIORITY, NICE, SPIN_US, make_urgent
from relay.mix.video.process import NICE as PICTURES
from tests.mix.video_world import opened, until

NOBODY = 65_534
SETUID, SYS_NICE = 7, 23
"""Capabilities (capabilities(7))."""


def may(capability: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    return bool(int(next(line.split()[1] for line in lines if line.startswith("CapEff")), 16) >> capability & 1)


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def real_time() -> bool:
    got, policy = make_urgent("auto"), os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    bounded = 0 < resource.getrlimit(resource.RLIMIT_RTTIME)[0] <= SPIN_US
    return (got, policy, os.sched_getparam(0).sched_priority, bounded) == ("fifo", os.SCHED_FIFO, FIFO_PRIORITY, True)


def nice() -> bool:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return (make_urgent("nice"), niceness(), os.sched_getscheduler(0)) == ("nice", NICE, os.SCHED_OTHER)


def nobody() -> bool:
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(limit, (0, 0))
    os.setresuid(NOBODY, NOBODY, NOBODY)
    before = niceness(), os.sched_getscheduler(0)
    return make_urgent("auto") == "none" and (niceness(), os.sched_getscheduler(0)) == before


@pytest.mark.skipif(not (may(SETUID) and may(SYS_NICE)), reason="needs the right to be urgent, and to lose it")
@pytest.mark.parametrize("holds", [real_time, nice, nobody])
def test_a_thread_gets_what_it_may_have_and_that_is_never_an_error(holds: Callable[[], bool]) -> None:
    """In a process of its own, which such threads could bring down."""
    code = f"from tests.mix.test_urgency import {holds.__name__} as holds; raise SystemExit(not holds())"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True)


async def test_pictures_stand_back_behind_the_relay() -> None:
    async with opened() as world:
        await until(lambda: world.pool.workers)
        pid = int(world.pool.workers[0].removeprefix("local:"))
        await until(lambda: psutil.Process(pid).nice() == niceness() + PICTURES)
    assert NICE < 0 < PICTURES

"""Threads follow the CPUs of a made-up machine while those come, go and are limited."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from relay.errors import Overloaded
from relay.plane.pins import Pins
from tests.plane.test_topology import machine, write


@pytest.fixture
def four_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: frozenset(range(4)))
    return machine(tmp_path, cores=4)


def test_a_cpu_goes_offline_and_comes_back(four_cores: Path) -> None:
    pinned: list[tuple[int, list[int]]] = []
    pins = Pins(2, lambda shard, cpus: pinned.append((shard, cpus)), four_cores)
    assert pins.cpus == (0, 1)
    pins.look()
    assert pinned == []  # nothing has changed

    write(four_cores / "sys/devices/system/cpu/online", "0,2-3")
    pins.look()
    assert pinned == [(0, [0]), (1, [2])]

    write(four_cores / "sys/devices/system/cpu/online", "0-3")
    pins.look()
    assert pinned[2:] == [(0, [0]), (1, [1])]


def test_a_quota_puts_the_shards_together(four_cores: Path) -> None:
    write(four_cores / "proc/self/cgroup", "0::/box")
    write(four_cores / "sys/fs/cgroup/box/cpu.max", "max 100000")
    pinned: list[tuple[int, list[int]]] = []
    pins = Pins(3, lambda shard, cpus: pinned.append((shard, cpus)), four_cores)
    assert pins.cpus == (0, 1, 2)
    write(four_cores / "sys/fs/cgroup/box/cpu.max", "150000 100000")
    pins.look()
    assert pinned == [(0, [0]), (1, [1]), (2, [0])]


async def test_a_look_that_fails_is_not_the_last(four_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.plane.pins.LOOK_S", 0.001)
    pinned: list[int] = []

    def pin(shard: int, cpus: list[int]) -> None:
        pinned.append(shard)
        if len(pinned) == 2:
            raise Overloaded("too much to do")

    loop = asyncio.get_running_loop()
    failed: list[object] = []
    loop.set_exception_handler(lambda loop, told: failed.append(told["exception"]))
    pins = Pins(1, pin, four_cores)
    pins.start(loop)
    async with asyncio.timeout(20):
        for online in ("0,2-3", "2-3", "0-3"):
            looked = len(pinned)
            write(four_cores / "sys/devices/system/cpu/online", online)
            while len(pinned) == looked:
                await asyncio.sleep(0.001)
    pins.stop()
    assert len(pinned) == 4
    assert len(failed) == 1

"""CPUs for threads: made-up machines as /sys and /proc show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.plane.topology import Limits, default_shards, parse_list, plan, read_cpus, read_limits, read_quota


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def machine(root: Path, cores: int, threads: int = 1, sockets: int = 1, online: str = "") -> Path:
    """Logical CPUs as Linux numbers them: the first threads of all cores, then the second ones."""
    cpus = root / "sys/devices/system/cpu"
    total = cores * sockets
    write(cpus / "online", online or f"0-{total * threads - 1}")
    for number in range(total * threads):
        core = number % total
        socket = core // cores
        of_socket = [n for n in range(total * threads) if n % total // cores == socket]
        home = cpus / f"cpu{number}"
        write(home / "topology/physical_package_id", str(socket))
        write(home / "topology/thread_siblings_list", ",".join(str(core + total * n) for n in range(threads)))
        write(home / "cache/index0/level", "1")
        write(home / "cache/index0/shared_cpu_list", str(core))
        write(home / "cache/index3/level", "3")
        write(home / "cache/index3/shared_cpu_list", ",".join(map(str, of_socket)))
    return root


def limits(online: str, quota: float | None = None, allowed: str = "0-63") -> Limits:
    return Limits(parse_list(online), parse_list(allowed), quota)


def test_physical_cores_come_before_second_threads(tmp_path: Path) -> None:
    cpus = read_cpus(machine(tmp_path, cores=2, threads=2))
    assert plan(cpus, limits("0-3"), 2) == (0, 1)
    assert plan(cpus, limits("0-3"), 4) == (0, 1, 2, 3)
    assert plan(cpus, limits("0-3"), 6) == (0, 1, 2, 3, 0, 1)
    assert default_shards(cpus, limits("0-3")) == 1


def test_cores_with_a_common_cache_come_first(tmp_path: Path) -> None:
    cpus = read_cpus(machine(tmp_path, cores=4, sockets=2))
    assert plan(cpus, limits("0-7"), 4) == (0, 1, 2, 3)
    assert plan(cpus, limits("0,4-7"), 3) == (4, 5, 6)
    assert plan(cpus, limits("0-7"), 6) == (0, 1, 2, 3, 4, 5)
    assert default_shards(cpus, limits("0-7")) == 7


def test_cpus_that_are_off_or_forbidden_are_not_used(tmp_path: Path) -> None:
    cpus = read_cpus(machine(tmp_path, cores=4, threads=2, online="0-2,4-7"))
    assert 3 not in {cpu.number for cpu in cpus}
    assert plan(cpus, limits("0-2,4-7"), 4) == (0, 1, 2, 7)
    assert plan(cpus, limits("0-2,4-7", allowed="1,5"), 2) == (1, 5)
    assert default_shards(cpus, limits("0-2,4-7", allowed="1,5")) == 1
    assert plan(cpus, limits("0-7", allowed="60"), 2) == ()


def test_no_more_cpus_than_the_quota_can_pay_for(tmp_path: Path) -> None:
    cpus = read_cpus(machine(tmp_path, cores=8))
    assert plan(cpus, limits("0-7", quota=1.5), 3) == (0, 1, 0)
    assert plan(cpus, limits("0-7", quota=0.2), 2) == (0, 0)
    assert default_shards(cpus, limits("0-7", quota=1.5)) == 1
    assert default_shards(cpus, limits("0-7", quota=4.0)) == 3


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "400000 100000", "sys/fs/cgroup/cpu.max": "2 1"}, 2),
        ({"proc/self/cgroup": "0::/../host/path", "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/d",
                "sys/fs/cgroup/cpu/d/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/d/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_the_quota_is_the_least_of_all_groups(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert read_quota(tmp_path) == quota


def test_lists_of_cpus() -> None:
    assert parse_list("0-2,5,8-9\n") == {0, 1, 2, 5, 8, 9}
    assert parse_list("") == parse_list("x,-3,2-y") == frozenset()


def test_this_machine_has_a_plan() -> None:
    now = read_limits()
    assert now.allowed == os.sched_getaffinity(0)
    assert set(plan(read_cpus(), now, 2)) <= now.usable

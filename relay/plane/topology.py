"""Which CPUs the packet plane's threads should stay on: read from a machine's files, planned without any.

A thread each on physical cores comes before two threads on one core, and cores that share their last-level cache come
before others: shards hand packets to each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cpu:
    """One logical CPU. CPUs with equal `core` are threads of one core; `cache` names the last-level cache."""

    number: int
    core: tuple[int, int]
    cache: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What may change while we run: CPUs that are on, those we may use, and how many at a time (None: any)."""

    online: frozenset[int]
    allowed: frozenset[int]
    quota: float | None = None

    @property
    def usable(self) -> frozenset[int]:
        """The CPUs that a thread of ours can run on."""
        return self.online & self.allowed


def usable_cores(cpus: Iterable[Cpu], limits: Limits) -> int:
    """Physical cores that can be kept busy: no more than the quota pays for, at least one."""
    cores = len({cpu.core for cpu in cpus if cpu.number in limits.usable})
    return max(1, cores if limits.quota is None else min(cores, math.floor(limits.quota)))


def default_shards(cpus: Iterable[Cpu], limits: Limits) -> int:
    """One per usable core, but one core is Python's."""
    return max(1, usable_cores(cpus, limits) - 1)


def plan(cpus: Iterable[Cpu], limits: Limits, shards: int) -> tuple[int, ...]:
    """The CPU of each shard, in order; empty when nothing is known of the CPUs.

    No more CPUs than the quota lets run at a time (1.5 lets two); where there are fewer than shards, shards share.
    """
    groups: dict[int, dict[tuple[int, int], list[int]]] = {}
    for cpu in sorted(cpus, key=lambda cpu: cpu.number):
        if cpu.number in limits.usable:
            groups.setdefault(cpu.cache, {}).setdefault(cpu.core, []).append(cpu.number)
    # The smallest group that has a core for each shard, else the largest first.
    ordered = sorted(groups.values(), key=lambda cores: (len(cores) < shards, abs(len(cores) - shards)))
    threads = max((len(of_core) for cores in ordered for of_core in cores.values()), default=0)
    best = [
        of_core[thread]
        for thread in range(threads)
        for cores in ordered
        for of_core in cores.values()
        if thread < len(of_core)
    ]
    if limits.quota is not None:
        best = best[: max(1, math.ceil(limits.quota))]
    return tuple(best[shard % len(best)] for shard in range(shards)) if best else ()


# --- the machine's files --------------------------------------------------------------------------------------------


def read_cpus(root: Path = Path("/")) -> tuple[Cpu, ...]:
    """All CPUs that are on, as /sys/devices/system/cpu describes them; none where there is no such directory."""
    return tuple(_cpu(root, number) for number in sorted(_online(root)))


def read_limits(root: Path = Path("/"), pid: int = 0) -> Limits:
    """What limits this process now: a few small files."""
    online, allowed = _online(root), frozenset(os.sched_getaffinity(pid))
    return Limits(online or allowed, allowed, read_quota(root))


def read_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the control groups of this process grant at a time, the least of all levels; None without a limit."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += _quotas(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                found += _quotas(root / "sys/fs/cgroup" / name, path, _quota_v1)
    return min(found, default=None)


def parse_list(text: str) -> frozenset[int]:
    """CPU numbers of a list such as `0-3,8`. What is no number is left out."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last.isdecimal() or not last):
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _cpu(root: Path, number: int) -> Cpu:
    home = root / f"sys/devices/system/cpu/cpu{number}"
    siblings = parse_list(_text(home / "topology/thread_siblings_list")) | {number}
    package = _text(home / "topology/physical_package_id").strip()
    best, cache = 0, min(siblings)
    for index in sorted(home.glob("cache/index*")):
        level = _text(index / "level").strip()
        if level.isdecimal() and int(level) > best:
            best, cache = int(level), min(parse_list(_text(index / "shared_cpu_list")) | {number})
    if not best and package.lstrip("-").isdecimal():
        cache = -1 - max(0, int(package))  # nothing is known of caches: a socket has one
    return Cpu(number, (int(package) if package.lstrip("-").isdecimal() else 0, min(siblings)), cache)


def _online(root: Path) -> frozenset[int]:
    return parse_list(_text(root / "sys/devices/system/cpu/online"))


def _quotas(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """The quotas of a group and of those above it. In a container the path may be the host's: only the top is there."""
    found = []
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts), -1, -1):
        quota = read(mount.joinpath(*parts[:depth]))
        if quota is not None:
            found.append(quota)
    return found


def _quota_v2(group: Path) -> float | None:
    return _ratio(*[*_text(group / "cpu.max").split(), "", ""][:2])


def _quota_v1(group: Path) -> float | None:
    return _ratio(_text(group / "cpu.cfs_quota_us").strip(), _text(group / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None  # "max", -1, or no such file


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""

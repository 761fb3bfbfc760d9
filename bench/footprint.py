"""What a process and all its descendants hold of the machine, as the kernel counts it."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory is in MiB. `shared` are mappings of shared memory (memfd, /dev/shm), `shared_size` is what is mapped, each
    object counted once and whole: its pages come one by one as they are used, and are in everybody's resident memory.

    `resident` is the first process's memory, `own` what of it nobody else has: neither shared memory nor files
    (`Anonymous` in proc(5)'s smaps_rollup). `all_resident` and `all_own` are those of all processes.
    """

    processes: int
    threads: int
    descriptors: int
    shared: int
    shared_size: float
    resident: float
    own: float
    all_resident: float
    all_own: float

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """All that is counted rather than measured."""
        return self.processes, self.threads, self.descriptors, self.shared


@dataclass(frozen=True, slots=True)
class _Held:
    """`objects` are the sizes of shared memory by inode."""

    threads: int
    descriptors: int
    mappings: int
    objects: dict[str, int]
    resident: float
    own: float


def footprint(pid: int) -> Footprint:
    """Raises psutil.NoSuchProcess when the first process is gone. A descendant that ends meanwhile counts as gone."""
    first = psutil.Process(pid)
    children = first.children(recursive=True)
    held = [one for each in (first, *children) if (one := _of(each)) is not None]
    if not held:
        raise psutil.NoSuchProcess(pid)
    objects: dict[str, int] = {}
    for one in held:
        for inode, size in one.objects.items():
            objects[inode] = max(size, objects.get(inode, 0))
    return Footprint(
        len(held),
        sum(one.threads for one in held),
        sum(one.descriptors for one in held),
        sum(one.mappings for one in held),
        sum(objects.values()) / MIB,
        held[0].resident,
        held[0].own,
        sum(one.resident for one in held),
        sum(one.own for one in held),
    )


def growth(at: Sequence[float], values: Sequence[float]) -> float:
    """Return the middle one of the slopes from each reading to the next: what grows all the time shows whole, and what
    grew once, as a pool that fills does, not at all. Raises ValueError for less than two readings."""
    if len(at) < 2:
        raise ValueError("a slope needs two readings")
    steps = zip(itertools.pairwise(values), itertools.pairwise(at), strict=True)
    return statistics.median((value - former) / (here - there) for (former, value), (there, here) in steps)


def _of(process: psutil.Process) -> _Held | None:
    here = Path(f"/proc/{process.pid}")
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        objects: dict[str, int] = {}
        mappings = 0
        for line in (here / "maps").read_text().splitlines():
            if "/memfd:" in line or "/dev/shm/" in line:
                addresses, _, offset, _, inode, *_ = line.split()
                begin, _, end = addresses.partition("-")
                size = int(offset, 16) + int(end, 16) - int(begin, 16)
                objects[inode] = max(size, objects.get(inode, 0))
                mappings += 1
        pages = dict(line.split()[:2] for line in (here / "smaps_rollup").read_text().splitlines()[1:])
        resident, own = (int(pages[name]) * 1024 / MIB for name in ("Rss:", "Anonymous:"))
        return _Held(process.num_threads(), len(os.listdir(here / "fd")), mappings, objects, resident, own)
    return None

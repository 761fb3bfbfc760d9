"""What a process and all its descendants hold of the machine, as the kernel counts it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Footprint:
    """`shared` are mappings of shared memory (memfd, /dev/shm), `resident` is the first process's memory in MiB,
    `all_resident` that of all."""

    processes: int
    threads: int
    descriptors: int
    shared: int
    resident: float
    all_resident: float

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """All that is counted rather than measured."""
        return self.processes, self.threads, self.descriptors, self.shared


def footprint(pid: int) -> Footprint:
    """Raises psutil.NoSuchProcess when the first process is gone. A descendant that ends meanwhile counts as gone."""
    first = psutil.Process(pid)
    resident = first.memory_info().rss / MIB
    held = [one for each in [first, *first.children(recursive=True)] if (one := _of(each)) is not None]
    threads, descriptors, shared, memory = map(sum, zip(*held, strict=True))
    return Footprint(len(held), threads, descriptors, shared, resident, memory)


def _of(process: psutil.Process) -> tuple[int, int, int, float] | None:
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        shared = sum("/memfd:" in line or "/dev/shm/" in line for line in maps.splitlines())
        return process.num_threads(), process.num_fds(), shared, process.memory_info().rss / MIB
    return None

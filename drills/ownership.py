"""Whose things these are: names and marks that tell the owner, so that what a dead one left can be found and removed.

Namespaces and directories are called `csd-<pid namespace>-<pid>-<start time>-…`, and processes carry the same tag in
their environment. A tag whose owner lives, or that is of another pid namespace (a container beside us), is never
touched; neither is anything without a tag.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "COSTREAM_DRILL_OWNER"
_TAG = re.compile(r"csd-(\d+)-(\d+)-(\d+)(?=-|$)")
_DEAD_STATES = "ZX"
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process for all time: its pid may come again, but not with the same start time (ticks since boot)."""

    pid_namespace: int
    pid: int
    started: int

    @property
    def tag(self) -> str:
        return f"csd-{self.pid_namespace}-{self.pid}-{self.started}"

    @property
    def is_here(self) -> bool:
        """Whether it lives in our pid namespace: only then can we tell whether it lives."""
        return self.pid_namespace == _pid_namespace()

    def is_alive(self) -> bool:
        found = _status(self.pid)
        return found is not None and found[1] == self.started and found[0] not in _DEAD_STATES

    def is_dead(self) -> bool:
        """Whether it is known to be gone, so that its things may be removed."""
        return self.is_here and not self.is_alive()


def this_process() -> Owner:
    """The owner that we are."""
    found = _status(os.getpid())
    assert found is not None
    return Owner(_pid_namespace(), os.getpid(), found[1])


def owner_of(name: str) -> Owner | None:
    """The owner that a name or a mark tells; None for things that are not ours."""
    match = _TAG.match(name)
    return Owner(*map(int, match.groups())) if match else None


def own_directory(owner: Owner) -> Path:
    """A new directory (mode 0700, a short path: sockets are kept in it) that `sweep_directories` knows the owner of."""
    return Path(tempfile.mkdtemp(prefix=f"{owner.tag}-"))


def end_processes(tag: str) -> int:
    """Kill every process whose mark is a tag, or begins with it, and return how many there were. Never ourselves."""
    ended = 0
    for _ in range(10):  # a process may start another one while we look
        found = [pid for pid, mark in _marked() if f"{mark}-".startswith(f"{tag}-") and pid != os.getpid()]
        if not found:
            return ended
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended += len(found)
        _await_ends(found)
    return ended


def end_orphans() -> list[str]:
    """End the processes of dead owners; returns their tags."""
    tags = {mark for _, mark in _marked()}
    dead = {owner for tag in tags if (owner := owner_of(tag)) and owner.is_dead()}
    for owner in dead:
        end_processes(owner.tag)
    return sorted(owner.tag for owner in dead)


def sweep_directories() -> list[str]:
    """Remove the directories of dead owners; returns their names."""
    removed = []
    for path in Path(tempfile.gettempdir()).glob("csd-*"):
        owner = owner_of(path.name)
        if owner is not None and owner.is_dead():
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def _marked() -> Iterator[tuple[int, str]]:
    """(pid, mark) of every live process that has a mark and lets us see it."""
    wanted = f"{MARK}=".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or it is somebody else's
        for variable in environment.split(b"\0"):
            if variable.startswith(wanted):
                yield int(entry.name), variable.removeprefix(wanted).decode(errors="replace")


def _await_ends(pids: list[int], seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all((found := _status(pid)) is None or found[0] in _DEAD_STATES for pid in pids):
            return
        time.sleep(0.005)


def _status(pid: int) -> tuple[str, int] | None:
    """State and start time of a process (proc(5): fields 3 and 22 of stat), None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


@functools.cache
def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino

"""Faults of a node's own machine: no CPU, no buffers, no disk, no sense of time. Nobody but its members is hit."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import psutil  # type: ignore[import-untyped]
from pydantic import Field

from drills.cluster import Member
from drills.fabric import FabricError
from drills.faults import duty
from drills.faults.base import Cast, Fault, Preparation, Stage
from drills.scenario.units import Jump, Share, Time

Nodes = Annotated[list[str], Field(min_length=1, max_length=40)]
_CLOCK = "clock-of-{}"
_FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


class _OnNodes(Fault):
    members: Nodes = Field(description="Relays or signaling services.")

    def check(self, cast: Cast) -> None:
        for name in self.members:
            cast.member(name, "relay", "signaling")

    def targets(self) -> list[str]:
        return list(self.members)

    def running(self, stage: Stage) -> Iterator[tuple[Member, int]]:
        """Those that run, with their pids."""
        for name in self.members:
            member = stage.cluster[name]
            if member.process is not None and member.process.is_running:
                yield member, member.process.pid


class CpuStorm(_OnNodes):
    """CPU taken from a node, as a storm of interrupts takes it: stopped for a share of each short period."""

    fault: Literal["cpu-storm"] = Field(description="Its name.")
    share: Share = Field(default=0.6, description="How much of the time the node does not run.")
    period: Time = Field(default=0.02, description="How often that repeats.")
    workers: bool = Field(
        default=False,
        description="Whether the processes that work for it, for programs and links, do not run then either.",
    )

    def apply(self, stage: Stage) -> None:
        pids = [str(pid) for pid in self._pids(stage)]
        words = [sys.executable, "-m", "drills.faults.duty", str(self.share), str(self.period), *pids]
        stage.helpers[id(self)] = [stage.cluster.run_here(words, name=f"cpu-storm-{self.at:g}")]

    def take_back(self, stage: Stage) -> None:
        for helper in stage.helpers.pop(id(self), []):
            helper.kill()
        duty.send(self._pids(stage), signal.SIGCONT)

    def _pids(self, stage: Stage) -> list[int]:
        nodes = [pid for _, pid in self.running(stage)]
        return nodes + [child.pid for pid in nodes if self.workers for child in _children(pid)]


class MemoryPressure(_OnNodes):
    """A small pool of packet buffers, and a room of its own that fills it until none is free.

    What is watched is kept for repeats, so its hosts need a viewer.
    """

    fault: Literal["memory-pressure"] = Field(description="Its name.")
    packets: int = Field(
        3072, ge=256, le=1_000_000, description="What the node's pool has room for, from its start on."
    )
    hosts: int = Field(default=2, ge=1, le=16, description="Hosts with pictures who come.")
    room: str = Field(default="pressure", pattern=r"^[a-z][a-z0-9-]{0,30}$", description="Their room.")

    def check(self, cast: Cast) -> None:
        for name in self.members:
            cast.member(name, "relay")

    def prepare(self, into: Preparation) -> None:
        for name in self.members:
            into.settings.setdefault(name, {})["media.slab_packets"] = self.packets

    def apply(self, stage: Stage) -> None:
        cluster, started = stage.cluster, stage.helpers.setdefault(id(self), [])
        for name in self.members:
            room = f"{self.room}-{name}"
            cluster.make_room(room, max_seats=self.hosts, traffic="drill")
            host = cluster.add_client(f"filling-{name}")
            for number in range(self.hosts):
                identity = f"{room}-{number}"
                started.append(
                    cluster.publish(
                        room, identity, host=host, via=(name,), publisher=900 + number, width=320, height=180, fps=20
                    )
                )
            started.append(
                cluster.watch(
                    room,
                    f"{room}-watched",
                    host=host,
                    via=(name,),
                    videos=self.hosts,
                    audios=self.hosts,
                    listen=False,
                )
            )

    def take_back(self, stage: Stage) -> None:
        for helper in stage.helpers.pop(id(self), []):
            helper.stop()


class DiskFull(_OnNodes):
    """No file of the node can grow any more (RLIMIT_FSIZE): logs, state and recordings fail as on a full disk."""

    fault: Literal["disk-full"] = Field(description="Its name.")

    def apply(self, stage: Stage) -> None:
        before = stage.memory[id(self)] = {}
        for _, pid in self.running(stage):
            for each in (pid, *(child.pid for child in _children(pid))):
                with contextlib.suppress(ProcessLookupError):
                    soft, hard = resource.prlimit(each, resource.RLIMIT_FSIZE)
                    resource.prlimit(each, resource.RLIMIT_FSIZE, (0, hard))
                    before[each] = (soft, hard)

    def take_back(self, stage: Stage) -> None:
        for pid, limits in stage.memory.pop(id(self), {}).items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


class ClockJump(_OnNodes):
    """The wall clock of a node jumps; its monotonic clock goes on. Other nodes keep their time."""

    fault: Literal["clock-jump"] = Field(description="Its name.")
    by: Jump = Field(description="How far: `1h` is written 3600s; negative is back.")

    def prepare(self, into: Preparation) -> None:
        library = faketime()
        if library is None:
            into.missing.append("clock-jump needs libfaketime (Debian package libfaketime)")
            return
        for name in self.members:
            into.files[_CLOCK.format(name)] = "+0\n"
            into.env.setdefault(name, {}).update(
                LD_PRELOAD=str(library),
                FAKETIME_TIMESTAMP_FILE=f"{{directory}}/{_CLOCK.format(name)}",
                FAKETIME_CACHE_DURATION="1",
                FAKETIME_DONT_FAKE_MONOTONIC="1",
                FAKETIME_DONT_RESET="1",
            )

    def apply(self, stage: Stage) -> None:
        self._set(stage, f"{self.by:+g}")

    def take_back(self, stage: Stage) -> None:
        self._set(stage, "+0")

    def _set(self, stage: Stage, offset: str) -> None:
        for name in self.members:
            path = stage.cluster.directory / _CLOCK.format(name)
            if not path.exists():
                raise FabricError(f"{name} was not started with a clock that can be set")
            path.write_text(f"{offset}\n")


def faketime() -> Path | None:
    """Where libfaketime is; None where it is not installed."""
    return next((path for pattern in _FAKETIME for path in sorted(Path("/").glob(pattern.lstrip("/")))), None)


def _children(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found

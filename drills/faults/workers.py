"""Faults of the processes that work for a relay, its own children: those that mix its programs, one kind for sound and
one for pictures, and the one that has its links."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import psutil  # type: ignore[import-untyped]
from pydantic import Field

from drills.fabric import FabricError
from drills.faults.base import Cast, Fault, Preparation, Stage

Relays = Annotated[list[str], Field(min_length=1, max_length=26)]


class _KillWorker(Fault):
    """SIGKILL for the process that works, which is the oldest: those that wait come after it, and take its place in the
    order in which they were started. The relay starts a new one by itself, so nothing is to be taken back."""

    module: ClassVar[str]
    """What its command line names."""
    without: ClassVar[str] = "it mixes no program"
    """What a relay without such a process is like."""
    members: Relays = Field(description="Relays whose process is killed.")

    def check(self, cast: Cast) -> None:
        for name in self.members:
            cast.member(name, "relay")

    def targets(self) -> list[str]:
        return list(self.members)

    def apply(self, stage: Stage) -> None:
        for name in self.members:
            found = workers(stage, name, self.module)
            if not found:
                raise FabricError(f"{name} has no process of {self.module}: {self.without}")
            found[0].kill()
            stage.note(self.fault, f"{name}: process {found[0].pid} killed, {len(found) - 1} left")

    def take_back(self, stage: Stage) -> None:
        pass


class KillMixer(_KillWorker):
    """SIGKILL for a relay's audio process, which makes the sound of all its programs. Another one is in reserve."""

    module: ClassVar[str] = "relay.mix.audio"
    fault: Literal["kill-mixer"] = Field(description="Its name.")


class KillCompositor(_KillWorker):
    """SIGKILL for the process that makes a program's picture. Another one waits."""

    module: ClassVar[str] = "relay.mix.video"
    fault: Literal["kill-compositor"] = Field(description="Its name.")


class KillLinks(_KillWorker):
    """SIGKILL for the process that has a relay's links; these relays are started with `link.process = true` for it."""

    module: ClassVar[str] = "relay.links"
    without: ClassVar[str] = "its links are in its own process"
    fault: Literal["kill-links"] = Field(description="Its name.")

    def prepare(self, into: Preparation) -> None:
        for name in self.members:
            into.settings.setdefault(name, {})["link.process"] = True


def workers(stage: Stage, name: str, module: str) -> list[psutil.Process]:
    """A relay's own children that run a module, the oldest first. psutil signals no pid that has become another's."""
    member = stage.cluster[name]
    if member.process is None or not member.process.is_running:
        return []
    found: list[tuple[float, int, psutil.Process]] = []
    for child in psutil.Process(member.process.pid).children():
        try:
            if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append((child.create_time(), child.pid, child))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return [child for _, _, child in sorted(found, key=lambda each: each[:2])]

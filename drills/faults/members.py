"""Faults of processes: killed, hung, drained, or all replaced one after the other."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field

from drills.faults.base import Cast, Fault, Stage
from drills.scenario.units import Time

Members = Annotated[list[str], Field(min_length=1, max_length=40)]


class _OnMembers(Fault):
    members: Members = Field(description="Members of the cluster: `relay-a`, `signaling-1`, `store`.")

    def check(self, cast: Cast) -> None:
        for name in self.members:
            cast.member(name)

    def targets(self) -> list[str]:
        return list(self.members)

    def start_again(self, stage: Stage) -> None:
        """Whatever state they are in."""
        for name in self.members:
            member = stage.cluster[name]
            if member.state == "paused":
                member.resume()
            member.start()


class Kill(_OnMembers):
    """SIGKILL: gone, and nobody told. Started again when it is taken back."""

    fault: Literal["kill"] = Field(description="Its name.")

    def apply(self, stage: Stage) -> None:
        for name in self.members:
            stage.cluster[name].kill()

    def take_back(self, stage: Stage) -> None:
        self.start_again(stage)


class Pause(_OnMembers):
    """SIGSTOP: it is there and says nothing, as a machine that hangs."""

    fault: Literal["pause"] = Field(description="Its name.")

    def apply(self, stage: Stage) -> None:
        for name in self.members:
            stage.cluster[name].pause()

    def take_back(self, stage: Stage) -> None:
        self.start_again(stage)


class Drain(_OnMembers):
    """SIGTERM: it sends everybody elsewhere and ends. Started again when it is taken back."""

    fault: Literal["drain"] = Field(description="Its name.")

    def apply(self, stage: Stage) -> None:
        for name in self.members:
            stage.cluster[name].stop()

    def take_back(self, stage: Stage) -> None:
        self.start_again(stage)


class Roll(_OnMembers):
    """A rolling upgrade: each is drained, ended and started again, the next one when that is healthy."""

    fault: Literal["roll"] = Field(description="Its name.")
    pause: Time = Field(default=1.0, description="Between two members, once the first is reached again.")

    def apply(self, stage: Stage) -> None:
        stage.memory[id(self)] = [list(self.members), 0.0]

    def tick(self, stage: Stage, elapsed: float) -> None:
        waiting, ready_at = stage.memory[id(self)]
        if not waiting or time.monotonic() < ready_at:
            return
        name = waiting[0]
        stage.note("roll", f"{name} drains")
        stage.cluster[name].restart()
        stage.cluster.wait_until_healthy()
        stage.note("roll", f"{name} is back")
        stage.memory[id(self)] = [waiting[1:], time.monotonic() + self.pause]

    def take_back(self, stage: Stage) -> None:
        stage.memory.pop(id(self), None)
        self.start_again(stage)

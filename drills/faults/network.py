"""Faults of the network, by the fabric: whatever a path can do to packets, in one direction or both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from drills.fabric.impairment import BLACK_HOLE, Impairment
from drills.fabric.impairment_text import parse_impairment
from drills.faults.base import Cast, Fault, Stage
from drills.scenario.units import Time

_HOSTS, _VIEWERS = "hosts", "viewers"


def _is_impairment(text: str) -> str:
    parse_impairment(text.split())
    return text


ImpairmentText = Annotated[str, AfterValidator(_is_impairment)]
Endpoints = Annotated[list[str], Field(min_length=1, max_length=50)]


class _OnPaths(Fault):
    """Between every endpoint of one list and every one of the other."""

    src: Endpoints = Field(
        alias="from", description="Endpoints: `relay-a`, one path of it `relay-a/1`, `hosts`, …, `*`."
    )
    dst: Endpoints = Field(alias="to", description="Endpoints on the other side.")
    both: bool = Field(default=True, description="Both ways, with dice of their own; false: only from `from` to `to`.")

    def check(self, cast: Cast) -> None:
        for name in (*self.src, *self.dst):
            cast.endpoint(name)

    def targets(self) -> list[str]:
        return [*self.src, *self.dst]

    def pairs(self, stage: Stage) -> Iterator[tuple[str, str]]:
        """(from, to) of each rule."""
        sides = [[one for name in side for one in _hosts(stage, name)] for side in (self.src, self.dst)]
        for a, b in itertools.product(*sides):
            if a != b:
                yield a, b

    def impair(self, stage: Stage, impairment: Impairment) -> None:
        """Put it on all of them."""
        for a, b in self.pairs(stage):
            stage.cluster.fabric.impair(a, b, impairment, both=self.both)

    def heal(self, stage: Stage) -> None:
        """Take it off again."""
        for a, b in self.pairs(stage):
            stage.cluster.fabric.heal(a, b)


def _hosts(stage: Stage, name: str) -> list[str]:
    """The fabric's hosts that an endpoint of a scenario means."""
    if name not in (_HOSTS, _VIEWERS):
        return [name]
    prefix = f"{name[:-1]}-"
    return [host for host in stage.cluster.fabric.hosts if host.startswith(prefix)]


class Impair(_OnPaths):
    """Delay, jitter, loss, bursts, reordering, a rate: anything the fabric does to packets."""

    fault: Literal["impair"] = Field(description="Its name.")
    impairment: ImpairmentText = Field(description="As in `make cluster`: `delay=150ms jitter=20ms correlation=25%`.")

    def apply(self, stage: Stage) -> None:
        self.impair(stage, parse_impairment(self.impairment.split()))

    def take_back(self, stage: Stage) -> None:
        self.heal(stage)


class Partition(_OnPaths):
    """Nothing gets through: no refusal, no message, silence."""

    fault: Literal["partition"] = Field(description="Its name.")

    def apply(self, stage: Stage) -> None:
        self.impair(stage, BLACK_HOLE)

    def take_back(self, stage: Stage) -> None:
        self.heal(stage)


class Flap(_OnPaths):
    """A path that comes and goes."""

    fault: Literal["flap"] = Field(description="Its name.")
    bad: Time = Field(description="How long it is bad each time.")
    good: Time = Field(description="How long it is good in between.")
    impairment: ImpairmentText = Field(default="blackhole", description="What `bad` means.")

    @model_validator(mode="after")
    def _takes_time(self) -> Flap:
        if self.bad + self.good < 0.1:
            raise ValueError("bad and good together are 100ms at least")
        return self

    def apply(self, stage: Stage) -> None:
        stage.memory[id(self)] = False
        self.tick(stage, 0.0)

    def tick(self, stage: Stage, elapsed: float) -> None:
        is_bad = elapsed % (self.bad + self.good) < self.bad
        if is_bad == stage.memory[id(self)]:
            return
        stage.memory[id(self)] = is_bad
        if is_bad:
            self.impair(stage, parse_impairment(self.impairment.split()))
        else:
            self.heal(stage)
        stage.note("flap", "bad" if is_bad else "good")

    def take_back(self, stage: Stage) -> None:
        stage.memory.pop(id(self), None)
        self.heal(stage)

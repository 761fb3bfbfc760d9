"""What a fault is: keys in a scenario's `method`, something that is done to a test cluster, and the way back."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import Field

from drills.cluster import Cluster
from drills.processes import Process
from drills.scenario.units import Part, Time

Note = Callable[[str, str], None]
"""Writes into the record that something happened: what, and to whom."""


@dataclass(slots=True)
class Stage:
    """What faults act on: a cluster that the drill has started itself."""

    cluster: Cluster
    dice: random.Random
    note: Note
    helpers: dict[int, list[Process]] = field(default_factory=dict)
    """Processes that faults have started, by the fault's `id`."""
    memory: dict[int, Any] = field(default_factory=dict)
    """What a fault has to remember until it is taken back, by its `id`."""


class Cast(Protocol):
    """Who is in a scenario, known before anything is started."""

    def member(self, name: str, *roles: str) -> None:
        """Raise ValueError unless there is such a member, of one of these roles if any are named."""

    def endpoint(self, name: str) -> None:
        """Raise ValueError unless it is `*`, a member, one of its paths (`relay-a/2`), `hosts`, `viewers` or
        `outside`."""


@dataclass(slots=True)
class Preparation:
    """What a fault needs from the cluster's start on."""

    env: dict[str, dict[str, str]] = field(default_factory=dict)
    """More environment, by member; `{directory}` stands for the cluster's directory."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """More settings (SECTION.KEY: VALUE), by member."""
    files: dict[str, str] = field(default_factory=dict)
    """What has to be in the cluster's directory, by file name."""
    missing: list[str] = field(default_factory=list)
    """Why this machine cannot do it."""


class Fault(Part):
    """One entry of `method`. `apply`, `tick` and `take_back` run on the main thread; `tick` some 20 times a second."""

    fault: str = Field(description="Its name.")
    at: Time = Field(description="When it begins, after the beginning of the method.")
    lasts: Time | None = Field(None, alias="for", description="Taken back after this time; else by the rollback.")

    @property
    def needs_namespaces(self) -> bool:
        """Whether it cannot be done to a cluster on loopback."""
        return False

    def check(self, cast: Cast) -> None:
        """Raise ValueError for members and endpoints that are not in the scenario."""

    def prepare(self, into: Preparation) -> None:
        """Say what has to be there when the cluster starts."""

    def apply(self, stage: Stage) -> None:
        """Do it."""
        raise NotImplementedError

    def tick(self, stage: Stage, elapsed: float) -> None:
        """Go on with it, `elapsed` seconds after `apply`."""

    def take_back(self, stage: Stage) -> None:
        """Undo it. Also called when `apply` has failed half-way; may be called once only."""
        raise NotImplementedError

    def targets(self) -> list[str]:
        """Whom it concerns, for the record and the report."""
        return []

    def as_text(self) -> str:
        """One line for people."""
        own = self.model_dump(mode="json", by_alias=True, exclude={"fault", "at", "lasts"}, exclude_defaults=True)
        return " ".join([self.fault, *(f"{key}={_plain(value)}" for key, value in own.items())])


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)

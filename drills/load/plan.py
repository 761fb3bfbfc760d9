"""What a load is: how many, how fast they come, and how they behave. Pure and seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from relay.errors import SettingsError

MOST_SEATS = 64
"""On one stage (the API's limit)."""
LAYERS: tuple[str | None, ...] = ("q", "h", "f", None)
"""Caps that viewers choose among where hosts send three layers; None gives the choice back to the relay."""

Action = Literal["join", "switch", "leave"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Times in seconds. Each viewer draws his own from exponential distributions with these means; 0 for never."""

    rooms: int = 1
    hosts: int = 1
    viewers: int = 4
    """Per room, as are the hosts."""
    seconds: float = 60.0
    ramp_s: float = 10.0
    """Until all viewers have come, evenly."""
    jitter_s: float = 0.5
    """By which each comes later than his turn, at most."""
    stay_s: float = 0.0
    """Until a viewer leaves."""
    away_s: float = 5.0
    """Until one who left returns."""
    switch_s: float = 0.0
    """Between two changes of a viewer's layer."""
    simulcast: bool = False
    per_process: int = 8
    api_per_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises SettingsError for what cannot be."""
        for name in ("rooms", "per_process"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}: at least 1")
        for name in ("hosts", "viewers", "ramp_s", "jitter_s", "stay_s", "away_s", "switch_s", "api_per_s"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name}: not below 0")
        if self.hosts > MOST_SEATS:
            raise SettingsError(f"hosts: {self.hosts} in a room; a stage has at most {MOST_SEATS} seats")
        if self.seconds <= 0:
            raise SettingsError("seconds: more than 0")
        if self.ramp_s + self.jitter_s >= self.seconds:
            raise SettingsError(f"ramp_s: the last viewers come after {self.ramp_s + self.jitter_s:g} s, "
                                f"and after {self.seconds:g} s all is over")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """What a viewer does at a time, seconds after the beginning. `layer` is his cap from a `switch` on."""

    at: float
    action: Action
    layer: str | None = None


def turn(plan: LoadPlan, number: int) -> float:
    """When the viewer with this number, of all rooms' viewers, comes first."""
    everybody = plan.rooms * plan.viewers
    jitter = random.Random(f"{plan.seed}/turn/{number}").uniform(0.0, plan.jitter_s)
    return plan.ramp_s * number / max(1, everybody) + jitter


def story(plan: LoadPlan, number: int) -> Iterator[Step]:
    """All that the viewer with this number does until the plan's end, in the order of time. The same for each run."""
    dice = random.Random(f"{plan.seed}/story/{number}")
    at = turn(plan, number)
    while at < plan.seconds:
        yield Step(at, "join")
        leaves = at + _draw(dice, plan.stay_s)
        switches = at + _draw(dice, plan.switch_s)
        while switches < min(leaves, plan.seconds):
            yield Step(switches, "switch", dice.choice(LAYERS) if plan.simulcast else None)
            switches += _draw(dice, plan.switch_s)
        if leaves >= plan.seconds:
            return
        yield Step(leaves, "leave")
        at = leaves + max(0.2, _draw(dice, plan.away_s))


def _draw(dice: random.Random, mean: float) -> float:
    return dice.expovariate(1 / mean) if mean > 0 else float("inf")

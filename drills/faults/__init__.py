"""Faults, registered by name: one small class each, with `apply` and `take_back`."""

from __future__ import annotations

from typing import Annotated, Union, get_args

from pydantic import Field

from drills.faults.base import Cast, Fault, Preparation, Stage
from drills.faults.members import Drain, Kill, Pause, Roll
from drills.faults.network import Flap, Impair, Partition
from drills.faults.resources import ClockJump, CpuStorm, DiskFull, MemoryPressure
from drills.faults.workers import KillCompositor, KillLinks, KillMixer

__all__ = ["FAULTS", "AnyFault", "Cast", "Fault", "Preparation", "Stage"]

_Any = Union[  # noqa: UP007 - its members are read below
    Impair,
    Partition,
    Flap,
    Kill,
    Pause,
    Drain,
    Roll,
    CpuStorm,
    MemoryPressure,
    DiskFull,
    ClockJump,
    KillMixer,
    KillCompositor,
    KillLinks,
]
AnyFault = Annotated[_Any, Field(discriminator="fault")]

FAULTS: dict[str, type[Fault]] = {get_args(kind.model_fields["fault"].annotation)[0]: kind for kind in get_args(_Any)}

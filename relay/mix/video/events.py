"""What happened to programs' pictures, told to whoever owns the pool. Times in µs."""

from __future__ import annotations

from dataclasses import dataclass

from relay.mix.video.messages import InputFault
from relay.stage.lips import Told


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker waits for work."""

    where: str
    resident: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """It died, hung or said nonsense; its stages are taken over."""

    where: str
    reason: str
    stages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageMoved:
    """Another worker makes a stage from now on. `without`: how long ago the last packet was sent, 0 if none was."""

    stage: str
    where: str
    without: int


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A stage cannot be made and is closed."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class InputShown:
    """The first picture of an input (again) is in the program, `after` µs after it arrived."""

    stage: str
    identity: str
    after: int
    sync_id: int


@dataclass(frozen=True, slots=True)
class InputTroubled:
    """An input is corrupt, lost packets, fell silent, or its clock or size jumped; the program goes on."""

    stage: str
    identity: str
    fault: InputFault
    detail: str


@dataclass(frozen=True, slots=True)
class InputRefused:
    """A program shows no more inputs, or the input's track is gone; nothing else changes."""

    stage: str
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class InputLagged:
    """How long after capture a participant's picture arrives, by his own clock: see `relay.stage.lips`."""

    stage: str
    identity: str
    lag: int
    told: Told


@dataclass(frozen=True, slots=True)
class ProgramMeasured:
    """A second of a program: pictures sent and left out, p95 of lateness, mean work for one."""

    stage: str
    frames: int
    skipped: int
    lateness_p95: int
    busy: int


@dataclass(frozen=True, slots=True)
class ProgramDegraded:
    """The stage gives up frames or pixels before it is late."""

    stage: str
    fps: float
    width: int
    height: int
    workers: int


@dataclass(frozen=True, slots=True)
class ProgramRecovered:
    """All frames and pixels are back; `workers` may have changed."""

    stage: str
    workers: int


VideoEvent = (
    WorkerStarted
    | WorkerLost
    | StageMoved
    | StageFailed
    | InputShown
    | InputTroubled
    | InputRefused
    | InputLagged
    | ProgramMeasured
    | ProgramDegraded
    | ProgramRecovered
)

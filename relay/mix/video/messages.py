"""What the relay tells a video worker, and what the worker tells back (`relay.process.control` carries it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.mix.video.assembly import VideoCodec
from relay.process.control import Message
from relay.stage.layout import LayoutChange, OverlayChange
from relay.stage.lips import Told

# --- relay → worker -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of a stage. `stream` is its tap; None, as `codec`, for somebody who has no picture. `delay` (µs) 0: the
    stage's."""

    identity: str
    name: str
    stream: int | None = None
    codec: VideoCodec | None = None
    delay: int = 0


@dataclass(frozen=True, slots=True)
class StageSpec:
    """All that a worker needs to make a stage's program, at its beginning or after another worker's end.

    `epoch` (program time, monotonic µs), `timestamp` and `wall_offset` fix the output's timeline. `sequence` and
    `picture_id` are the next ones. `hold`: µs for which an unfinished picture is not sent.
    """

    stage: str
    place: int
    stream: int
    width: int
    height: int
    fps: int
    codec: VideoCodec
    bitrate: int
    keyframe_ms: int
    payload_type: int
    ssrc: int
    epoch: int
    timestamp: int
    wall_offset: int
    sequence: int
    picture_id: int
    delay: int
    silence: int
    hold: int
    cores: int
    layouts: tuple[LayoutChange, ...]
    overlays: tuple[OverlayChange, ...]
    inputs: tuple[InputSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenStage(Message):
    spec: StageSpec


@dataclass(frozen=True, slots=True)
class CloseStage(Message):
    stage: str


@dataclass(frozen=True, slots=True)
class AddInput(Message):
    stage: str
    input: InputSpec


@dataclass(frozen=True, slots=True)
class RemoveInput(Message):
    stage: str
    identity: str


@dataclass(frozen=True, slots=True)
class ChangeLayout(Message):
    stage: str
    change: LayoutChange


@dataclass(frozen=True, slots=True)
class ChangeOverlays(Message):
    stage: str
    change: OverlayChange


@dataclass(frozen=True, slots=True)
class SendKeyframe(Message):
    """A viewer needs one."""

    stage: str


@dataclass(frozen=True, slots=True)
class DelayInput(Message):
    """Show an input's pictures so many µs after they could have come at the earliest."""

    stage: str
    identity: str
    delay: int


@dataclass(frozen=True, slots=True)
class AnchorInput(Message):
    """By its sender's reports, RTP timestamp `timestamp` of an input's stream `ssrc` is of `captured`, µs of the
    sender's clock."""

    stage: str
    identity: str
    ssrc: int
    timestamp: int
    captured: int


# --- worker → relay -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerReady(Message):
    """Everything is imported and was used once."""

    resident: int


@dataclass(frozen=True, slots=True)
class FrameShown(Message):
    """The first frame of an input, or the first after a time without, is in the program: `after` µs after its
    arrival."""

    stage: str
    identity: str
    after: int
    sync_id: int


InputFault = Literal["corrupt", "lost", "silent", "clock_jumped", "resized"]


@dataclass(frozen=True, slots=True)
class InputTrouble(Message):
    """Something is wrong with an input, or changed in it; the program goes on without its newest frames."""

    stage: str
    identity: str
    fault: InputFault
    detail: str


@dataclass(frozen=True, slots=True)
class KeyframeNeeded(Message):
    """An input cannot be decoded without one."""

    stage: str
    identity: str


@dataclass(frozen=True, slots=True)
class LagMeasured(Message):
    """How long after capture an input's picture arrives, by its sender's clock (µs): to be compared with the sound's
    that is told in the same way."""

    stage: str
    identity: str
    lag: int
    told: Told


@dataclass(frozen=True, slots=True)
class StageMeasured(Message):
    """The last second of a stage: frames sent and skipped, p95 of lateness and mean work of a frame in µs."""

    stage: str
    frames: int
    skipped: int
    lateness_p95: int
    busy: int


@dataclass(frozen=True, slots=True)
class PlanChanged(Message):
    """A stage is made with more or fewer hands, frames or pixels from now on."""

    stage: str
    workers: int
    fps: float
    width: int
    height: int
    degraded: bool


@dataclass(frozen=True, slots=True)
class StageFailed(Message):
    """A stage cannot be made: `detail` says why. It is closed."""

    stage: str
    detail: str


TO_WORKER = (
    OpenStage,
    CloseStage,
    AddInput,
    RemoveInput,
    ChangeLayout,
    ChangeOverlays,
    SendKeyframe,
    AnchorInput,
    DelayInput,
)
FROM_WORKER = (
    WorkerReady,
    FrameShown,
    InputTrouble,
    KeyframeNeeded,
    LagMeasured,
    StageMeasured,
    PlanChanged,
    StageFailed,
)

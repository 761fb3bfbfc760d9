"""What the pool knows of a program: what was asked for, and all that another worker needs to go on with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from relay.mix.child import Restarts
from relay.mix.layout import LayoutChange, OverlayChange, SyncLog
from relay.mix.video import messages
from relay.mix.video.assembly import VideoCodec
from relay.mix.video.pool_worker import PoolWorker


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input's picture comes from: a layer of a track of this plane."""

    track: int
    layer: int
    codec: VideoCodec


@dataclass(frozen=True, slots=True)
class Program:
    """What a stage's program is to be. `track` and `layer`, of a track without session, are where it is injected;
    `payload_type` is that track's for the codec. None and 0 stand for the settings' values."""

    track: int
    payload_type: int
    layer: int = 0
    width: int = 0
    height: int = 0
    fps: int = 0
    codec: VideoCodec | None = None
    bitrate: int = 0


@dataclass(slots=True)
class InputState:
    name: str
    source: Source | None
    tap: int | None = None


@dataclass(slots=True)
class StageState:
    spec: messages.StageSpec
    program: Program
    layouts: SyncLog[LayoutChange]
    overlays: SyncLog[OverlayChange]
    inputs: dict[str, InputState] = field(default_factory=dict)
    worker: PoolWorker | None = None
    restarts: Restarts = field(default_factory=Restarts)
    taken: float = 0.0
    waiting: asyncio.TimerHandle | None = None


def input_spec(identity: str, one: InputState) -> messages.InputSpec:
    source = one.source if one.tap is not None else None
    return messages.InputSpec(identity, one.name, one.tap, source.codec if source is not None else None)

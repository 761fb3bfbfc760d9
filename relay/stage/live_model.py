"""What a live room remembers: local tracks, viewers and their slots, and the events it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from relay.plane.contract import Kind, PayloadType
from relay.stage.layers import LayerAllocator
from relay.stage.permissions import Role

ChoosePayloadType = Callable[[tuple[PayloadType, ...], PayloadType], int | None]
"""Given a slot's negotiated payload types and a track's, returns the slot's number that carries it, or None."""


EVERYBODY = ""
"""Of the mixes for those who asked for one sound, which go by whom they leave out: the one that leaves out nobody."""


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """A slot as negotiated. `slot` is the plane's handle, `index` the m-line order among the session's slots."""

    slot: int
    index: int
    mid: str
    kind: Kind
    payload_types: tuple[PayloadType, ...]


@dataclass(slots=True)
class LocalTrack:
    """A publication whose packets are on this node. `rids` and `rates` have one entry per layer, lowest first."""

    publication: str
    track: int
    kind: Kind
    rids: tuple[str, ...]
    payload: PayloadType
    live: set[int] = field(default_factory=set)
    rates: list[int] = field(default_factory=list)
    muted: bool = False

    def rid(self, layer: int) -> str | None:
        """Return a layer's name; None without simulcast."""
        return self.rids[layer] or None if layer < len(self.rids) else None


@dataclass(slots=True)
class Slot:
    """A viewer's slot. `layer` is what was asked of the plane, `plays` what the plane said it shows (track, layer)."""

    spec: SlotSpec
    formats: int = 0
    """Names the slot's payload types; equal ones have equal numbers (see `sight`)."""
    pin: str | None = None
    paused: bool = False
    pinned_layer: str | None = None
    max_layer: str | None = None
    shows: str | None = None
    identity: str | None = None
    track: int | None = None
    payload_type: int | None = None
    layer: int | None = None
    plays: tuple[int, int] | None = None
    spliced: tuple[int, int] | None = None
    """RTP timestamps of one instant: as the viewer has it, and the publisher's. None when the plane did not say."""
    told: tuple[int, int, float] | None = None
    """The latest `SlotTimeline`: RTP timestamp, sync id, and when it was told."""


@dataclass(slots=True)
class Viewer:
    """A viewing session: slots in order of their index."""

    session: int
    session_id: str
    identity: str
    role: Role
    slots: list[Slot]
    allocator: LayerAllocator
    program: bool = False
    """Whether his slots play the program by themselves, and the stage only by a pin; else it is the other way round."""
    one_sound: bool = False
    """Whether he asked to hear everybody else mixed into one slot."""
    estimate: int | None = None


@dataclass(frozen=True, slots=True)
class SpeakerChanged:
    """Somebody else speaks now; None: nobody on air is left who spoke. For the room's stream."""

    identity: str | None

    type = "speaker.changed"

    def data(self) -> dict[str, Any]:
        """Return the event's JSON."""
        return {"identity": self.identity}


@dataclass(frozen=True, slots=True)
class SlotBound:
    """A slot shows something else from `rtp_timestamp` on (None: it fell silent). For that session's own stream.

    `sync_id` is that frame's, None when it is not known yet; `clock_hz` is the RTP clock.
    """

    session: str
    index: int
    publication: str | None
    identity: str | None
    layer: str | None
    rtp_timestamp: int | None
    sync_id: int | None = None
    clock_hz: int | None = None

    type = "slot.bound"

    def data(self) -> dict[str, Any]:
        """Return the event's JSON."""
        return {
            "session": self.session,
            "index": self.index,
            "publication": self.publication,
            "identity": self.identity,
            "layer": self.layer,
            "rtp_timestamp": self.rtp_timestamp,
            "sync_id": None if self.sync_id is None else str(self.sync_id),
            "clock_hz": self.clock_hz,
        }


@dataclass(frozen=True, slots=True)
class SlotTimeline:
    """What a slot sends with `rtp_timestamp` is the frame `sync_id`. For that session's own stream."""

    session: str
    index: int
    rtp_timestamp: int
    sync_id: int
    clock_hz: int

    type = "slot.timeline"

    def data(self) -> dict[str, Any]:
        """Return the event's JSON."""
        return {
            "session": self.session,
            "index": self.index,
            "rtp_timestamp": self.rtp_timestamp,
            "sync_id": str(self.sync_id),
            "clock_hz": self.clock_hz,
        }


LiveEvent = SpeakerChanged | SlotBound

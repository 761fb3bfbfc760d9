"""The room document: what the store holds of a room, as frozen data. Times are wall seconds since the Unix epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from relay.errors import CorruptDocument
from relay.stage.layout import Layout, LayoutChange, OverlayChange, Overlays
from relay.stage.permissions import Role
from relay.stage.pk import RoomPk

Codec = Literal["opus", "vp8", "h264", "vp9", "av1"]
MediaKind = Literal["audio", "video"]
Source = Literal["camera", "microphone", "screen", "program"]
ProgramCodec = Literal["h264", "vp8"]
PROGRAM: Literal["program"] = "program"
"""Identity and source of the program's publications. No participant may be called so."""
SeatState = Literal["on_air", "backstage"]
StagePolicy = Literal["open", "invite"]

RoomChange = tuple["RoomState", list[tuple[str, dict[str, Any]]]]
"""What every function on a room returns: the new state and its events (type, data)."""


@dataclass(frozen=True, slots=True)
class Participant:
    """A host or moderator. `session` is the publishing session, None when there is none; `connected` says it lives."""

    identity: str
    role: Role
    since: float
    session: str | None = None
    connected: bool = False
    muted_audio: bool = False
    muted_video: bool = False


@dataclass(frozen=True, slots=True)
class Seat:
    """A place on the stage. `away_since` is set while its participant is not publishing; None while he is."""

    identity: str
    state: SeatState
    since: float
    away_since: float | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open invitation to the stage."""

    identity: str
    by: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Publication:
    """One offered track. `muted` is the track's own; the participant's mute comes on top (see `is_muted`)."""

    id: str
    identity: str
    kind: MediaKind
    source: Source
    codec: Codec
    state: Literal["live", "paused"]
    node: str
    session: str
    layers: tuple[str, ...]
    since: float
    muted: bool = False
    epoch: int = 0
    """The lease's fencing token under which `node` is the origin; 0 before it has one."""


@dataclass(frozen=True, slots=True)
class Program:
    """The room's program, while it is switched on. 0 and None stand for what the mixing node's settings say.

    `layouts` and `overlays` are logs (see `relay.stage.layout.SyncLog`): what holds, then what is to come. `changes`
    numbers their entries. `node` mixes it under the lease `epoch`; empty while none does.
    """

    since: float
    width: int = 0
    height: int = 0
    fps: int = 0
    codec: ProgramCodec | None = None
    bitrate_bps: int = 0
    layouts: tuple[LayoutChange, ...] = (LayoutChange(0, Layout()),)
    overlays: tuple[OverlayChange, ...] = (OverlayChange(0, Overlays()),)
    changes: int = 0
    node: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class RoomState:
    """One room. Dictionaries keep insertion order: seats and publications are in join order.

    `roles` are roles given in the room; they win over the token's. `bans` maps an identity to the end of its ban.
    `sync_id` (decimal) is stamped by the store: the room's last event when this was read.
    """

    id: str
    created_at: float
    codecs: tuple[Codec, ...] = ("opus", "vp8", "h264", "vp9", "av1")
    max_seats: int = 8
    stage_policy: StagePolicy = "open"
    metadata: dict[str, Any] = field(default_factory=dict)
    participants: dict[str, Participant] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)
    invitations: dict[str, Invitation] = field(default_factory=dict)
    publications: dict[str, Publication] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    bans: dict[str, float] = field(default_factory=dict)
    program: Program | None = None
    pk: RoomPk = field(default_factory=RoomPk)
    sync_id: str = "0"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-ready document."""
        document: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return document

    @staticmethod
    def from_json(document: dict[str, Any]) -> RoomState:
        """Read a document. Raises CorruptDocument naming the first field that is missing or wrong."""
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise CorruptDocument(f"room document: {where}: {first['msg']}") from error

    def on_air(self) -> list[str]:
        """Return who is on air, in join order."""
        return [seat.identity for seat in self.seats.values() if seat.state == "on_air"]

    def is_muted(self, publication: Publication) -> bool:
        """Whether nobody should hear or see the publication: muted itself, or by its participant's mute."""
        who = self.participants.get(publication.identity)
        by_participant = who is not None and (who.muted_audio if publication.kind == "audio" else who.muted_video)
        return publication.muted or by_participant


_ADAPTER: TypeAdapter[RoomState] = TypeAdapter(RoomState)

"""What the API says of sessions, their slots, and nodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from signaling.bodies import Strict
from signaling.ids import RESOURCE_PATTERN

Rid = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,16}$")]


class Slot(BaseModel):
    """One m-line of a viewer's session and what plays in it. A mix that was asked for with `sound=mix`, which is no
    publication, goes by `mix`, or `mix:` and whom it leaves out, with identity `program`."""

    index: int
    mid: str
    kind: Literal["audio", "video"]
    publication: str | None
    identity: str | None
    layer: str | None
    pinned: bool
    pinned_layer: str | None
    max_layer: str | None
    paused: bool
    bitrate_bps: int


class SlotList(BaseModel):
    slots: list[Slot]


class SessionLayer(BaseModel):
    rid: str
    bitrate_bps: int
    active: bool
    width: int | None
    height: int | None


class SessionPublication(BaseModel):
    id: str
    kind: Literal["audio", "video"]
    codec: str
    muted: bool
    layers: list[SessionLayer]


class Session(BaseModel):
    """One participant's WebRTC connection."""

    id: str
    room: str
    identity: str
    role: str
    kind: Literal["publisher", "viewer"]
    state: Literal["idle", "connecting", "publishing", "watching", "pausing", "closed"]
    address: str | None
    since: str
    bitrate_in_bps: int
    bitrate_out_bps: int
    packets_in: int
    packets_out: int
    loss: float
    rtt_ms: float | None
    estimate_bps: int | None
    publications: list[SessionPublication]
    slots: list[Slot]


class SessionList(BaseModel):
    sessions: list[Session]


class Node(BaseModel):
    """One relay process."""

    id: str
    region: str
    version: str
    plane: Literal["reference", "native"]
    healthy: bool
    """False once the packet plane has failed: the node forwards nothing until it is restarted."""
    sessions: int
    publishers: int
    viewers: int
    max_sessions: int
    bitrate_out_bps: int
    packets_in: int
    packets_out: int
    cpu_percent: float
    memory_bytes: int
    draining: bool
    started_at: str


class NodeList(BaseModel):
    nodes: list[Node]


class BaseList(BaseModel):
    """Where a client can go when the service that it uses is gone."""

    bases: list[str]


class ChangeSlot(Strict):
    """A wish for one slot. What is left out stays as it is; null gives the choice back to the relay."""

    publication: Annotated[str, Field(pattern=RESOURCE_PATTERN)] | None = None
    paused: bool = False
    layer: Rid | None = None
    max_layer: Rid | None = None

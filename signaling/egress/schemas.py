"""What the API says of egress."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from signaling.bodies import Strict
from signaling.ids import RESOURCE_PATTERN


class StartEgress(Strict):
    """What is to go out. `source` is "program", a publication's id, or an identity, whose picture and sound are meant.
    `url` is for RTMP only: rtmp://host/app/key or rtmps://host/app/key."""

    kind: Literal["hls", "recording", "rtmp"]
    source: Annotated[str, Field(pattern=RESOURCE_PATTERN)] = "program"
    url: Annotated[str, Field(max_length=2048)] | None = None


class EgressError(BaseModel):
    """`code` is for programs: disk-full, cannot-write, no-source, process-died, target-not-allowed, unreachable, …"""

    code: str
    detail: str


class Egress(BaseModel):
    """One way out of a room. `target` is where a push goes, without its key; `files` are a recording's."""

    id: str
    room: str
    kind: Literal["hls", "recording", "rtmp"]
    source: str
    state: Literal["starting", "running", "retrying", "failed", "ended"]
    error: EgressError | None
    target: str | None
    files: list[str]
    since: str
    bytes: int
    pictures: int
    dropped: int
    restarts: int


class EgressList(BaseModel):
    egress: list[Egress]


class Playback(BaseModel):
    """Where the room's HLS plays. `url` is relative to this server, or another relay's; good until `expires`."""

    egress: str
    url: str
    expires: str

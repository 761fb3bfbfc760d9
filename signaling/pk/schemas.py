"""What the API says of PKs between rooms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from relay.stage.pk import MAX_COUNTDOWN_S, MAX_DURATION_S, MAX_POINTS, MIN_COUNTDOWN_S, MIN_DURATION_S
from signaling.bodies import Strict
from signaling.ids import ROOM_PATTERN
from signaling.rooms.schemas import SyncId


class InvitedBy(BaseModel):
    room: str
    identity: str


class Pk(BaseModel):
    """A PK as one of its two rooms sees it. `starts_at` and `ends_at` are sync ids, the same in both rooms."""

    id: str
    state: Literal["invited", "running", "ended"]
    epoch: int
    room: str
    other: str
    invited_by: InvitedBy
    since: str
    expires_at: str | None
    duration_s: float
    countdown_s: float
    starts_at: str | None
    ends_at: str | None
    scores: dict[str, int]
    reason: str | None


class RoomPk(BaseModel):
    """The PK that runs or counts down, open invitations in both directions, and how the last one ended."""

    current: Pk | None
    invitations: list[Pk]
    last: Pk | None


class InviteRoom(Strict):
    room: Annotated[str, Field(pattern=ROOM_PATTERN, description="The room to invite")]
    duration_s: Annotated[float, Field(ge=MIN_DURATION_S, le=MAX_DURATION_S)] = 300.0
    countdown_s: Annotated[float, Field(ge=MIN_COUNTDOWN_S, le=MAX_COUNTDOWN_S)] = 3.0


class Score(Strict):
    points: Annotated[int, Field(ge=-MAX_POINTS, le=MAX_POINTS, description="For this room's side; not 0")]
    at: SyncId | None = Field(None, description="The sync id of the frame that the points belong to")

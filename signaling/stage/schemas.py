"""What the API says of the stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from signaling.bodies import Strict
from signaling.ids import IDENTITY_PATTERN

SeatState = Literal["on_air", "backstage"]


class Seat(BaseModel):
    identity: str
    state: SeatState
    since: str
    connected: bool


class Invitation(BaseModel):
    identity: str
    by: str
    expires_at: str


class Stage(BaseModel):
    """Who is on air, who is backstage, and who is invited."""

    seats: list[Seat]
    invitations: list[Invitation]
    max_seats: int
    active_speaker: str | None


class Accepted(BaseModel):
    """The stage with the new seat, and the token with which the guest publishes."""

    stage: Stage
    token: str


class Invite(Strict):
    identity: Annotated[str, Field(pattern=IDENTITY_PATTERN)]


class ChangeSeat(Strict):
    state: SeatState

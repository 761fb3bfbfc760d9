"""What the API says of participants."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from signaling.bodies import Strict

Role = Literal["owner", "guest", "moderator", "viewer"]


class Muted(BaseModel):
    audio: bool
    video: bool


class Participant(BaseModel):
    """Someone in a room."""

    identity: str
    role: str
    state: Literal["on_air", "backstage", "audience", "away"]
    muted: Muted
    connected: bool
    since: str


class ParticipantList(BaseModel):
    participants: list[Participant]


class ChangeMuted(Strict):
    audio: bool | None = None
    video: bool | None = None


class ChangeParticipant(Strict):
    """What is left out stays as it is."""

    role: Role | None = None
    muted: ChangeMuted | None = None

"""What the API says of publications."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from signaling.bodies import Strict


class Publication(BaseModel):
    """One track that a participant offers to the room, or one of the program's, whose identity and source are
    "program". "paused": its publisher is away and its seat is kept."""

    id: str
    identity: str
    kind: Literal["audio", "video"]
    source: Literal["camera", "microphone", "screen", "program"]
    codec: str
    state: Literal["live", "paused"]
    muted: bool
    node: str
    layers: list[str]
    since: str


class PublicationList(BaseModel):
    publications: list[Publication]


class ChangePublication(Strict):
    muted: bool

"""What the API says of webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from relay.settings import EventPattern
from signaling.bodies import Strict
from signaling.ids import ROOM_PATTERN


class CreateWebhook(Strict):
    """Where events are to go. `secret` is made when it is left out."""

    url: Annotated[str, Field(min_length=8, max_length=2048)]
    events: Annotated[list[EventPattern], Field(min_length=1, max_length=64)] = Field(
        default_factory=lambda: ["*"], description="Names, beginnings with `.*`, or `*`"
    )
    room: Annotated[str, Field(pattern=ROOM_PATTERN)] | None = Field(None, description="None: all rooms, and nodes")
    description: Annotated[str, Field(max_length=200)] = ""
    secret: Annotated[str, Field(max_length=128, description="`whsec_` and 24 to 64 bytes in base64")] | None = None


class Webhook(BaseModel):
    """An endpoint and how its queue stands. `lost` found the queue full; they are among the dead letters, too."""

    id: str
    url: str
    events: list[str]
    room: str | None
    description: str
    origin: str
    active: bool
    reason: str
    waiting: int
    retrying: int
    dead: int
    delivered: int
    given_up: int
    lost: int


class NewWebhook(Webhook):
    """`secret` is told now and never again."""

    secret: str


class WebhookList(BaseModel):
    webhooks: list[Webhook]


class DeadLetter(BaseModel):
    """A message that was given up. `body` is what was sent: a CloudEvent as JSON."""

    id: str
    type: str
    reason: str
    tries: int
    body: str


class DeadLetters(BaseModel):
    dead: list[DeadLetter]


class Revived(BaseModel):
    revived: int

"""What the API says of tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from signaling.bodies import Strict
from signaling.ids import IDENTITY_PATTERN

MAX_TTL_S = 31_536_000


class MintToken(Strict):
    """A token to be signed. `ttl_s` left out: as the settings say."""

    room: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{1,64}|\*)$")]
    identity: Annotated[str, Field(pattern=IDENTITY_PATTERN)]
    role: Literal["owner", "guest", "moderator", "viewer", "service"]
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S)] | None = None


class MintedToken(BaseModel):
    token: str
    expires_at: str

"""What the API says of the links between nodes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from signaling.bodies import Strict

Path = Literal["primary", "backup"]


class LinkPath(BaseModel):
    """One media path, as the origin measures it."""

    remote: list[str | int]
    rtt_us: int
    verdict: Literal["good", "suspicious", "bad"]
    window: int
    """Bytes that may be under way."""
    max_datagram: int


class Link(BaseModel):
    """One end of a link: `node` tells it. Media goes from the end that is `origin` to the `subscriber`."""

    link: str
    node: str
    peer: str
    role: Literal["origin", "subscriber"]
    breaker: Literal["closed", "suspect", "open", "half-open"]
    carrying: list[Path]
    flows: int
    """Layers that it carries."""
    forced: bool = False
    hold_ms: int = 0
    """How long the primary rests after it was left."""
    moves: int = 0
    paths: dict[Path, LinkPath] = {}


class LinkList(BaseModel):
    links: list[Link]


class ChangeBreaker(Strict):
    """`open` puts media on the backup path until `reset`, which puts it back on the primary."""

    action: Literal["open", "reset"]

"""What every request handler needs, built once by `create_app`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from relay.metrics import Metrics
from relay.ports import RoomStore
from relay.settings import LimitSettings, SignalingSettings
from signaling.limits import RateLimiter
from signaling.nodes import Nodes
from signaling.problems import Draining


class Drain:
    """Whether this process is about to stop: first it refuses newcomers and tells listeners, then it ends streams."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    def begin(self) -> None:
        """Refuse new sessions and send `node.draining` to all event streams, now and later ones."""
        self.began.set()

    def end(self) -> None:
        """End all event streams."""
        self.began.set()
        self.ended.set()

    def check(self, retry_after: int) -> None:
        """Raise Draining once `begin` was called."""
        if self.began.is_set():
            raise Draining("come back, or try another node", headers={"Retry-After": str(retry_after)})


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that handlers work with."""

    settings: SignalingSettings
    limits: LimitSettings
    store: RoomStore
    nodes: Nodes
    metrics: Metrics
    requests: RateLimiter
    joins: RateLimiter
    wall: Callable[[], float]
    """Seconds since the epoch; for what tokens and people read."""
    monotonic: Callable[[], float]
    """Seconds; for what must not jump."""
    drain: Drain = field(default_factory=Drain)


def get_context(request: Request) -> Context:
    """Return the app's context."""
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(get_context)]

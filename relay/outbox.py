"""Webhooks that wait: what they are, and what keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from relay.ports import RoomEvent


@dataclass(frozen=True, slots=True)
class Secret:
    """A key that signs webhooks (`whsec_…`). `until` in wall seconds: it is replaced and signs no longer then."""

    secret: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go. `events` are names, or beginnings that end in `.*`, or `*`; `room` empty: all rooms.

    Events of before `since` (wall milliseconds) are not its own. `reason` says why it is not `active`.
    """

    id: str
    url: str
    secrets: tuple[Secret, ...]
    events: tuple[str, ...] = ("*",)
    room: str = ""
    since: int = 0
    active: bool = True
    reason: str = ""
    description: str = ""
    origin: str = "rest"


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it is sent: the same `id` and `body` every time. `type` is the event's own name."""

    id: str
    type: str
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to an endpoint. `entry` is its place in the queue, `at` the wall milliseconds when it came
    into it, `tries` counts those that were made."""

    endpoint: str
    entry: str
    message: Message
    at: int
    tries: int = 0
    reason: str = ""
    """Of a dead letter: why it was given up."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How an endpoint's queue stands: what waits, what waits for another try, and what became of the rest."""

    waiting: int
    retrying: int
    dead: int
    delivered: int
    given_up: int
    lost: int


class Outbox(Protocol):
    """Webhooks that wait, kept where several processes can deliver them. Every call raises StoreUnavailable.

    A message is somebody's from `take` until `delivered`, `again` or `bury`; who dies in between loses it to `adopt`.
    """

    async def endpoints(self) -> list[Endpoint]:
        """All of them, by id."""
        ...

    async def put_endpoint(self, endpoint: Endpoint, limit: int) -> None:
        """Write one; a known one keeps its `since`. Raises Conflict beyond `limit`."""
        ...

    async def drop_endpoint(self, endpoint: str) -> bool:
        """Forget one with its queue; False when there is none."""
        ...

    async def backlog(self, endpoint: str) -> Backlog: ...

    async def lead(self, name: str, ttl_s: float) -> bool:
        """Be, or stay, the one who forwards for so long; False while another one is. Two at once do no harm."""
        ...

    async def news(self, limit: int) -> dict[str, list[RoomEvent]]:
        """Read what rooms have told and nobody forwarded yet: up to `limit` events of each, in order. A stream that is
        no room's has an id that no room can have, see `NODES`."""
        ...

    async def forward(self, room: str, events: list[RoomEvent], to: Mapping[str, list[Message]], limit: int) -> bool:
        """Queue what endpoints get of `events`, and note that these are forwarded, in one step.

        False: somebody else did. What does not fit into a queue of `limit` is a dead letter at once.
        """
        ...

    async def tell(self, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Tell what happened to the nodes rather than in a room."""
        ...

    async def take(self, name: str, endpoints: Mapping[str, int], wait_s: float) -> list[Delivery]:
        """Take up to so many messages of each endpoint; waits a while for the first."""
        ...

    async def adopt(self, name: str, endpoint: str, idle_s: float, limit: int) -> list[Delivery]:
        """Take over what somebody took `idle_s` ago and never finished."""
        ...

    async def delivered(self, delivery: Delivery) -> None: ...

    async def again(self, delivery: Delivery, wait_s: float) -> None:
        """It failed: try once more then."""
        ...

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Give it up; it stays readable among the dead letters."""
        ...

    async def dead(self, endpoint: str, limit: int) -> list[Delivery]:
        """Read the newest dead letters, newest first."""
        ...

    async def revive(self, endpoint: str) -> int:
        """Queue all dead letters again, and say how many."""
        ...

    async def close(self) -> None: ...


NODES = "@nodes"
"""The stream of what happens to nodes and links."""

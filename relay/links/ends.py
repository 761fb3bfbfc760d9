"""The ends of a node's links: its sockets, the server that others dial, and the links that it dials.

`LinkEnds` is what the node knows of them. `LocalEnds` are those in this process; `relay.links.process` has the same in
another one, whose body uses `LocalEnds` again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from relay.errors import NotFound
from relay.ids import HybridClock
from relay.link import messages
from relay.link.dial import LinkClient
from relay.link.hooks import OriginHooks, SubscriberHooks
from relay.link.quic import Identity
from relay.link.serve import LinkServer
from relay.link.sockets import Sockets, open_sockets
from relay.link.transport import Remote
from relay.links.dialled import Taking
from relay.ports import RoomEvent
from relay.settings import LinkSettings


class ServingEnd(Protocol):
    """What the origin's side of a node asks; see `relay.link.serve.LinkServer`."""

    def set_catalog(self, publications: Iterable[messages.Publication]) -> None: ...

    def room_events(self, room: str, events: Sequence[RoomEvent]) -> None: ...


class DialledEnd(Protocol):
    """What the subscriber's side of a node asks; see `relay.link.dial.LinkClient`."""

    @property
    def heard_at(self) -> int: ...

    @property
    def catalog(self) -> dict[str, messages.Publication]: ...

    def offer(self, publication: str) -> messages.Publication | None: ...

    def start(self) -> None: ...

    async def close(self) -> None: ...

    def subscribe(self, publication: str, epoch: int, layers: Iterable[int]) -> None: ...

    def unsubscribe(self, publication: str) -> None: ...

    def request_keyframe(self, publication: str, layer: int) -> None: ...

    def watch_room(self, room: str) -> None: ...

    def unwatch_room(self, room: str) -> None: ...

    def recheck(self) -> None: ...

    def state(self) -> dict[str, Any]: ...


class LinkEnds(Protocol):
    """All ends of a node."""

    @property
    def server(self) -> ServingEnd:
        """For the origin's side; there once they are open."""
        ...

    async def open(self) -> None:
        """Open the sockets and serve. Raises SettingsError when one cannot be opened; nothing stays open then."""
        ...

    async def close(self) -> None:
        """End all links that others dialled and free the sockets; bounded. Close the dialled ones before."""
        ...

    def dial(self, node: str, addresses: Sequence[str], hooks: Taking) -> DialledEnd:
        """Make a link to a node, to be started. Raises ValueError for addresses that are none."""
        ...

    def drain(self) -> None:
        """Tell the subscribers; what flows goes on flowing."""
        ...

    def tick(self) -> None:
        """A few times a second."""
        ...

    def served(self) -> list[dict[str, Any]]:
        """Describe the links that others have dialled, JSON-ready."""
        ...

    async def command(self, link: str, action: str) -> dict[str, Any]:
        """Force a link's media to the backup (`open`) or back (`reset`). Raises NotFound; only the origin can."""
        ...


class LocalEnds:
    """See `LinkEnds`. `server` is there once they are open."""

    server: LinkServer

    def __init__(
        self, settings: LinkSettings, identity: Identity, node: str, clock: HybridClock, origin: OriginHooks
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._node = node
        self._clock = clock
        self._origin = origin
        self._sockets: Sockets | None = None

    async def open(self) -> None:
        self._sockets = await open_sockets(self._settings, self._identity, self._node, self._origin, self._clock)
        self.server = self._sockets.server

    async def close(self) -> None:
        if self._sockets is not None:
            await self._sockets.exits.aclose()

    def dial(self, node: str, addresses: Sequence[str], hooks: SubscriberHooks) -> LinkClient:
        assert self._sockets is not None
        primary = remote_of(addresses[0])
        backup = remote_of(addresses[1]) if len(addresses) > 1 else primary
        routes = self._sockets.routes(primary, backup)
        return LinkClient(self._node, node, routes, hooks, self._clock, self._settings.flow)

    def drain(self) -> None:
        self.server.drain()

    def tick(self) -> None:
        """Nothing: links here have a tick of their own."""

    def served(self) -> list[dict[str, Any]]:
        return [link.state() for link in self.server.links.values()]

    async def command(self, link: str, action: str) -> dict[str, Any]:
        return self.act(link, action)

    def act(self, link: str, action: str) -> dict[str, Any]:
        """`command`, at once."""
        served = self.server.link(link)
        match action:
            case "open":
                served.force_open()
            case "reset":
                served.reset()
            case _:
                raise NotFound(f"no action {action}")
        return served.state()


def remote_of(text: str) -> Remote:
    """Read `host:port`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)

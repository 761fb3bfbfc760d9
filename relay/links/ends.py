"""The ends of a node's links: its sockets, the server that others dial, and the links that it dials.

`LinkEnds` is what the node knows of them. `LocalEnds` are those in this process; `relay.links.process` has the same in
another one, whose body uses `LocalEnds` again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from relay.errors import NotFound
from relay.ids import HybridClock
from relay.link import messages
from relay.link.dial import ConnectionName, LinkClient, Route
from relay.link.hooks import OriginHooks, SubscriberHooks
from relay.link.quic import Endpoint, HeldTickets, Identity, open_endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.roq import ALPN as ROQ_ALPN
from relay.link.serve import LinkServer
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
        self._exits = AsyncExitStack()
        self._primary: Endpoint
        self._backup: Endpoint

    async def open(self) -> None:
        settings, tickets = self._settings, HeldTickets()
        async with AsyncExitStack() as stack:

            def opened(endpoint: Endpoint) -> Endpoint:
                stack.push_async_callback(endpoint.close)
                return endpoint

            served = opened(open_endpoint(settings, self._identity, alpns=(H3_ALPN, ROQ_ALPN)))
            self._primary, self._backup = (
                opened(open_endpoint(settings, self._identity, host=host, port=0, interface=interface, tickets=tickets))
                for host, interface in (
                    (settings.primary_host, settings.primary_interface),
                    (settings.backup_host, settings.backup_interface),
                )
            )
            self.server = LinkServer(served, self._node, self._origin, self._clock, settings.flow, settings.breaker)
            self.server.start()
            stack.push_async_callback(self.server.close)
            self._exits = stack.pop_all()

    async def close(self) -> None:
        await self._exits.aclose()

    def dial(self, node: str, addresses: Sequence[str], hooks: SubscriberHooks) -> LinkClient:
        primary = remote_of(addresses[0])
        backup = remote_of(addresses[1]) if len(addresses) > 1 else primary
        routes: Mapping[ConnectionName, Route] = {
            "metadata": Route(self._primary, primary),
            "primary": Route(self._primary, primary),
            "backup": Route(self._backup, backup),
        }
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

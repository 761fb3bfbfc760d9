"""One machine's end of the two links of a worker: one is served, with what is offered here, the other is dialled."""

from __future__ import annotations

from contextlib import AsyncExitStack

from relay.clock import now_us
from relay.ids import HybridClock
from relay.link.dial import ConnectionName, LinkClient, Route
from relay.link.quic import Endpoint, HeldTickets, Identity, open_endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.roq import ALPN as ROQ_ALPN
from relay.link.serve import LinkServer
from relay.link.transport import Remote
from relay.settings import LinkFlowSettings, LinkSettings
from relay.workers.streams import Offers, Takes

PING_MS = 250
"""How often each asks whether the other is there: four times in the least that `mix.video.hang_ms` may be."""


class LinkEnds:
    """Use `open` on the running loop, then `dial`; `close` at the end."""

    def __init__(self, identity: Identity, peer: str, address: str, offers: Offers, takes: Takes) -> None:
        """`address` is one of this machine's, at which the peer reaches it."""
        self._settings = LinkSettings(host=address, port=0, flow=LinkFlowSettings(ping_ms=PING_MS))
        self._identity, self._peer = identity, peer
        self._offers, self._takes = offers, takes
        self._exits = AsyncExitStack()
        self._clock = HybridClock()
        self._served: Endpoint
        self._dialled: dict[ConnectionName, Endpoint] = {}
        self._client: LinkClient | None = None

    async def open(self) -> int:
        """Open the sockets and serve; returns the port. Raises SettingsError when one cannot be opened."""
        settings, flow = self._settings, self._settings.flow
        async with AsyncExitStack() as stack:

            def opened(endpoint: Endpoint) -> Endpoint:
                stack.push_async_callback(endpoint.close)
                return endpoint

            self._served = opened(open_endpoint(settings, self._identity, alpns=(H3_ALPN, ROQ_ALPN)))
            tickets = HeldTickets()
            primary, backup = (opened(open_endpoint(settings, self._identity, tickets=tickets)) for _ in range(2))
            self._dialled = {"metadata": primary, "primary": primary, "backup": backup}
            server = LinkServer(self._served, self._identity.name, self._offers, self._clock, flow, settings.breaker)
            self._offers.serve(server)
            server.start()
            stack.push_async_callback(server.close)
            self._exits = stack.pop_all()
        return self._served.address[1]

    def dial(self, remote: Remote) -> None:
        """Subscribe to all that the peer offers there, and go on dialling."""
        routes = {name: Route(endpoint, remote) for name, endpoint in self._dialled.items()}
        client = LinkClient(self._identity.name, self._peer, routes, self._takes, self._clock, self._settings.flow)
        self._client = client
        self._takes.subscribe, self._takes.unsubscribe = client.subscribe, client.unsubscribe
        client.start()
        self._exits.push_async_callback(client.close)

    @property
    def joined(self) -> bool:
        """Packets can go both ways."""
        server = self._offers.server
        served = server is not None and any("primary" in link.paths for link in server.links.values())
        return served and self._client is not None and {"metadata", "primary"} <= set(self._client.connected)

    @property
    def silence(self) -> int:
        """µs since the peer last said anything by the link that was dialled."""
        return now_us() - self._client.heard_at if self._client is not None else 0

    @property
    def trouble(self) -> str:
        """Why connections could not be had, or were lost last."""
        errors = self._client.last_error if self._client is not None else {}
        return "; ".join(f"{name}: {reason}" for name, reason in errors.items())

    async def close(self) -> None:
        """End the links and close the sockets. Repeatable."""
        await self._exits.aclose()

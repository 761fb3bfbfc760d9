"""One machine's end of the two links of a worker: one is served, with what is offered here, the other is dialled."""

from __future__ import annotations

from relay.clock import now_us
from relay.ids import HybridClock
from relay.link.dial import LinkClient
from relay.link.quic import Identity
from relay.link.sockets import Sockets, open_sockets
from relay.link.transport import Remote
from relay.settings import LinkFlowSettings, LinkSettings
from relay.workers.streams import Offers, Takes

PING_MS = 250
"""How often each asks whether the other is there: four times in the least that `mix.video.hang_ms` may be."""


class LinkEnds:
    """Use `open` on the running loop, then `dial`; `close` at the end."""

    def __init__(self, identity: Identity, peer: str, address: str, offers: Offers, takes: Takes) -> None:
        """`address` is one of this machine's, at which the peer reaches it."""
        flow = LinkFlowSettings(ping_ms=PING_MS)
        self._settings = LinkSettings(host=address, primary_host=address, backup_host=address, port=0, flow=flow)
        self._identity, self._peer = identity, peer
        self._offers, self._takes = offers, takes
        self._clock = HybridClock()
        self._sockets: Sockets | None = None
        self._client: LinkClient | None = None

    async def open(self) -> int:
        """Open the sockets and serve; returns the port. Raises SettingsError when one cannot be opened."""
        identity = self._identity
        self._sockets = await open_sockets(self._settings, identity, identity.name, self._offers, self._clock)
        self._offers.serve(self._sockets.server)
        return self._sockets.port

    def dial(self, remote: Remote) -> None:
        """Subscribe to all that the peer offers there, and go on dialling."""
        assert self._sockets is not None
        routes, flow = self._sockets.routes(remote, remote), self._settings.flow
        self._client = client = LinkClient(self._identity.name, self._peer, routes, self._takes, self._clock, flow)
        self._takes.subscribe, self._takes.unsubscribe = client.subscribe, client.unsubscribe
        client.start()
        self._sockets.exits.push_async_callback(client.close)

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
        if self._sockets is not None:
            await self._sockets.exits.aclose()

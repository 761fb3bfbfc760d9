"""The sockets of one end of links: the one that others dial, and two to dial by, one for each path."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from relay.ids import HybridClock
from relay.link.dial import ConnectionName, Route
from relay.link.hooks import OriginHooks
from relay.link.quic import Endpoint, HeldTickets, Identity, open_endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.roq import ALPN as ROQ_ALPN
from relay.link.serve import LinkServer
from relay.link.transport import Remote
from relay.settings import LinkSettings


@dataclass(frozen=True, slots=True)
class Sockets:
    """Made by `open_sockets`; `exits` closes all of it, and first what was added to it since."""

    server: LinkServer
    port: int
    """Where `server` is dialled."""
    primary: Endpoint
    backup: Endpoint
    exits: AsyncExitStack

    def routes(self, primary: Remote, backup: Remote) -> dict[ConnectionName, Route]:
        """How to dial somebody who has these addresses."""
        return {
            "metadata": Route(self.primary, primary),
            "primary": Route(self.primary, primary),
            "backup": Route(self.backup, backup),
        }


async def open_sockets(
    settings: LinkSettings, identity: Identity, node: str, origin: OriginHooks, clock: HybridClock
) -> Sockets:
    """Open them on the running loop and serve. Raises SettingsError when one cannot be opened; none stays open then."""
    tickets = HeldTickets()
    async with AsyncExitStack() as stack:

        def opened(endpoint: Endpoint) -> Endpoint:
            stack.push_async_callback(endpoint.close)
            return endpoint

        served = opened(open_endpoint(settings, identity, alpns=(H3_ALPN, ROQ_ALPN)))
        primary, backup = (
            opened(open_endpoint(settings, identity, host=host, port=0, interface=interface, tickets=tickets))
            for host, interface in (
                (settings.primary_host, settings.primary_interface),
                (settings.backup_host, settings.backup_interface),
            )
        )
        server = LinkServer(served, node, origin, clock, settings.flow, settings.breaker)
        server.start()
        stack.push_async_callback(server.close)
        return Sockets(server, served.address[1], primary, backup, stack.pop_all())

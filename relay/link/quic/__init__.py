"""`relay.link.transport` over aioquic: our own endpoint, identities checked on both sides, path MTU discovery."""

from __future__ import annotations

from pathlib import Path

from relay.link.quic.connection import Connection
from relay.link.quic.endpoint import Endpoint
from relay.link.quic.host import Limits
from relay.link.quic.identity import Identity, load_identity
from relay.link.quic.tickets import HeldTickets
from relay.settings import LinkSettings

__all__ = ["Connection", "Endpoint", "HeldTickets", "Identity", "Limits", "identity_of", "open_endpoint"]


def identity_of(settings: LinkSettings) -> Identity | None:
    """Return who this node is on links, or None when no certificate is set. Raises SettingsError for bad files."""
    if not settings.certificate:
        return None
    return load_identity(Path(settings.certificate), Path(settings.key), Path(settings.ca))


def open_endpoint(
    settings: LinkSettings,
    identity: Identity,
    *,
    host: str | None = None,
    port: int | None = None,
    alpns: tuple[str, ...] = (),
    interface: str = "",
    tickets: HeldTickets | None = None,
) -> Endpoint:
    """Open an endpoint on the running loop: a server's with `alpns`, else one that only dials.

    `host` and `port` default to the settings'; a dialler of a second path takes another address, port 0 or `interface`,
    and shares `tickets` with the first. Raises SettingsError when the socket cannot be opened.
    """
    limits = Limits(
        max_packet=settings.max_packet_bytes,
        queue_bytes=settings.queue_bytes,
        queue_age_s=settings.queue_age_ms / 1000,
        keepalive_s=settings.keepalive_ms / 1000,
        handshake_s=settings.handshake_timeout_s,
    )
    return Endpoint(
        identity,
        settings.host if host is None else host,
        settings.port if port is None else port,
        alpns=alpns,
        limits=limits,
        idle_timeout_s=settings.idle_timeout_s,
        max_handshakes=settings.max_handshakes,
        socket_buffer=settings.socket_buffer_bytes,
        interface=interface,
        tickets=tickets,
    )

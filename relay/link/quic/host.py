"""What a connection is given by its endpoint: the socket, its place in the routes, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relay.link.quic.adapter import Wire

if TYPE_CHECKING:
    from relay.link.quic.connection import Connection


class Host(Protocol):
    """What a connection needs of its endpoint."""

    def send(self, datagrams: list[tuple[bytes, Wire]]) -> None: ...
    def route(self, connection_id: bytes, connection: Connection) -> None: ...
    def unroute(self, connection_id: bytes) -> None: ...
    def want_transmit(self, connection: Connection) -> None: ...
    def linger(self, connection: Connection, last: list[tuple[bytes, Wire]]) -> None: ...
    def announced(self, connection: Connection) -> None: ...
    def ready(self, connection: Connection) -> None: ...
    def ended(self, connection: Connection, reason: str, *, refused: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection; see `LinkSettings`."""

    max_packet: int = 1452
    queue_bytes: int = 2_000_000
    queue_age_s: float = 0.2
    keepalive_s: float = 0.1
    handshake_s: float = 3.0

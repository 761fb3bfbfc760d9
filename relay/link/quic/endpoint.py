"""One UDP socket with many QUIC connections: a `relay.link.transport.Endpoint` over aioquic without its asyncio part.

A wake-up drains at most 64 datagrams, hands each to its connection by connection id, and settles every connection that
got one: one transmit per batch. What is sent in between leaves once per loop tick.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation
from aioquic.tls import SessionTicket

from relay.errors import UsageError
from relay.link import varint
from relay.link.quic import identity as identities
from relay.link.quic import window
from relay.link.quic.adapter import Quic, Wire, configure
from relay.link.quic.connection import Connection
from relay.link.quic.goodbyes import Goodbyes
from relay.link.quic.host import Limits
from relay.link.quic.identity import Identity
from relay.link.quic.sockets import open_socket
from relay.link.quic.tickets import Held, HeldTickets, Issued, IssuedTickets
from relay.link.quic.tokens import AddressTokens
from relay.link.transport import HandshakeFailed, Remote

BATCH = 64  # datagrams per wake-up
ID_BYTES = 8  # of our connection ids
SMALLEST_INITIAL = 1200  # bytes, RFC 9000 section 14.1
_READ = 65_536
_VERSION_1 = b"\0\0\0\1"
_LONG, _FIXED, _INITIAL_MASK = 0x80, 0x40, 0x30
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class EndpointCounts:
    """What the socket saw. `dropped` is by cause: `stray`, `malformed`, `busy`, `send`."""

    received: int = 0
    sent: int = 0
    retries: int = 0
    versions: int = 0
    refused: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def _ignore(*_: Any) -> None:
    """The callback until one is set."""


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Endpoint:
    """See `relay.link.transport.Endpoint`. With `alpns` it also serves; without, it only dials."""

    def __init__(
        self,
        identity: Identity,
        host: str,
        port: int,
        *,
        alpns: tuple[str, ...] = (),
        limits: Limits | None = None,
        idle_timeout_s: float = 10.0,
        max_handshakes: int = 64,
        socket_buffer: int = 4 << 20,
        interface: str = "",
        tickets: HeldTickets | None = None,
    ) -> None:
        """Bind the socket on the running loop. Raises SettingsError when that fails."""
        self.on_connection: Callable[[Any], None] = _ignore  # takes a Connection, or the transport's Protocol of it
        self.on_refused: Callable[[Remote, str], None] = _ignore
        self.counts = EndpointCounts()
        self.tickets = tickets if tickets is not None else HeldTickets()
        self._identity = identity
        self._alpns = alpns
        self._limits = limits or Limits()
        self._idle_timeout_s = idle_timeout_s
        self._max_handshakes = max_handshakes
        self._bind = (interface, socket_buffer)
        self._loop = asyncio.get_running_loop()
        self._tokens = AddressTokens()
        self._issued = IssuedTickets()
        self._routes: dict[bytes, Connection] = {}
        self._ids: dict[Connection, set[bytes]] = {}
        self._handshakes: set[Connection] = set()
        self._dirty: set[Connection] = set()
        self._goodbyes = Goodbyes()
        self._tick: asyncio.Handle | None = None
        self._closed = False
        self._socket = open_socket(host, port, interface, socket_buffer)
        self._loop.add_reader(self._socket.fileno(), self._readable)

    # --- the interface -------------------------------------------------------------------------------------------

    @property
    def address(self) -> Remote:
        name = self._socket.getsockname()
        return str(name[0]), int(name[1])

    @property
    def connections(self) -> tuple[Connection, ...]:
        return tuple(self._ids)

    async def connect(
        self,
        remote: Remote,
        alpn: str,
        expected_name: str,
        *,
        path: str = "",
        early: bool = True,
        timeout_s: float | None = None,
    ) -> Connection:
        """See `Transport.connect`."""
        if self._closed:
            raise UsageError("the endpoint is closed")
        address = await self._resolve(remote)
        key = (expected_name, alpn, path)
        held = self.tickets.take(key, _utc()) if early else None
        configuration = configure(
            client=True,
            alpns=[alpn],
            certificate=self._identity.certificate,
            key=self._identity.key,
            server_name=expected_name,
            session_ticket=held.ticket if held else None,
            token=self.tickets.token(address),
            idle_timeout=self._idle_timeout_s,
            congestion_control_algorithm=window.NAME,
            connection_id_length=ID_BYTES,
        )
        quic = Quic(
            check=lambda leaf, chain: self._check(leaf, chain, expected_name),
            configuration=configuration,
            session_ticket_handler=lambda ticket: self._keep(connection, key, ticket),
            token_handler=lambda token: self.tickets.put_token(address, token),
        )
        connection: Connection = Connection(self, quic, self._limits, peer=expected_name, is_client=True)
        if held is not None:
            connection.until = held.until
        self._ids[connection] = set()
        self.route(quic.host_cid, connection)
        quic.connect(address, time.monotonic())
        connection.settle(time.monotonic())
        if held is not None and not connection.closed and connection.max_datagram:
            connection.alpn, connection.early = alpn, True
            connection.dial_done()
            return connection
        try:
            async with asyncio.timeout(timeout_s):
                await connection.wait_ready()
        except BaseException:
            connection.close("given up")
            raise
        return connection

    async def close(self, reason: str = "") -> None:
        if self._closed:
            return
        for connection in tuple(self._ids):
            connection.close(reason or "the node stops")
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def rebind(self, host: str, port: int) -> None:
        """Move all connections to a new local address; servers follow. Raises SettingsError and stays when it fails."""
        fresh = open_socket(host, port, *self._bind)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = fresh
        self._loop.add_reader(fresh.fileno(), self._readable)
        for connection in tuple(self._ids):
            connection.ping()

    # --- what connections call -----------------------------------------------------------------------------------

    def send(self, datagrams: list[tuple[bytes, Wire]]) -> None:
        sendto = self._socket.sendto
        self.counts.sent += len(datagrams)
        for data, address in datagrams:
            try:
                sendto(data, address)
            except OSError:  # full, too long for the interface, no route: to QUIC all are loss
                self.counts.dropped["send"] += 1

    def route(self, connection_id: bytes, connection: Connection) -> None:
        if connection in self._ids:
            self._routes[connection_id] = connection
            self._ids[connection].add(connection_id)

    def unroute(self, connection_id: bytes) -> None:
        connection = self._routes.pop(connection_id, None)
        if connection is not None:
            self._ids[connection].discard(connection_id)

    def want_transmit(self, connection: Connection) -> None:
        self._dirty.add(connection)
        if self._tick is None and not self._closed:
            self._tick = self._loop.call_soon(self._settle_dirty)

    def linger(self, connection: Connection, last: list[tuple[bytes, Wire]]) -> None:
        self._goodbyes.keep(self._ids.get(connection, ()), last, time.monotonic())

    def announced(self, connection: Connection) -> None:
        self.on_connection(connection)

    def ready(self, connection: Connection) -> None:
        self._handshakes.discard(connection)

    def ended(self, connection: Connection, reason: str, *, refused: bool) -> None:
        self._handshakes.discard(connection)
        self._dirty.discard(connection)
        for connection_id in self._ids.pop(connection, ()):
            self._routes.pop(connection_id, None)
        if refused or not connection.is_ready:
            self.counts.refused += 1
            log.warning("link refused", remote=connection.remote, peer=connection.peer, reason=reason)
            self.on_refused(connection.remote, reason)

    def _settle_dirty(self) -> None:
        self._tick = None
        dirty, self._dirty = self._dirty, set()
        now = time.monotonic()
        for connection in dirty:
            connection.settle(now)

    def _readable(self) -> None:
        receive = self._socket.recvfrom
        take = self.take
        touched: dict[Connection, None] = {}
        now = time.monotonic()
        for _ in range(BATCH):
            try:
                data, address = receive(_READ)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # an ICMP error of an earlier packet
                continue
            if (connection := take(data, address, now)) is not None:
                touched[connection] = None
        for connection in touched:
            self._dirty.discard(connection)
            connection.settle(now)

    def take(self, data: bytes, address: Wire, now: float) -> Connection | None:
        """Hand a datagram to its connection and return that: it has to be settled. None when it is nobody's."""
        self.counts.received += 1
        if len(data) < 1 + ID_BYTES:
            self.counts.dropped["malformed"] += 1
            return None
        name = data[1 : 1 + ID_BYTES] if data[0] < _LONG else data[6 : 6 + data[5]]
        connection = self._routes.get(name)
        if connection is None:
            if name in self._goodbyes:
                self.send(self._goodbyes.again(name, now))
                return None
            connection = self._stranger(data, address, name, now)
        if connection is not None:
            connection.receive(data, address, now)
        return connection

    def _stranger(self, data: bytes, address: Wire, name: bytes, now: float) -> Connection | None:
        """A datagram that belongs to nobody: at most one small answer, and nothing is remembered of it."""
        if not self._alpns or data[0] & (_LONG | _FIXED) != _LONG | _FIXED or len(data) < SMALLEST_INITIAL:
            self.counts.dropped["stray"] += 1
            return None
        source_at = 6 + data[5]
        source = data[source_at + 1 : source_at + 1 + data[source_at]] if source_at < len(data) else b""
        if len(name) > 20 or len(name) != data[5] or len(source) > 20 or source_at + 1 + len(source) >= len(data):
            self.counts.dropped["malformed"] += 1
            return None
        if data[1:5] != _VERSION_1:
            if data[1:5] != b"\0\0\0\0":  # never answer version negotiation with version negotiation
                self.counts.versions += 1
                self.send([(encode_quic_version_negotiation(name, source, [1]), address)])
            return None
        if data[0] & _INITIAL_MASK or len(name) < 8:  # RFC 9000 section 7.2: at least 8 bytes
            self.counts.dropped["stray"] += 1
            return None
        return self._initial(address, name, source, _token(data, source_at + 1 + len(source)), now)

    def _initial(self, address: Wire, name: bytes, source: bytes, token: bytes | None, now: float) -> Connection | None:
        if token is None:
            self.counts.dropped["malformed"] += 1
            return None
        host, port = address[0], address[1]
        original = self._tokens.check_retry(host, port, name, token, now) if token else None
        retried = name if original is not None else None
        if original is None:
            if not (token and self._tokens.check_lasting(host, token, now)):
                self._retry(address, name, source, now)
                return None
            original = name
        if len(self._handshakes) >= self._max_handshakes:
            self.counts.dropped["busy"] += 1
            return None
        return self._accept(host, name, original, retried, now)

    def _retry(self, address: Wire, name: bytes, source: bytes, now: float) -> None:
        ours = os.urandom(ID_BYTES)
        token = self._tokens.retry(address[0], address[1], name, ours, now)
        self.counts.retries += 1
        self.send([(encode_quic_retry(1, ours, source, name, token), address)])

    def _accept(self, host: str, name: bytes, original: bytes, retried: bytes | None, now: float) -> Connection:
        configuration = configure(
            client=False,
            alpns=list(self._alpns),
            certificate=self._identity.certificate,
            key=self._identity.key,
            idle_timeout=self._idle_timeout_s,
            congestion_control_algorithm=window.NAME,
            connection_id_length=ID_BYTES,
        )
        quic = Quic(
            check=lambda leaf, chain: self._check(leaf, chain, None),
            lasting_token=self._tokens.lasting(host, now),
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
            session_ticket_fetcher=lambda label: self._resume(connection, label),
            session_ticket_handler=lambda ticket: self._issue(connection, ticket),
        )
        connection: Connection = Connection(self, quic, self._limits, peer="", is_client=False)
        self._ids[connection] = set()
        self._handshakes.add(connection)
        self.route(name, connection)
        self.route(quic.host_cid, connection)
        return connection

    def _check(self, leaf: Any, chain: Any, expected: str | None) -> None:
        identities.check_peer(leaf, chain, self._identity.authorities, _utc(), expected)

    def _resume(self, connection: Connection, label: bytes) -> SessionTicket | None:
        issued = self._issued.take(label, connection.quic.alpn, _utc())
        if issued is None:
            return None
        connection.peer, connection.until = issued.peer, issued.until
        return issued.ticket

    def _issue(self, connection: Connection, ticket: SessionTicket) -> None:
        """Called while the handshake ends: the peer's certificate has been checked, or its ticket has."""
        if not connection.quic.resumed:
            connection.take_identity()
        self._issued.put(Issued(ticket, connection.peer, connection.quic.alpn or "", connection.until))

    def _keep(self, connection: Connection, key: tuple[str, str, str], ticket: SessionTicket) -> None:
        if not connection.quic.resumed:
            connection.take_identity()
        self.tickets.put(key, Held(ticket, connection.until))

    async def _resolve(self, remote: Remote) -> Wire:
        try:
            found = await self._loop.getaddrinfo(*remote, family=self._socket.family, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise HandshakeFailed(f"{remote[0]}: {error.strerror or error}") from None
        return tuple(found[0][4])


def _token(data: bytes, at: int) -> bytes | None:
    """The token of an Initial packet at offset `at`; None when it is cut off."""
    with suppress(varint.Malformed):
        length, start = varint.decode(data, at)
        if start + length <= len(data):
            return data[start : start + length]
    return None

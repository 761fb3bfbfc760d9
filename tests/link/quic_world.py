"""Real endpoints on loopback sockets, certificates good and bad, and a UDP proxy that does harm."""

from __future__ import annotations

import asyncio
import atexit
import datetime
import functools
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from costream import ca
from relay.link.quic import Connection, Endpoint, HeldTickets, Identity, Limits
from relay.link.quic.identity import URI_PREFIX, load_identity

UTC = datetime.UTC
ROQ = "roq-14"
PATIENCE_S = 20.0  # for things that surely happen; no test decides by it


def cluster(name: str = "one") -> Path:
    """A directory with an authority of its own and the nodes a and b."""
    return _made(name)


@functools.cache
def _made(name: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=f"costream-ca-{name}-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    ca.init(directory)
    for node in ("a", "b"):
        ca.issue(directory, node)
    return directory


def identity(node: str, of: str = "one", trusts: str | None = None) -> Identity:
    """Node `node` of a cluster; `trusts` names another cluster whose authority it believes instead."""
    directory = cluster(of)
    own = load_identity(directory / f"{node}.pem", directory / f"{node}.key", directory / "ca.pem")
    return Identity(own.name, own.certificate, own.key, authorities(trusts or of))


def authorities(of: str = "one") -> tuple[x509.Certificate, ...]:
    return (x509.load_pem_x509_certificate((cluster(of) / "ca.pem").read_bytes()),)


def forged(
    *,
    uris: Sequence[str] = (URI_PREFIX + "b",),
    days: tuple[float, float] = (-1, 1),
    uses: Sequence[Any] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    dns: str = "b",
) -> Identity:
    """A certificate that the cluster's authority signed, wrong in a way that `costream ca` does not offer."""
    directory = cluster()
    signer = load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.DNSName(dns), *(x509.UniformResourceIdentifier(uri) for uri in uris)]
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(x509.Name([]))
        .issuer_name(authorities()[0].subject)
        .public_key(key.public_key())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Identity("b", certificate, key, authorities())


@dataclass
class Record:
    """What one connection told."""

    connection: Connection
    datagrams: list[bytes] = field(default_factory=list)
    early: list[bytes] = field(default_factory=list)
    streams: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    acked: list[object] = field(default_factory=list)
    lost: list[object] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection.on_datagrams = self._datagrams
        self.connection.on_stream = self._stream
        self.connection.on_acked = self.acked.extend
        self.connection.on_lost = self.lost.extend
        self.connection.on_closed = self.closed.append
        self.connection.on_max_datagram = self.sizes.append

    def _datagrams(self, batch: list[bytes]) -> None:
        self.datagrams += batch
        if self.connection.early:
            self.early += batch

    def _stream(self, stream: int, data: bytes, ended: bool) -> None:
        self.streams[stream] = self.streams.get(stream, b"") + data
        if ended:
            self.ended.add(stream)


class Node:
    """An endpoint and records of the connections that others made to it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.records: list[Record] = []
        self.refused: list[str] = []
        endpoint.on_connection = lambda connection: self.records.append(Record(connection))
        endpoint.on_refused = lambda remote, reason: self.refused.append(reason)

    async def dial(self, remote: tuple[str, int], name: str = "a", alpn: str = ROQ, **more: Any) -> Record:
        return Record(await self.endpoint.connect(remote, alpn, name, **more))


@asynccontextmanager
async def node(
    who: Identity | str, *, serves: bool = False, limits: Limits | None = None, port: int = 0, **more: Any
) -> AsyncIterator[Node]:
    """An endpoint that is closed however the test ends, and leaves nothing behind."""
    endpoint = Endpoint(
        identity(who) if isinstance(who, str) else who,
        "127.0.0.1",
        port,
        alpns=(ROQ, "h3") if serves else (),
        limits=limits or Limits(handshake_s=5.0),
        **more,
    )
    try:
        yield Node(endpoint)
    finally:
        await endpoint.close()
        assert endpoint.connections == ()
        assert endpoint._routes == {}
        assert endpoint._socket.fileno() == -1


@asynccontextmanager
async def pair(
    *, server: Limits | None = None, client: Limits | None = None, tickets: HeldTickets | None = None
) -> AsyncIterator[tuple[Node, Node]]:
    """Nodes a, which serves, and b, which dials."""
    async with node("a", serves=True, limits=server) as a, node("b", limits=client, tickets=tickets) as b:
        yield a, b


async def until(met: Callable[[], Any], what: str = "") -> None:
    """Wait for something that surely happens."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not met():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not happen: {what or met}") from None


async def linked(a: Node, b: Node, remote: tuple[str, int] | None = None, **more: Any) -> tuple[Record, Record]:
    """A connection from b to a, known to both: the dialler's record and the server's."""
    before = len(a.records)
    dialled = await b.dial(remote or a.endpoint.address, **more)
    await dialled.connection.wait_ready()
    await until(lambda: len(a.records) > before and a.records[-1].connection.is_ready, "the server's side is ready")
    return dialled, a.records[-1]


class Proxy:
    """UDP between clients and one server. `harm(datagram, towards_server)` names the datagrams that vanish."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.harm: Callable[[bytes, bool], bool] = lambda data, towards_server: False
        self.to_server: list[bytes] = []
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._front = self._open(self._from_client)
        self._backs: dict[Any, socket.socket] = {}

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._front.getsockname()
        return host, port

    def deliver_later(self, data: bytes, towards_server: bool, delay_s: float) -> None:
        """Forward a datagram of the one client after a while."""
        client, back = next(iter(self._backs.items()))
        send, to = (back.sendto, self._server) if towards_server else (self._front.sendto, client)

        def deliver() -> None:
            if self._front.fileno() >= 0:
                send(data, to)

        self._loop.call_later(delay_s, deliver)

    def close(self) -> None:
        for each in (self._front, *self._backs.values()):
            self._loop.remove_reader(each.fileno())
            each.close()

    def _open(self, reader: Callable[[socket.socket], None]) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        opened.bind(("127.0.0.1", 0))
        self._loop.add_reader(opened.fileno(), reader, opened)
        return opened

    def _from_client(self, front: socket.socket) -> None:
        for data, address in _drain(front):
            if address not in self._backs:
                self._backs[address] = self._open(functools.partial(self._from_server, address))
            if not self.harm(data, True):
                self.to_server.append(data)
                self._backs[address].sendto(data, self._server)

    def _from_server(self, client: Any, back: socket.socket) -> None:
        for data, _ in _drain(back):
            if not self.harm(data, False):
                self._front.sendto(data, client)


def _drain(opened: socket.socket) -> list[tuple[bytes, Any]]:
    found = []
    while True:
        try:
            found.append(opened.recvfrom(65_536))
        except OSError:
            return found


@asynccontextmanager
async def proxy(server: tuple[str, int]) -> AsyncIterator[Proxy]:
    made = Proxy(server)
    try:
        yield made
    finally:
        made.close()

"""What a stranger, and a node gone bad, can throw at a relay's link port. Run on a host of a cluster's fabric:

`python tests/drills/hostile.py HOST PORT NODE GOOD BAD`: `GOOD` and `BAD` are directories of `costream ca`, that of the
cluster and another, both with a certificate for `hostile`; NODE is the relay's name. Prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from relay.errors import PeerError
from relay.link import flows, roq
from relay.link import messages as m
from relay.link.metadata import MetadataChannel
from relay.link.quic import Connection, Endpoint, HeldTickets, Limits
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.quic.identity import Identity, load_identity
from relay.link.transport import HandshakeFailed, Remote
from relay.settings import LinkFlowSettings

NAME = "hostile"
INITIALS = 10_000
_PER_TURN, _TURN_S = 20, 0.01
_WAIT_S = 10.0
_TRIES = 4
_FILES = (f"{NAME}.pem", f"{NAME}.key", "ca.pem")


def first_datagram(number: int) -> bytes:
    """A well-formed Initial of a client that nobody knows."""
    configuration = QuicConfiguration(alpn_protocols=[roq.ALPN], server_name=f"n{number}", supported_versions=[1])
    client = QuicConnection(configuration=configuration)
    client.connect(("127.0.0.1", 1), 0.0)
    return client.datagrams_to_send(0.0)[0][0]


def flood(remote: Remote) -> int:
    """Send Initials, half of them well-formed, each with a connection id of its own. Returns how many."""
    dice = Random(7)
    known = [first_datagram(number) for number in range(20)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        for number in range(INITIALS):
            if number % 2:
                data = bytearray(known[number % len(known)])
                data[6:14] = dice.randbytes(8)
            else:
                data = bytearray(b"\xc3\0\0\0\1\x08" + dice.randbytes(8) + b"\x08" + dice.randbytes(1200))
            opened.sendto(bytes(data), remote)
            if number % _PER_TURN == 0:
                time.sleep(_TURN_S)
    return INITIALS


def endpoint(directory: Path, host: str, **more: Any) -> Endpoint:
    own = load_identity(*(directory / file for file in _FILES))
    return Endpoint(own, host, 0, limits=Limits(handshake_s=_WAIT_S), **more)


async def dialled(ours: Endpoint, remote: Remote, alpn: str, node: str) -> Connection:
    """A connection that the relay has taken; a busy machine may need more than one try."""
    for _ in range(_TRIES):
        try:
            return await ours.connect(remote, alpn, node, early=False)
        except HandshakeFailed:
            await asyncio.sleep(1.0)
    raise HandshakeFailed(f"{node} was not reached in {_TRIES} tries")


async def closed(connection: Connection) -> str:
    """Wait until the relay ends a connection; why."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    connection.on_closed = lambda reason: None if ended.done() else ended.set_result(reason)
    async with asyncio.timeout(_WAIT_S):
        return await ended


async def wrong_authority(good: Path, bad: Path, host: str, remote: Remote, node: str) -> str:
    """Show a certificate of another CA, and believe the cluster's: the refusal is the relay's."""
    shown, believed = (load_identity(*(one / file for file in _FILES)) for one in (bad, good))
    own = Identity(shown.name, shown.certificate, shown.key, believed.authorities)
    theirs = Endpoint(own, host, 0, limits=Limits(handshake_s=_WAIT_S))
    try:
        return await closed(await theirs.connect(remote, roq.ALPN, node))  # TLS 1.3: a client may be done first
    except PeerError as error:
        return str(error)
    finally:
        await theirs.close()


async def channel_to(ours: Endpoint, remote: Remote, node: str) -> MetadataChannel:
    connection = await dialled(ours, remote, H3_ALPN, node)
    return MetadataChannel(connection, LinkFlowSettings(), time.monotonic_ns() // 1000)


async def refused(channel: MetadataChannel, first: bytes) -> str:
    """Begin a metadata channel with these bytes; why it was closed."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    channel.on_closed = ended.set_result
    channel.open()
    assert channel._stream is not None
    channel._http.send(channel._stream, first)
    async with asyncio.timeout(_WAIT_S):
        return await ended


async def bad_messages(ours: Endpoint, remote: Remote, node: str) -> dict[str, str]:
    link = secrets.token_hex(16)
    hello = m.encode(m.Hello(node=NAME, link=link), 4096)
    liar = m.encode(m.Hello(node="relay-b", link=link), 4096)
    catalog = m.encode(m.Catalog(version=1), 4096)
    said = {
        "no JSON": b"\0\0\0\4{{{{",
        "too long": b"\xff\xff\xff\xff" + bytes(100),
        "another's name": liar,
        "garbage after hello": hello + b"\0\0\0\2[]",
        "an origin's message": hello + catalog,
    }
    return {what: await refused(await channel_to(ours, remote, node), data) for what, data in said.items()}


async def bad_media(ours: Endpoint, remote: Remote, node: str) -> dict[str, Any]:
    """Bind paths wrongly, and then one rightly, to send what is no RoQ and no RTCP on it."""
    found: dict[str, Any] = {}
    link = secrets.token_hex(16)
    channel = await channel_to(ours, remote, node)
    channel.open()
    channel.send(m.Hello(node=NAME, link=link))
    for what, bind in (
        ("no such link", m.encode(m.Bind(link="0" * 32, path="primary", generation=1), 4096)),
        ("no bind", b"\0\0\0\5hello"),
    ):
        connection = await dialled(ours, remote, roq.ALPN, node)
        connection.send_stream(connection.open_stream(), bind, True)
        found[what] = await closed(connection)
    await asyncio.sleep(0.5)
    connection = await dialled(ours, remote, roq.ALPN, node)
    connection.send_stream(
        connection.open_stream(), m.encode(m.Bind(link=link, path="primary", generation=9), 4096), True
    )
    await asyncio.sleep(0.5)
    dice = Random(3)
    for number in range(1000):
        flow = flows.feedback_of(4 * (number % 8))
        junk = (b"", b"\xff", dice.randbytes(30), roq.frame(flow, dice.randbytes(40)), roq.frame(flow, b"\x80\xc9\0\1"))
        connection.send_datagram(junk[number % len(junk)] or b"\0")
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    found["path with junk is open"] = not connection.closed
    connection.close()
    channel.close("done")
    return found


async def replay(good: Path, host: str, remote: Remote, node: str) -> dict[str, Any]:
    """Record a flight with 0-RTT, and send it again from the same and from another port."""
    ours = endpoint(good, host, tickets=HeldTickets())
    sent: list[bytes] = []
    send = ours.send

    def recording(datagrams: list[Any]) -> None:
        sent.extend(data for data, _ in datagrams)
        send(datagrams)

    try:
        first = await dialled(ours, remote, roq.ALPN, node)
        await asyncio.sleep(1.0)  # tickets come after the handshake
        first.close()
        ours.send = recording  # type: ignore[method-assign]
        again = await ours.connect(remote, roq.ALPN, node)
        early = again.early
        again.send_datagram(roq.frame(5, b"\x80\xc9\0\1\0\0\0\0"))
        await again.wait_ready()
        again.close()
        recorded = list(sent)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            for data in recorded * 20:
                ours._socket.sendto(data, remote)
                other.sendto(data, remote)
        await asyncio.sleep(0.5)
        return {"early": early, "recorded": len(recorded)}
    finally:
        await ours.close()


async def attack(remote: Remote, node: str, good: Path, bad: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(remote)
        host = probe.getsockname()[0]
    found: dict[str, Any] = {"initials": flood(remote)}
    found["wrong authority"] = await wrong_authority(good, bad, host, remote, node)
    ours = endpoint(good, host)
    try:
        found |= await bad_messages(ours, remote, node)
        found |= await bad_media(ours, remote, node)
    finally:
        await ours.close()
    return found | {"replay": await replay(good, host, remote, node)}


if __name__ == "__main__":
    address, port, relay, *directories = sys.argv[1:]
    print(json.dumps(asyncio.run(attack((address, int(port)), relay, Path(directories[0]), Path(directories[1])))))

"""Joins per second of one core: WHEP POST, ICE, DTLS and keys; and the handshake alone.

Clients and relay share the machine, so joins are counted per second of the relay's processor time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsParameters, RTCDtlsTransport, State

from bench.crowd import crowd
from bench.plan import Plan
from bench.processes import relay, stock
from bench.report import Figure, figure
from relay.edge.dtls import Certificate, DtlsEnd

HANDSHAKES_S = 1.0  # of processor time


async def measure(plan: Plan) -> list[Figure]:
    """Join the relay and stock aiortc in turns, then shake hands with each one's DTLS alone."""
    joins: list[list[float]] = [[], []]
    walls: list[list[float]] = [[], []]
    for _ in range(plan.runs):
        for which, (endpoint, count) in enumerate(((relay(plan.test), 120), (stock(plan.test, "--idle"), 50))):
            async with endpoint as server, crowd(server, 40 if plan.quick else count, "av", warm_up=4) as joined:
                joins[which].append(joined.count / joined.cpu)
                walls[which].append(joined.count / joined.seconds)
    hands: list[list[float]] = [[], []]
    for _ in range(plan.runs):
        hands[0].append(await _per_second(_ours, plan))
        hands[1].append(await _per_second(_stock, plan))
    unit, beside = "per s of core", "stock aiortc WHEP endpoint"
    return [
        figure("joins (POST, ICE, DTLS, keys)", joins[0], unit, beside=beside, beside_values=joins[1]),
        figure("the same per second, 8 at a time", walls[0], "per s", beside=beside, beside_values=walls[1]),
        figure(
            "DTLS handshakes, both ends",
            hands[0],
            unit,
            beside="stock RTCDtlsTransport as server, the same client",
            beside_values=hands[1],
        ),
    ]


async def _per_second(shake: Callable[[Certificate], Any], plan: Plan) -> float:
    wanted = 0.5 if plan.quick else HANDSHAKES_S
    certificate = Certificate.make()
    await shake(certificate)
    count, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < wanted:
        await shake(certificate)
        count += 1
    return count / spent


async def _ours(certificate: Certificate) -> None:
    """One handshake between two of the relay's ends, through memory."""
    client: DtlsEnd
    server = DtlsEnd(certificate, "server", certificate.fingerprints, lambda datagram: client.feed(datagram))
    client = DtlsEnd(certificate, "client", certificate.fingerprints, server.feed)
    await asyncio.gather(server.run(5), client.run(5))
    client.close()
    server.close()


class _Wire:
    """What a stock transport wants of ICE, in memory."""

    role = "controlled"
    state = "completed"

    def __init__(self) -> None:
        self.peer: DtlsEnd | None = None
        self._inbox: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def put(self, datagram: bytes) -> None:
        self._inbox.append(datagram)
        self._arrived.set()

    def close(self) -> None:
        self._closed = True
        self._arrived.set()

    async def _recv(self) -> bytes:
        while not self._inbox:
            if self._closed:
                raise ConnectionError
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    async def _send(self, datagram: bytes) -> None:
        if self.peer is not None:
            self.peer.feed(datagram)


async def _stock(certificate: Certificate) -> None:
    """One handshake of a stock server with the relay's end as client."""
    wire = _Wire()
    server = RTCDtlsTransport(wire, [RTCCertificate(certificate._key, certificate._cert)])
    server._set_role("server")
    client = DtlsEnd(certificate, "client", certificate.fingerprints, wire.put)
    wire.peer = client
    remote = RTCDtlsParameters(fingerprints=list(certificate.fingerprints))
    await asyncio.gather(server.start(remote), client.run(5))
    if server._state is not State.CONNECTED:
        raise RuntimeError("the stock server did not connect")
    wire.close()
    await server.stop()
    client.close()

"""DTLS ends against each other and against stock aiortc, over links that lose, reorder and spoil datagrams.

The links deliver through the event loop, without waiting; only OpenSSL's own one-second timer takes real time, in the
tests that lose datagrams.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from aiortc.rtcdtlstransport import (
    SRTP_PROFILES,
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
)

from relay.edge.dtls import MAX_DATAGRAM, MTU, Certificate, CertificateStore, DtlsEnd, SrtpKeys
from relay.edge.sdp import Fingerprint
from relay.errors import PeerError
from relay.plane.contract import SrtpProfile

OURS = Certificate.make()
THEIRS = Certificate.make()
Spoil = Callable[[str, bytes], Iterator[bytes]]


def as_is(_: str, datagram: bytes) -> Iterator[bytes]:
    yield datagram


class Pair:
    """A server and a client joined by a link; `spoil` says what arrives for each datagram of "server" or "client"."""

    def __init__(
        self,
        spoil: Spoil = as_is,
        client_profiles: tuple[SrtpProfile, ...] = tuple(SrtpProfile),
        server_fingerprints: tuple[Fingerprint, ...] = OURS.fingerprints,
        client_fingerprints: tuple[Fingerprint, ...] = THEIRS.fingerprints,
    ) -> None:
        self.spoil = spoil
        self.sent: list[tuple[str, bytes]] = []
        self.closed: list[str] = []
        self.server = DtlsEnd(
            OURS, "server", client_fingerprints, self._sender("server"), lambda: self.closed.append("server")
        )
        self.client = DtlsEnd(
            THEIRS,
            "client",
            server_fingerprints,
            self._sender("client"),
            lambda: self.closed.append("client"),
            client_profiles,
        )

    def _sender(self, name: str) -> Callable[[bytes], None]:
        def send(datagram: bytes) -> None:
            self.sent.append((name, datagram))
            receiver = self.client if name == "server" else self.server
            for arrived in self.spoil(name, datagram):
                asyncio.get_running_loop().call_soon(receiver.feed, arrived)

        return send

    async def run(self, timeout_s: float = 10) -> tuple[SrtpKeys | BaseException, SrtpKeys | BaseException]:
        server, client = await asyncio.gather(
            self.server.run(timeout_s), self.client.run(timeout_s), return_exceptions=True
        )
        return server, client


def assert_agreed(server: SrtpKeys | BaseException, client: SrtpKeys | BaseException, profile: SrtpProfile) -> None:
    assert isinstance(server, SrtpKeys), server
    assert isinstance(client, SrtpKeys), client
    assert server.profile is client.profile is profile
    assert (server.tx_key, server.rx_key) == (client.rx_key, client.tx_key)
    assert server.tx_key != server.rx_key


async def settle() -> None:
    """Let everything in flight arrive."""
    for _ in range(10):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


KEY_LENGTHS = {
    SrtpProfile.AES_128_GCM: 28,
    SrtpProfile.AES_256_GCM: 44,
    SrtpProfile.AES_CM_128_HMAC_SHA1_80: 30,
}


@pytest.mark.parametrize("profile", SrtpProfile)
async def test_each_profile_alone(profile: SrtpProfile) -> None:
    pair = Pair(client_profiles=(profile,))
    server, client = await pair.run()
    assert_agreed(server, client, profile)
    assert isinstance(server, SrtpKeys)
    assert len(server.tx_key) == len(server.rx_key) == KEY_LENGTHS[profile]


async def test_the_server_prefers_aes_128_gcm_whatever_the_client_prefers() -> None:
    server, client = await Pair(client_profiles=tuple(reversed(SrtpProfile))).run()
    assert_agreed(server, client, SrtpProfile.AES_128_GCM)


async def test_a_connected_end_has_no_task_and_datagrams_fit() -> None:
    pair = Pair()
    await pair.run()
    assert pair.server.connected
    assert pair.client.connected
    assert not others()
    assert all(len(datagram) <= MTU for _, datagram in pair.sent)
    assert len(pair.sent) <= 6


async def test_close_is_told_to_the_peer_once() -> None:
    pair = Pair()
    await pair.run()
    pair.client.close()
    pair.client.close()
    await settle()
    assert pair.closed == ["server"]
    assert not pair.server.connected
    pair.server.feed(pair.sent[-1][1])
    pair.server.close()
    await settle()
    assert pair.closed == ["server"]


async def test_on_closed_may_close_the_end_itself() -> None:
    pair = Pair()
    await pair.run()
    pair.server._on_closed = lambda: (pair.closed.append("server"), pair.server.close())[0]
    pair.client.close()
    await settle()
    assert pair.closed == ["server"]


@pytest.mark.parametrize("liar", ["server", "client"])
async def test_a_wrong_fingerprint_fails(liar: str) -> None:
    wrong = Certificate.make().fingerprints
    pair = Pair(**{f"{liar}_fingerprints": wrong})
    server, client = await pair.run(timeout_s=3)
    judge = client if liar == "server" else server
    assert isinstance(judge, PeerError)
    assert "certificate" in str(judge)
    assert not others()


async def test_all_known_fingerprints_must_match_and_unknown_ones_do_not_count() -> None:
    unknown = Fingerprint("sha-1", "AA:" * 19 + "AA")
    assert_agreed(*await Pair(client_fingerprints=(unknown, *THEIRS.fingerprints)).run(), SrtpProfile.AES_128_GCM)
    lower = Fingerprint("sha-256", THEIRS.fingerprints[0].value.lower())
    assert_agreed(*await Pair(client_fingerprints=(lower,)).run(), SrtpProfile.AES_128_GCM)
    for bad in ((unknown,), (*THEIRS.fingerprints, Fingerprint("sha-512", "AA:" * 63 + "AA"))):
        server, _ = await Pair(client_fingerprints=bad).run(timeout_s=3)
        assert isinstance(server, PeerError)


def rubbish(seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    yield b""
    yield b"\x16"
    yield bytes([22]) + bytes(11)
    yield bytes([22]) + bytes(MAX_DATAGRAM)
    yield bytes([22, 254, 253]) + bytes(8) + b"\xff\xff" + bytes(20)
    yield bytes([128]) + bytes(40)
    for first in (20, 21, 22, 23, 40, 63):
        yield bytes([first, 254, 253]) + dice.randbytes(dice.randrange(10, 300))
        yield bytes([first]) + dice.randbytes(dice.randrange(12, 1499))


async def test_rubbish_before_during_and_after_costs_nothing() -> None:
    def spoil(_: str, datagram: bytes) -> Iterator[bytes]:
        yield from rubbish(len(datagram))
        yield datagram

    pair = Pair(spoil)
    for datagram in rubbish(1):
        pair.server.feed(datagram)
    server, client = await pair.run()
    assert_agreed(server, client, SrtpProfile.AES_128_GCM)
    for seed in range(20):
        for datagram in rubbish(seed):
            pair.server.feed(datagram)
    await settle()
    assert pair.server.connected
    assert pair.client.connected
    assert pair.server.dropped >= 20 * 4
    assert pair.closed == []


async def test_a_spoiled_copy_after_the_handshake_costs_nothing() -> None:
    pair = Pair()
    await pair.run()
    for _, datagram in list(pair.sent):
        for i in range(0, len(datagram), 7):
            pair.server.feed(datagram[:i] + bytes([datagram[i] ^ 0x55]) + datagram[i + 1 :])
    assert pair.server.connected


async def test_the_queue_before_the_handshake_is_bounded() -> None:
    pair = Pair()
    record = bytes([22, 254, 253]) + bytes(10)
    for _ in range(1000):
        pair.server.feed(record)
    assert pair.server.dropped == 1000 - 32
    pair.server.close()
    with pytest.raises(PeerError):
        await pair.server.run(1)


async def test_a_first_flight_that_came_before_run_is_used() -> None:
    pair = Pair()
    client = asyncio.create_task(pair.client.run(10))
    await settle()
    assert [name for name, _ in pair.sent] == ["client"]
    server = await pair.server.run(10)
    assert_agreed(server, await client, SrtpProfile.AES_128_GCM)


@pytest.mark.parametrize("lost", range(4))
async def test_one_lost_flight_is_repeated(lost: int) -> None:
    """Flights: hello, server's, client's, server's last. After the last loss only the client repeats: the server,
    already connected, must answer from `feed`."""
    count = iter(range(1000))

    def spoil(_: str, datagram: bytes) -> Iterator[bytes]:
        if next(count) != lost:
            yield datagram

    server, client = await Pair(spoil).run()
    assert_agreed(server, client, SrtpProfile.AES_128_GCM)


async def test_doubled_and_reordered_datagrams() -> None:
    held: list[bytes] = []

    def spoil(name: str, datagram: bytes) -> Iterator[bytes]:
        if name == "client" and not held:
            held.append(datagram)
        yield datagram
        yield datagram
        yield from held

    assert_agreed(*await Pair(spoil).run(), SrtpProfile.AES_128_GCM)


@pytest.mark.parametrize("role", ["server", "client"])
async def test_silence_times_out(role: str) -> None:
    end = DtlsEnd(OURS, role, THEIRS.fingerprints, lambda datagram: None)
    with pytest.raises(PeerError, match=r"within 0\.05 s"):
        await end.run(0.05)
    assert not others()
    end.feed(bytes([22, 254, 253]) + bytes(10))
    assert end.dropped == 1


@pytest.mark.parametrize("steps", range(6))
async def test_close_during_the_handshake_leaves_nothing_behind(steps: int) -> None:
    pair = Pair()
    tasks = [asyncio.create_task(pair.server.run(3)), asyncio.create_task(pair.client.run(3))]
    for _ in range(steps):
        await asyncio.sleep(0)
    pair.server.close()
    pair.client.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, (PeerError, SrtpKeys)) for result in results)
    assert not others()


async def test_cancelling_the_handshake_closes_the_end() -> None:
    pair = Pair(spoil=lambda name, datagram: iter(()))
    task = asyncio.create_task(pair.client.run(10))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pair.client.feed(pair.sent[0][1])
    assert pair.client.dropped == 1


async def test_twenty_at_once() -> None:
    pairs = [Pair() for _ in range(20)]
    for server, client in await asyncio.gather(*(pair.run() for pair in pairs)):
        assert_agreed(server, client, SrtpProfile.AES_128_GCM)
    for pair in pairs:
        pair.client.close()
    await settle()
    assert all(pair.closed == ["server"] for pair in pairs)


class StockTransport:
    """What stock aiortc wants instead of its ICE transport."""

    role = "controlling"

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.peer: DtlsEnd | None = None

    async def _recv(self) -> bytes:
        return await self.inbox.get()

    async def _send(self, data: bytes) -> None:
        assert self.peer is not None
        self.peer.feed(data)


@pytest.mark.parametrize("role", ["server", "client"])
async def test_stock_aiortc_at_the_other_end(role: str) -> None:
    certificate = RTCCertificate.generateCertificate()
    path = StockTransport()
    stock = RTCDtlsTransport(path, [certificate])
    stock._set_role("client" if role == "server" else "server")
    closed: list[bool] = []
    theirs = [Fingerprint(f.algorithm, f.value) for f in certificate.getFingerprints()]
    end = DtlsEnd(OURS, role, theirs, path.inbox.put_nowait, lambda: closed.append(True))
    path.peer = end
    wanted = RTCDtlsParameters([RTCDtlsFingerprint(f.algorithm, f.value) for f in OURS.fingerprints])
    keys, _ = await asyncio.gather(end.run(10), stock.start(wanted))
    assert stock.state == "connected"
    # The server's order decides; stock aiortc has AES-256 first.
    assert keys.profile is (SrtpProfile.AES_128_GCM if role == "server" else SrtpProfile.AES_256_GCM)
    assert SRTP_PROFILES[0].openssl_profile == SrtpProfile.AES_256_GCM.value.encode()
    await stock._send_data(b"application data is of no use here")
    assert end.connected
    await stock.stop()
    assert closed == [True]
    await settle()
    assert not others()


async def test_a_peer_without_a_common_profile_is_refused() -> None:
    path = StockTransport()
    stock = RTCDtlsTransport(path, [THEIRS])
    stock._set_role("client")
    stock._srtp_profiles = [replace(SRTP_PROFILES[-1], openssl_profile=b"SRTP_AES128_CM_SHA1_32")]
    path.peer = DtlsEnd(OURS, "server", THEIRS.fingerprints, path.inbox.put_nowait)
    wanted = RTCDtlsParameters([RTCDtlsFingerprint(f.algorithm, f.value) for f in OURS.fingerprints])
    starting = asyncio.create_task(stock.start(wanted))
    with pytest.raises(PeerError, match="SRTP protection profile"):
        await path.peer.run(10)
    await starting
    await stock.stop()


def test_the_certificate_is_shared_and_renewed_a_week_before_its_end() -> None:
    now = [0.0]
    store = CertificateStore(wall=lambda: now[0])
    first = store.current()
    assert store.current() is first
    now[0] = first.expires_at - 7 * 86_400 - 1
    assert store.current() is first
    now[0] += 2
    second = store.current()
    assert second is not first
    assert second.fingerprints != first.fingerprints
    assert len(second.fingerprints[0].value) == 95

"""Datagrams of strangers: nothing is remembered, little is answered, and nothing raises."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path
from random import Random

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.link.quic import Endpoint
from relay.link.quic.tokens import LASTING_LIFETIME_S, RETRY_LIFETIME_S, AddressTokens
from tests.link.quic_world import ROQ, Node, identity, linked, node, pair, until

GROWTH = 5 << 20  # bytes


def initial(number: int) -> bytes:
    """A well-formed first datagram of a client that nobody knows."""
    configuration = QuicConfiguration(alpn_protocols=[ROQ], server_name=f"n{number}", supported_versions=[1])
    client = QuicConnection(configuration=configuration)
    client.connect(("127.0.0.1", 1), 0.0)
    return client.datagrams_to_send(0.0)[0][0]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stranger() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("127.0.0.1", 0))
    opened.setblocking(False)
    return opened


def hand(a: Node, datagrams: list[bytes], address: tuple[str, int]) -> None:
    """Put datagrams into the endpoint as its socket would, whatever the kernel's buffer holds."""
    for data in datagrams:
        a.endpoint.take(data, address, 1.0)


async def test_ten_thousand_hostile_initials_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    random = Random(7)
    known = [initial(number) for number in range(20)]
    datagrams = []
    for number in range(10_000):
        if number % 2:
            data = bytearray(known[number % len(known)])
            data[6:14] = random.randbytes(8)  # another connection id each
        else:
            data = bytearray(b"\xc3\0\0\0\1\x08" + random.randbytes(8) + b"\x08" + random.randbytes(1200))
        datagrams.append(bytes(data))
    async with pair() as (a, b):
        hand(a, datagrams[:500], ("127.0.0.1", 9))  # what is made once is made now
        gc.collect()
        before, objects = resident(), len(gc.get_objects())
        hand(a, datagrams, ("127.0.0.1", 9))
        gc.collect()
        growth = resident() - before
        with capsys.disabled():
            print(f"\n10,000 hostile Initials: {growth / 1024:.0f} KiB, {a.endpoint.counts.retries} Retries")
        assert growth <= GROWTH
        assert len(gc.get_objects()) - objects < 100
        assert a.endpoint.connections == ()
        assert a.endpoint.counts.retries > 5000
        await linked(a, b)


async def test_a_made_up_token_gets_a_retry_and_no_state() -> None:
    async with node("a", serves=True) as a:
        configuration = QuicConfiguration(alpn_protocols=[ROQ], supported_versions=[1], token=b"t" * 60)
        client = QuicConnection(configuration=configuration)
        client.connect(("127.0.0.1", 1), 0.0)
        hand(a, [data for data, _ in client.datagrams_to_send(0.0)], ("127.0.0.1", 9))
        assert a.endpoint.counts.retries == 1
        assert a.endpoint.connections == ()


async def test_another_version_is_told_ours_but_not_in_a_loop() -> None:
    async with node("a", serves=True) as a:
        with stranger() as client:
            for version in (b"\x1a\x2a\x3a\x4a", b"\0\0\0\0"):
                data = b"\xc0" + version + b"\x08" + b"d" * 8 + b"\x08" + b"s" * 8 + bytes(1200)
                client.sendto(data, a.endpoint.address)
            await until(lambda: a.endpoint.counts.received == 2)
            answer = client.recv(2000)
            assert answer[1:5] == b"\0\0\0\0"
            assert answer[5:23] == b"\x08" + b"s" * 8 + b"\x08" + b"d" * 8
            assert len(answer) < 100
            with pytest.raises(BlockingIOError):
                client.recv(2000)
        assert a.endpoint.counts.versions == 1


async def test_who_only_dials_answers_nobody() -> None:
    async with node("b") as b:
        hand(b, [initial(1)], ("127.0.0.1", 9))
        assert b.endpoint.counts.dropped == {"stray": 1}
        assert b.endpoint.counts.sent == 0


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "malformed"),
        (b"\x40" * 8, "malformed"),
        (b"\x40" * 1300, "stray"),
        (initial(1)[:1199], "stray"),
        (b"\xe3" + initial(1)[1:], "stray"),
        (b"\xc3\0\0\0\1\xff" + bytes(1300), "malformed"),
        (b"\xc3\0\0\0\1\x08" + bytes(8) + b"\xff" + bytes(1300), "malformed"),
        (b"\xc3\0\0\0\1\x04" + bytes(1300), "stray"),
        (b"\xc3\0\0\0\1\x08" + bytes(8) + b"\x08" + bytes(8) + b"\x7f\xff" + bytes(1200), "malformed"),
    ],
    ids=["empty", "short", "short-header", "small", "handshake", "long-id", "long-source", "short-id", "long-token"],
)
async def test_malformed_datagrams_are_counted(data: bytes, cause: str) -> None:
    async with node("a", serves=True) as a:
        hand(a, [data], ("127.0.0.1", 9))
        assert a.endpoint.counts.dropped == {cause: 1}
        assert a.endpoint.counts.sent == 0


FIRST = st.binary(max_size=40)
FRAMES = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.sampled_from([0xC0, 0xD0, 0xE0, 0xF0, 0x40, 0x80]), FIRST).map(
        lambda parts: bytes([parts[0]]) + b"\0\0\0\1" + parts[1] + bytes(1200)
    ),
)


async def test_any_datagram_is_taken_in_stride() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        routes = list(a.endpoint._routes)

        @settings(max_examples=150, deadline=None, database=None)
        @given(FRAMES, st.integers(0, 99), st.booleans())
        def throw(data: bytes, which: int, known: bool) -> None:
            if known and len(data) > 9:  # at a live connection: it cannot be decrypted
                name = routes[which % len(routes)]
                data = data[:1] + name + data[9:] if data[0] < 0x80 else data[:5] + bytes([8]) + name + data[14:]
            hand(a, [data], ("127.0.0.1", 9))

        throw()
        dialled.connection.send_datagram(b"still here")
        await until(lambda: served.datagrams == [b"still here"])
        assert served.connection.remote == b.endpoint.address


async def test_ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
    server = Endpoint(identity("a"), "::1", 0, alpns=(ROQ,))
    client = Endpoint(identity("b"), "::1", 0)
    try:
        connection = await client.connect(server.address, ROQ, "a")
        assert connection.remote == server.address
    finally:
        await client.close()
        await server.close()


def test_address_tokens_are_bound_to_address_time_and_kind() -> None:
    tokens, other = AddressTokens(), AddressTokens()
    retry = tokens.retry("10.0.0.1", 5, b"original", b"source", 100.0)
    assert tokens.check_retry("10.0.0.1", 5, b"source", retry, 100.0 + RETRY_LIFETIME_S) == b"original"
    assert tokens.check_retry("10.0.0.1", 5, b"source", retry, 100.1 + RETRY_LIFETIME_S) is None
    assert tokens.check_retry("10.0.0.2", 5, b"source", retry, 100.0) is None
    assert tokens.check_retry("10.0.0.1", 6, b"source", retry, 100.0) is None
    assert tokens.check_retry("10.0.0.1", 5, b"another", retry, 100.0) is None
    assert other.check_retry("10.0.0.1", 5, b"source", retry, 100.0) is None
    assert not tokens.check_lasting("10.0.0.1", retry, 100.0)
    lasting = tokens.lasting("fe80::1%eth0", 100.0)
    assert tokens.check_lasting("fe80::1%eth0", lasting, 100.0 + LASTING_LIFETIME_S)
    assert not tokens.check_lasting("fe80::1%eth0", lasting, 100.1 + LASTING_LIFETIME_S)
    assert tokens.check_retry("10.0.0.1", 5, b"source", lasting, 100.0) is None


@given(st.binary(max_size=100))
def test_any_token_is_checked_without_error(token: bytes) -> None:
    assert AddressTokens().check_retry("::1", 5, b"source", token, 1.0) is None

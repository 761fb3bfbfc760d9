"""The short way of packets against aioquic's own: same bytes, same meaning, and no bytes of a peer that raise."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import decode_packet_number, pull_ack_frame, push_ack_frame
from aioquic.quic.rangeset import RangeSet
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.link import varint
from relay.link.quic import short
from relay.link.varint import Malformed
from tests.link.quic_world import linked, pair, until

CID = b"12345678"
NUMBERS = st.one_of(st.integers(0, 70_000), st.integers(0, (1 << 40)))


def crypto(phase: int = 0) -> CryptoPair:
    pair = CryptoPair()
    for each in (pair.send, pair.recv):
        each.setup(cipher_suite=CipherSuite.AES_128_GCM_SHA256, secret=b"s" * 32, version=1)
        each.key_phase = phase
    return pair


def keys(phase: int = 0) -> short.Keys:
    context = crypto(phase).send
    assert context.aead is not None
    assert context.hp is not None
    return short.Keys(context.aead._aead, context.aead._iv, context.hp._encryptor, phase)  # type: ignore[arg-type]


PAIR, KEYS = crypto(), keys()


@given(NUMBERS, st.binary(min_size=2, max_size=100), st.booleans())
def test_what_we_write_aioquic_reads(number: int, plain: bytes, spin: bool) -> None:
    data = short.write(KEYS, CID, spin, number, plain)
    header, read, found = PAIR.decrypt_packet(data, 1 + len(CID), number)
    assert (read, found) == (plain, number)
    assert header[0] == 0x40 | spin << 5 | 1
    opened = short.read(KEYS, data, len(CID), number)
    assert opened == short.Opened(number, spin, plain)


@given(NUMBERS, st.binary(min_size=4, max_size=100), st.integers(1, 4))
def test_what_aioquic_writes_we_read(number: int, plain: bytes, size: int) -> None:
    header = bytes([0x40 | size - 1]) + CID + (number & (1 << 8 * size) - 1).to_bytes(size, "big")
    data = PAIR.encrypt_packet(header, plain, number)
    assert short.read(KEYS, data, len(CID), number) == short.Opened(number, False, plain)


@given(st.integers(1, 4), NUMBERS, NUMBERS)
def test_packet_numbers_are_completed_as_in_the_rfc(size: int, low: int, expected: int) -> None:
    low &= (1 << 8 * size) - 1
    assert short.full_number(low, 8 * size, expected) == decode_packet_number(low, 8 * size, expected)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_unauthentic_or_need_the_general_way(data: bytes) -> None:
    opened = short.read(KEYS, data, len(CID), 5)
    assert opened is None or opened.plain is None


@given(st.integers(0, 60), st.integers(1, 255))
def test_a_changed_packet_is_not_authentic(at: int, change: int) -> None:
    data = bytearray(short.write(KEYS, CID, False, 7, b"0123456789" * 4))
    data[at] ^= change
    opened = short.read(KEYS, bytes(data), len(CID), 7)
    assert opened is None or opened.plain is None


def test_another_key_phase_needs_the_general_way() -> None:
    assert short.read(KEYS, short.write(keys(1), CID, False, 7, b"0123"), len(CID), 7) is None


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=20), st.integers(0, 1 << 30))
def test_acknowledgements_read_as_aioquic_reads_them(gaps: list[tuple[int, int]], delay: int) -> None:
    ranges = RangeSet()
    at = 0
    for gap, count in gaps:
        ranges.add(at + gap, at + gap + count)
        at += gap + count
    buffer = Buffer(capacity=1000)
    push_ack_frame(buffer, ranges, delay, 1000)
    found, raw, end = short.read_ack(b"\x02" + buffer.data, 1)
    assert (found, raw, end) == (list(ranges), delay, 1 + len(buffer.data))


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.lists(st.integers(0, 70), max_size=12).map(bytes)))
def test_any_acknowledgement_is_read_or_malformed_as_by_aioquic(data: bytes) -> None:
    try:
        ranges, delay, end = short.read_ack(data, 0)
    except Malformed:
        with pytest.raises((ValueError, AssertionError)):
            pull_ack_frame(Buffer(data=data))
        return
    theirs, their_delay = pull_ack_frame(Buffer(data=data))
    assert delay == their_delay
    assert all(each.start < each.stop for each in ranges)
    assert sum(map(len, ranges)) == sum(map(len, theirs))
    assert end <= len(data)


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(20, 700))
def test_datagrams_are_packed_in_order_and_fit(sizes: list[int], room: int) -> None:
    queue: deque[short.Queued] = deque((bytes(size), index, 0.0) for index, size in enumerate(sizes))
    before = len(queue)
    plain, tokens, frames, payloads = short.pack(queue, room)
    assert len(plain) <= room
    assert tokens == list(range(frames))
    assert payloads == sum(sizes[:frames])
    assert len(queue) == before - frames
    if queue:
        data = queue[0][0]
        assert len(plain) + 1 + len(varint.encode(len(data))) + len(data) > room


@pytest.mark.parametrize(
    ("plain", "told"),
    [
        (b"\x31\x05ab", "Failed to parse frame"),
        (b"\x31\x40", "Failed to parse frame"),
        (b"\x02\x05", "Read out of bounds"),
        (b"\x02\x01\x00\x00\x05", "negative"),
        (b"\x01\x40\x99\x00\x00", "Unknown frame type"),
        (b"\x1e\x01\x01\x01", "Clients must not send HANDSHAKE_DONE"),
    ],
    ids=["cut-datagram", "no-length", "cut-ack", "ack-below-zero", "unknown", "done-from-client"],
)
async def test_malformed_frames_of_a_peer_end_its_connection_only(plain: bytes, told: str) -> None:
    async with pair() as (a, b):
        good, good_served = await linked(a, b)
        bad, bad_served = await linked(a, b)
        inject(bad.connection.quic, plain, b.endpoint, a.endpoint.address)
        await until(lambda: bad_served.closed)
        assert told in bad_served.closed[0]
        good.connection.send_datagram(b"still here")
        await until(lambda: good_served.datagrams == [b"still here"])


async def test_any_authentic_payload_is_taken_in_stride() -> None:
    """A node of the cluster that sends rubbish with good keys loses its connection, and nothing else happens."""
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    payload = st.lists(
        st.one_of(st.sampled_from([b"\x01", b"\x00", b"\x31\x03abc", b"\x02\x00\x00\x00\x00"]), st.binary(max_size=8)),
        min_size=1,
        max_size=6,
    ).map(lambda parts: b"".join(parts) + b"\x00\x00\x00\x00")
    examples: list[bytes] = []

    @settings(max_examples=60, database=None)
    @given(payload)
    def collect(plain: bytes) -> None:
        examples.append(plain)

    collect()
    async with pair() as (a, b):
        good, good_served = await linked(a, b)
        for plain in examples:
            bad, _ = await linked(a, b)
            inject(bad.connection.quic, plain, b.endpoint, a.endpoint.address)
            bad.connection.close()
        good.connection.send_datagram(b"still here")
        await until(lambda: good_served.datagrams == [b"still here"])
    assert errors == []


def inject(quic: Any, plain: bytes, endpoint: Any, remote: tuple[str, int]) -> None:
    """Send a payload of one's own making in an authentic packet."""
    context = next(pair for epoch, pair in quic._cryptos.items() if epoch.name == "ONE_RTT").send
    made = short.Keys(context.aead._aead, context.aead._iv, context.hp._encryptor, context.key_phase)
    data = short.write(made, quic._peer_cid.cid, False, quic._packet_number, plain)
    quic._packet_number += 1
    endpoint.send([(data, remote)])

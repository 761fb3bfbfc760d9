"""RoQ framing: the RFC's examples, strictness, and that no bytes of a peer raise anything but Malformed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.link import roq, varint
from relay.link.varint import Malformed

RTP = b"\x80\x60" + bytes(10)
RTCP = b"\x81\xc9\x00\x01" + bytes(4)
NUMBERS = st.one_of(st.integers(0, varint.MAX), st.integers(0, 70_000))
PACKETS = st.one_of(
    st.binary(min_size=10, max_size=60).map(lambda rest: b"\x80\x60" + rest),
    st.binary(min_size=6, max_size=40).map(lambda rest: b"\x80\xc8" + rest),
)


@pytest.mark.parametrize(  # RFC 9000 A.1
    ("encoded", "value"),
    [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ],
)
def test_the_examples_of_rfc_9000(encoded: str, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert varint.decode(data) == (value, len(data))
    assert varint.encode(value) == (data if encoded != "4025" else b"\x25")


@given(NUMBERS, st.binary(max_size=4), st.binary(max_size=4))
def test_a_varint_comes_back(value: int, before: bytes, after: bytes) -> None:
    encoded = varint.encode(value)
    assert varint.decode(before + encoded + after, len(before)) == (value, len(before) + len(encoded))
    for cut in range(len(encoded)):
        with pytest.raises(Malformed):
            varint.decode(encoded[:cut])


@pytest.mark.parametrize("value", [-1, varint.MAX + 1])
def test_what_no_varint_holds_is_our_bug(value: int) -> None:
    with pytest.raises(UsageError):
        varint.encode(value)


@given(NUMBERS, PACKETS)
def test_a_datagram_comes_back(flow: int, packet: bytes) -> None:
    assert roq.parse(roq.frame(flow, packet)) == (flow, packet)


def test_rtp_and_rtcp_are_told_apart() -> None:
    assert not roq.is_rtcp(RTP)
    assert roq.is_rtcp(RTCP)


@pytest.mark.parametrize(
    ("datagram", "told"),
    [
        (b"", "a varint is missing"),
        (b"\x40", "ends after 1"),
        (b"\x05", "0 bytes are neither"),
        (b"\x05\x80", "1 bytes are neither"),
        (b"\x05\x40\x60" + bytes(10), "of version 2"),
        (b"\x05" + RTP[:11], "11 bytes are too short for RTP"),
        (b"\x05" + RTCP[:7], "7 bytes are too short for RTCP"),
    ],
)
def test_a_wrong_datagram_is_refused(datagram: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        roq.parse(datagram)


@given(NUMBERS, st.lists(PACKETS, max_size=6), st.lists(st.integers(1, 30), max_size=20))
def test_a_stream_comes_back_however_it_is_cut(flow: int, packets: list[bytes], cuts: list[int]) -> None:
    data = roq.stream_header(flow) + b"".join(map(roq.stream_packet, packets))
    reader = roq.StreamReader()
    found: list[roq.FlowPacket] = []
    for cut in cuts:
        found += reader.receive(data[:cut])
        data = data[cut:]
    found += reader.receive(data, ended=True)
    assert found == [roq.FlowPacket(flow, packet) for packet in packets]
    assert reader.flow == flow


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x05\x80\x01\x00\x00", "65536 bytes on flow 5 is longer"),
        (b"\x05\x02\x80\x60", "too short for RTP"),
        (b"\x05\x00", "0 bytes are neither"),
        (b"\x05" + roq.stream_packet(RTP)[:-1], "ended 12 bytes into"),
        (b"", "ended 0 bytes into"),
    ],
)
def test_a_wrong_stream_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        roq.StreamReader().receive(data, ended=True)


def test_we_never_write_what_we_would_not_read() -> None:
    with pytest.raises(UsageError):
        roq.stream_packet(b"\x80\x60" + bytes(roq.MAX_PACKET))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_datagram_is_a_packet_or_malformed(data: bytes) -> None:
    try:
        flow, packet = roq.parse(data)
    except Malformed:
        return
    assert varint.decode(data)[0] == flow
    assert data.endswith(packet)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_stream_is_packets_or_malformed_and_holds_little(pieces: list[bytes]) -> None:
    reader = roq.StreamReader()
    total = 0
    try:
        for piece in pieces:
            total += sum(len(found.packet) for found in reader.receive(piece))
    except Malformed:
        return
    assert total <= sum(map(len, pieces))
    assert len(reader._rest) <= roq.MAX_PACKET + 16

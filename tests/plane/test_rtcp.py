"""RTCP: what is built is read back, by us and by aiortc; tails that are wrong cost only themselves."""

from __future__ import annotations

import pytest
from aiortc import rtp as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference import rtcp

BLOCK = rtcp.ReportBlock(7, 128, -5, 70_000, 33, 0x12345678, 65_536)
SENDER = rtcp.SenderReport(1, 0xE1E2E3E4_80000000, 90_000, 10, 1_000, (BLOCK,))
BUILT = {
    "sr": (rtcp.build_sr(SENDER), SENDER),
    "rr": (rtcp.build_rr(2, [BLOCK, BLOCK]), rtcp.ReceiverReport(2, (BLOCK, BLOCK))),
    "empty rr": (rtcp.build_rr(2), rtcp.ReceiverReport(2)),
    "sdes": (rtcp.build_sdes(3, "café"), rtcp.SourceDescription(((3, "café"),))),
    "bye": (rtcp.build_bye([4, 5]), rtcp.Bye((4, 5))),
    "nack": (rtcp.build_nack(1, 6, [65_535, 0, 15, 16, 40]), rtcp.Nack(1, 6, (65_535, 0, 15, 16, 40))),
    "pli": (rtcp.build_pli(1, 6), rtcp.Pli(1, 6)),
    "fir": (rtcp.build_fir(1, [(6, 255), (8, 0)]), rtcp.Fir(1, ((6, 255), (8, 0)))),
    "remb": (rtcp.build_remb(1, 1_048_576, [6, 8]), rtcp.Remb(1, 1_048_576, (6, 8))),
    "transport-cc": (rtcp.build_transport_cc(1, 6, b"12345"), rtcp.TransportFeedback(1, 6, b"12345")),
}


@pytest.mark.parametrize("name", BUILT)
def test_built_packets_are_read_back(name: str) -> None:
    data, packet = BUILT[name]
    assert rtcp.parse(data) == rtcp.Compound((packet,), 0, "")
    assert rtcp.is_rtcp(data)


def test_a_compound_of_everything() -> None:
    data = b"".join(data for data, _ in BUILT.values())
    assert rtcp.parse(data) == rtcp.Compound(tuple(packet for _, packet in BUILT.values()), 0, "")


def test_another_implementation_reads_ours() -> None:
    kinds = {"sr": peer.RtcpSrPacket, "rr": peer.RtcpRrPacket, "sdes": peer.RtcpSdesPacket, "bye": peer.RtcpByePacket}
    kinds |= {"pli": peer.RtcpPsfbPacket, "remb": peer.RtcpPsfbPacket}
    for name, kind in kinds.items():
        (packet,) = peer.RtcpPacket.parse(BUILT[name][0])
        assert isinstance(packet, kind)
        assert rtcp.parse(bytes(packet)).packets == (BUILT[name][1],)
    (nack,) = peer.RtcpPacket.parse(rtcp.build_nack(1, 6, [5, 6, 21, 22, 40]))  # it cannot count over the wrap
    assert nack.lost == [5, 6, 21, 22, 40]
    (remb,) = peer.RtcpPacket.parse(BUILT["remb"][0])
    assert peer.unpack_remb_fci(remb.fci) == (1_048_576, [6, 8])


def test_nack_is_packed_tightly() -> None:
    assert len(rtcp.build_nack(1, 2, range(17))) == 16
    assert len(rtcp.build_nack(1, 2, range(18))) == 20
    assert rtcp.parse(rtcp.build_nack(1, 2, [5, 5, 3, 5])).packets == (rtcp.Nack(1, 2, (5, 3, 5)),)
    assert rtcp.parse(rtcp.build_nack(1, 2, [])).packets == (rtcp.Nack(1, 2, ()),)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 0xFFFF), st.lists(st.integers(1, 40), max_size=100))
def test_any_ascending_nack_survives(first: int, steps: list[int]) -> None:
    seqs = [first]
    for step in steps:
        seqs.append((seqs[-1] + step) & 0xFFFF)
    assert rtcp.parse(rtcp.build_nack(1, 2, seqs)).packets == (rtcp.Nack(1, 2, tuple(seqs)),)


@given(st.integers(0, rtcp.MAX_BITRATE))
def test_remb_keeps_18_bits(bitrate: int) -> None:
    (packet,) = rtcp.parse(rtcp.build_remb(1, bitrate, [2])).packets
    assert isinstance(packet, rtcp.Remb)
    assert 0 <= bitrate - packet.bitrate <= bitrate >> 17


def test_an_absurd_remb_saturates() -> None:
    data = rtcp.build_remb(1, 0, [])
    (packet,) = rtcp.parse(data[:17] + b"\xff\xff\xff").packets
    assert isinstance(packet, rtcp.Remb)
    assert packet.bitrate == rtcp.MAX_BITRATE


def test_unknown_kinds_are_skipped() -> None:
    unknown = b"\x80\xcf\x00\x01" + bytes(4) + b"\x81\xcc\x00\x02" + bytes(8) + b"\x9e\xcd\x00\x02" + bytes(8)
    other_psfb = b"\x82\xce\x00\x02" + bytes(8)
    read = rtcp.parse(unknown + other_psfb + BUILT["pli"][0])
    assert read == rtcp.Compound((rtcp.Pli(1, 6),), 4, "")


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (b"\x80\xc8", "truncated header"),
        (b"\x40\xc9\x00\x01" + bytes(4), "wrong version"),
        (b"\x80\xc9\x00\x02" + bytes(4), "length past the end"),
        (b"\xa0\xc9\x00\x01\x00\x00\x00\x00", "wrong padding"),
        (b"\xa0\xc9\x00\x01\x00\x00\x00\x05", "wrong padding"),
        (b"\xa0\xc9\x00\x00", "wrong padding"),
        (b"\x81\xc8\x00\x06" + bytes(24), "short sender report"),
        (b"\x81\xc9\x00\x01" + bytes(4), "short receiver report"),
        (b"\x82\xca\x00\x02" + bytes(8), "short source description"),
        (b"\x81\xca\x00\x02" + bytes(4) + b"\x01\x09ab", "short source description item"),
        (b"\x82\xcb\x00\x01" + bytes(4), "short bye"),
        (b"\x81\xcd\x00\x01" + bytes(4), "short transport feedback"),
        (b"\x81\xce\x00\x01" + bytes(4), "short payload feedback"),
        (b"\xa1\xcd\x00\x03" + bytes(11) + b"\x01", "ragged nack"),
        (b"\x84\xce\x00\x03" + bytes(12), "wrong size of fir"),
        (b"\x8f\xce\x00\x04" + bytes(8) + b"REMB\x01\0\0\0", "short remb"),
        (b"\x81\xcd\x00\x52" + bytes(8) + b"\0\0\xff\xff" * 80, "too many sequence numbers in a nack"),
        (b"\x80\xc9\x00\x01\0\0\0\0" * 64, "too many packets"),
    ],
)
def test_a_malformed_tail_costs_only_the_tail(tail: bytes, error: str) -> None:
    read = rtcp.parse(BUILT["pli"][0] + tail)
    assert read.packets[0] == rtcp.Pli(1, 6)
    assert read.error == error


def test_padding_of_the_last_packet_is_removed() -> None:
    padded = b"\xa0\xc9\x00\x02" + (9).to_bytes(4, "big") + b"\0\0\0\4"
    assert rtcp.parse(padded).packets == (rtcp.ReceiverReport(9),)


def test_is_rtcp_by_the_second_byte() -> None:
    assert [kind for kind in range(256) if rtcp.is_rtcp(bytes((0x80, kind)) + bytes(6))] == list(range(192, 224))
    assert not rtcp.is_rtcp(b"\x40\xc9" + bytes(6))
    assert not rtcp.is_rtcp(b"\x80\xc9")


def test_ntp() -> None:
    assert rtcp.ntp_from_wall_us(0) == 2_208_988_800 << 32
    assert rtcp.ntp_from_wall_us(1_500_000) == (2_208_988_801 << 32) + (1 << 31)
    assert rtcp.ntp_middle(0x11112222_33334444) == 0x22223333


@given(st.integers(0, 2_000_000_000_000_000))
def test_ntp_round_trip(us: int) -> None:
    assert rtcp.wall_us_from_ntp(rtcp.ntp_from_wall_us(us)) == us


def test_round_trip_time() -> None:
    sent = rtcp.ntp_from_wall_us(1_700_000_000_000_000)
    later = rtcp.ntp_from_wall_us(1_700_000_000_150_000)
    rtt = rtcp.rtt_us(later, rtcp.ntp_middle(sent), 65_536 // 10)
    assert rtt is not None
    assert abs(rtt - 50_000) < 50
    assert rtcp.rtt_us(later, 0, 0) is None
    assert rtcp.rtt_us(sent, rtcp.ntp_middle(sent), 10) == 0  # rounding below zero
    assert rtcp.rtt_us(sent, rtcp.ntp_middle(later), 65_536) is None  # from the future
    assert rtcp.rtt_us(rtcp.ntp_from_wall_us(1_700_000_100_000_000), rtcp.ntp_middle(sent), 0) is None  # 100 s


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(sorted(BUILT)), st.integers(0, 31), st.integers(192, 223))
def test_any_bytes_are_survived(tail: bytes, name: str, count: int, kind: int) -> None:
    whole = tail + bytes(-len(tail) & 3)
    framed = bytes((0x80 | count, kind)) + (len(whole) // 4).to_bytes(2, "big") + whole
    for data in (tail, BUILT[name][0] + tail, framed):
        read = rtcp.parse(data)
        assert len(read.packets) <= rtcp.MAX_PACKETS

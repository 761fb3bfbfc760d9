"""From coded frames to packets and back, in any order and with any bytes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from relay.mix.video.assembly import PATIENCE_US, AccessUnit, Assembler, VideoCodec
from relay.mix.video.packets import MAX_PAYLOAD, NTP_EPOCH_S, Packetizer, nal_units, ntp
from relay.plane.reference import rtp

START = b"\x00\x00\x00\x01"
KEY = bytes((0x67, 66, 0xE0, 31)), bytes((0x68, 0xCE)), b"\x65"
codecs = st.sampled_from(["h264", "vp8"])


def coded(codec: VideoCodec, size: int, keyframe: bool) -> bytes:
    """A frame as an encoder gives it, without zeros."""
    body = bytes(0x80 | n % 100 for n in range(size))  # first_mb_in_slice is 0
    if codec == "h264":
        units = [*KEY[:2], KEY[2] + body] if keyframe else [b"\x61" + body]
        return b"".join(START + unit for unit in units)
    head = b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" if keyframe else b"\x11\x02\x00"
    return head + body


def sent(codec: VideoCodec, sizes: list[int], first: int = 65_530) -> tuple[list[bytes], list[list[bytes]]]:
    packets = Packetizer(codec, 9, 96, first, 32_767)
    frames = [coded(codec, size, n == 0) for n, size in enumerate(sizes)]
    return frames, [packets.packets(frame, n * 3000, n) for n, frame in enumerate(frames)]


@given(codecs, st.lists(st.integers(1, 9000), min_size=1, max_size=8), st.integers(0, 99))
def test_frames_come_back_whole_from_packets_in_any_order(codec: VideoCodec, sizes: list[int], seed: int) -> None:
    frames, packets = sent(codec, sizes)
    flat = [packet for group in packets for packet in group]
    assert all(len(packet) <= MAX_PAYLOAD + 32 for packet in flat)
    assembler = Assembler(codec)
    units = assembler.receive(flat[0], 0)
    rest = flat[1:]
    random.Random(seed).shuffle(rest)
    for packet in [*rest, *rest]:  # each of them twice
        units += assembler.receive(packet, 0)
    assert [unit.data for unit in units] == frames
    assert [unit.timestamp for unit in units] == [n * 3000 for n in range(len(sizes))]
    assert [unit.keyframe for unit in units] == [n == 0 for n in range(len(sizes))]
    assert not assembler.broken
    assert assembler.lost == assembler.malformed == 0


@given(codecs, st.lists(st.integers(6000, 9000), min_size=1, max_size=4), st.data())
def test_a_stream_may_begin_with_a_packet_that_overtook_others(
    codec: VideoCodec, sizes: list[int], data: st.DataObject
) -> None:
    frames, packets = sent(codec, sizes)
    flat = [packet for group in packets for packet in group]
    overtook = flat.pop(data.draw(st.integers(2, len(flat) - 1)))
    assembler, units = Assembler(codec), []
    for packet in (overtook, *flat):
        units += assembler.receive(packet, 0)
    assert [unit.data for unit in units] == frames
    assert units[0].keyframe


@given(codecs, st.lists(st.integers(1, 9000), min_size=1, max_size=8), st.integers(1, 3))
def test_padding_alone_counts_as_a_packet_and_as_nothing_else(codec: VideoCodec, sizes: list[int], every: int) -> None:
    frames, packets = sent(codec, sizes)
    assembler, units, seq = Assembler(codec), [], 65_530
    for number, packet in enumerate(packet for group in packets for packet in group):
        units += assembler.receive(packet[:2] + (seq & 0xFFFF).to_bytes(2, "big") + packet[4:], 0)
        seq += 1
        if number % every == 0:
            padding = rtp.build_header(96, False, seq & 0xFFFF, number * 700, 9)
            units += assembler.receive(bytes((padding[0] | 0x20,)) + padding[1:] + bytes(99) + b"\x64", 0)
            seq += 1
    assert [unit.data for unit in units] == frames
    assert assembler.lost == assembler.malformed == 0


@given(codecs, st.integers(1, 17))
def test_after_a_loss_nothing_comes_before_the_next_keyframe(codec: VideoCodec, lost: int) -> None:
    packets = Packetizer(codec, 9, 96, 100)
    frames = [coded(codec, 2500, n in (0, 6)) for n in range(9)]
    groups = [packets.packets(frame, n * 3000, 0) for n, frame in enumerate(frames)]
    flat = [(n, packet) for n, group in enumerate(groups) for packet in group]
    dropped = flat[lost]
    assembler, units = Assembler(codec), []
    for n, packet in flat:
        if packet is not dropped[1]:
            units += assembler.receive(packet, n * 2 * PATIENCE_US)
    times = [unit.timestamp // 3000 for unit in units]
    assert times == [n for n in range(9) if n < dropped[0] or n >= 6]
    assert assembler.lost <= 1


@given(codecs, st.lists(st.binary(max_size=80), max_size=20), st.integers(0, 65_535))
def test_any_payloads_are_survived(codec: VideoCodec, payloads: list[bytes], seq: int) -> None:
    assembler = Assembler(codec)
    for index, payload in enumerate(payloads):
        header = rtp.build_header(96, index % 3 == 2, (seq + index) & 0xFFFF, index // 3 * 3000, 7)
        for unit in assembler.receive(header + payload, index):
            assert isinstance(unit, AccessUnit)
    for payload in payloads:
        assembler.receive(payload, 10**7)


def test_a_delimiter_may_stand_before_a_keyframe() -> None:
    assembler = Assembler("h264")
    units = [bytes((9, 0x10)), *KEY[:2], KEY[2] + b"\x80\x80"]
    found = []
    for seq, unit in enumerate(units):
        found += assembler.receive(rtp.build_header(96, seq == 3, seq, 0, 7) + unit, 0)
    assert [unit.data for unit in found] == [b"".join(START + unit for unit in units)]


def test_another_source_begins_anew() -> None:
    assembler = Assembler("vp8")
    for ssrc in (1, 2):
        packets = Packetizer("vp8", ssrc, 96, 100 * ssrc)
        assert len(assembler.receive(packets.packets(coded("vp8", 10, True), 0, 0)[0], 0)) == 1
        assert assembler.receive(packets.packets(coded("vp8", 10, False), 3000, 0)[0], 0)[0].timestamp == 3000
    far = Packetizer("vp8", 2, 96, 40_000)
    assert assembler.receive(far.packets(coded("vp8", 10, False), 0, 0)[0], 0) == []
    assert assembler.broken


def test_the_wall_time_of_a_frame_travels_with_it() -> None:
    wall = 1_700_000_000_250_000
    packet = Packetizer("vp8", 1, 96, 0).packets(coded("vp8", 10, True), 0, wall)[0]
    (unit,) = Assembler("vp8").receive(packet, 0)
    assert unit.capture is not None
    seconds = 1_700_000_000 + NTP_EPOCH_S
    assert unit.capture == seconds << 32 | 1 << 30
    assert ntp(wall) == unit.capture.to_bytes(8, "big")


def test_units_end_at_start_codes_of_either_length() -> None:
    assert nal_units(b"\x00\x00\x01\x67ab\x00\x00\x00\x01\x68c\x00\x00\x01\x65") == [b"\x67ab", b"\x68c", b"\x65"]
    assert nal_units(b"no start") == []

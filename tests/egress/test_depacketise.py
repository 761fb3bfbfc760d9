"""From packets to units: order, loss, nonsense, parameter sets, time. Nothing here waits for a clock."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from struct import pack

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.egress.h264 import Depacketiser, Parameters
from relay.egress.media import AudioUnit, VideoUnit
from relay.egress.picture import Picture
from relay.egress.reorder import MAX_HELD, WAIT_US, Ordered, Reorder
from relay.egress.source import SILENCE_US, Source, Stream
from relay.egress.sps import parse_sps
from relay.egress.timing import STRANGE_US, TOLERANCE_US, WINDOW_US, RtpClock
from relay.errors import PeerError, UsageError
from relay.plane.reference.rtp import Packet, parse
from tests.egress.show import AUDIO, STREAMS, VIDEO, Look, Rtp, Show


def recorded(seconds: float, look: Look | None = None) -> list[tuple[int, Rtp]]:
    """The packets of a show's beginning, with their moments in µs."""
    return list(Show(look).packets(round(seconds * 1e6), lambda: 0))


def pictures(source: Source, packets: list[tuple[int, Rtp]]) -> list[VideoUnit]:
    found = [unit for at, packet in packets for unit in source.receive(packet.stream, at, packet.data)]
    return [unit for unit in found if isinstance(unit, VideoUnit)]


def packet(seq: int, timestamp: int = 0, payload: bytes = b"", marker: bool = False, arrival: int = 0) -> Packet:
    found = parse(pack("!BBHII", 0x80, 96 | marker << 7, seq & 0xFFFF, timestamp, 1) + payload, arrival)
    assert found is not None
    return found


def annex_b(data: bytes) -> bytes:
    """NAL units with start codes instead of lengths."""
    found = b""
    while data:
        size = int.from_bytes(data[:4], "big")
        found, data = found + b"\0\0\0\1" + data[4 : 4 + size], data[4 + size :]
    return found


# --- order ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 65535), st.lists(st.integers(0, 60), min_size=1, max_size=60))
def test_any_order_within_the_window_comes_out_in_order(first: int, swaps: list[int]) -> None:
    numbers = list(range(61))
    for swap in swaps:
        other = min(swap + 7, 60)
        numbers[swap], numbers[other] = numbers[other], numbers[swap]
    order = Reorder()
    order.push(packet(first - 1))
    found = [each for n in numbers for each in order.push(packet(first + n))]
    assert [each.packet.seq for each in found] == [(first + n) & 0xFFFF for n in range(61)]
    assert not any(each.lost for each in found)


def test_duplicates_and_latecomers_are_left_out() -> None:
    order = Reorder()
    assert len(order.push(packet(5))) == 1
    assert order.push(packet(5)) == []
    assert order.push(packet(4)) == []
    assert order.late == 2


def test_what_is_missing_too_long_is_lost() -> None:
    order = Reorder()
    order.push(packet(65535))
    assert order.push(packet(2, arrival=1000)) == []
    assert order.expire(1000 + WAIT_US - 1) == []
    assert [(each.packet.seq, each.lost) for each in order.expire(1000 + WAIT_US)] == [(2, True)]
    assert order.lost == 2
    found = [each for n in range(4, 6 + MAX_HELD) for each in order.push(packet(n))]
    assert found[0].lost
    assert len(found) == MAX_HELD + 2


def test_one_stray_number_changes_nothing_and_two_are_another_source() -> None:
    order = Reorder()
    order.push(packet(5))
    assert order.push(packet(30_000)) == []
    assert [each.lost for each in order.push(packet(6))] == [False]
    order.push(packet(30_000))
    assert [(each.packet.seq, each.lost) for each in order.push(packet(30_001))] == [(30_001, True)]


# --- pictures -------------------------------------------------------------------------------------------------------


def test_a_show_comes_out_as_it_went_in() -> None:
    packets = recorded(1.0)
    found = pictures(Source(STREAMS), packets)
    assert len(found) == 30
    assert [unit.keyframe for unit in found] == [True] + 29 * [False]
    assert {after.time - before.time for before, after in pairwise(found)} <= {33_333, 33_334}
    decoder = av.CodecContext.create("h264", "r")
    sets = found[0].parameters
    assert isinstance(sets, Parameters)
    head = b"".join(b"\0\0\0\1" + nal for nal in (sets.sps, *sets.pps))
    shown = [len(decoder.decode(av.Packet(head + annex_b(unit.data)))) for unit in found]
    assert sum(shown) >= 28


def test_padding_between_packets_changes_nothing() -> None:
    packets = recorded(1.0)
    shifts = {VIDEO: 0, AUDIO: 0}
    padded, whole = Source(STREAMS), Source(STREAMS)
    units: list[VideoUnit | AudioUnit] = []
    expected: list[VideoUnit | AudioUnit] = []
    for index, (at, each) in enumerate(packets):
        expected += whole.receive(each.stream, at, each.data)
        seq = int.from_bytes(each.data[2:4], "big") + shifts[each.stream]
        units += padded.receive(each.stream, at, each.data[:2] + seq.to_bytes(2, "big") + each.data[4:])
        if index % 5 == 0:
            shifts[each.stream] += 1
            later = (int.from_bytes(each.data[4:8], "big") + 4_000).to_bytes(4, "big")
            head = bytes((0x80 | 0x20, each.data[1] & 0x7F)) + (seq + 1).to_bytes(2, "big") + later + each.data[8:12]
            units += padded.receive(each.stream, at, head + bytes(99) + b"\x64")
    assert units == expected
    assert len(units) > 60
    assert padded.lost == padded.damaged == 0


def test_one_lost_packet_costs_everything_up_to_the_next_keyframe() -> None:
    packets = recorded(1.0, Look(gop=10))
    video = [index for index, (_, each) in enumerate(packets) if each.stream == VIDEO]
    whole = pictures(Source(STREAMS), packets)
    lost = video[len(video) // 8]
    source = Source(STREAMS)
    damaged = pictures(source, packets[:lost] + packets[lost + 1 :])
    damaged += [unit for unit in source.tick(10_000_000) if isinstance(unit, VideoUnit)]
    missing = [unit for unit in whole if unit not in damaged]
    assert 1 <= len(missing) <= 10
    assert source.lost == 1
    after = damaged[damaged.index(next(unit for unit in damaged if unit.time > missing[0].time))]
    assert after.keyframe


def test_a_source_waits_for_a_keyframe_and_asks_for_it() -> None:
    packets = recorded(1.0, Look(gop=20))
    first = next(index for index, (at, each) in enumerate(packets) if at > 0 and each.stream == VIDEO)
    source = Source(STREAMS)
    assert source.keyframes_wanted(10**9) == [VIDEO]
    assert source.keyframes_wanted(10**9 + 1000) == []
    found = pictures(source, packets[first:])
    assert found[0].keyframe
    assert len(found) == 10
    source.want_keyframe()
    assert source.keyframes_wanted(2 * 10**9) == [VIDEO]


@pytest.mark.parametrize("sps_first", [True, False])
def test_another_sps_takes_all_of_its_pps_along_and_none_of_the_former_one(sps_first: bool) -> None:
    """Encoders may use several PPS at once, and each is needed to decode what refers to it."""
    reader = Depacketiser()
    shows = (pictures(Source(STREAMS), recorded(0.05, look))[0] for look in (Look(), Look(width=640, height=360)))
    small, large = (show.parameters.sps for show in shows if isinstance(show.parameters, Parameters))
    former, later = (b"\x68\xc8", b"\x68\x48", b"\x68\x68"), (b"\x68\xce", b"\x68\x4e")  # ids 0, 1, 2 and 0, 1
    seq = 0
    taken: list[Picture] = []
    for timestamp, (sps, pps) in enumerate([(small, former), (large, later), (large, later)]):
        for nal in (*((sps, *pps) if sps_first else (*pps, sps)), b"\x65\x88\x84"):
            taken += reader.push(Ordered(packet(seq, 3000 * timestamp, nal, nal[0] == 0x65), False))
            seq += 1
        assert reader.parameters is not None
        assert (reader.parameters.sps, reader.parameters.pps) == (sps, pps)
    assert [each.keyframe for each in taken] == [True, True, True]


def test_an_aggregate_and_a_fragment_of_nonsense_cost_one_picture() -> None:
    keyframe = b"\x65\x88\x84"
    sets = [each.data[12:] for _, each in recorded(0.02) if each.stream == VIDEO]
    for nonsense in (
        b"\x78\x00",
        b"\x78\xff\xff\x01",
        b"\x7c\x05",
        b"\x7c\x45\x00",
        b"\x7c\xc5\x00",
        b"\x79\x01",
        b"\x60",
    ):  # the last ones are of no mode
        reader = Depacketiser()
        found: list[Picture] = []
        told = [
            *((0, payload, index == len(sets) - 1) for index, payload in enumerate(sets)),
            (3000, nonsense, False), (3000, b"\x41\x9a", True), (6000, b"\x41\x9a", True), (9000, keyframe, True),
        ]  # fmt: skip
        for seq, (timestamp, payload, marker) in enumerate(told):
            found += reader.push(Ordered(packet(seq, timestamp, payload, marker), False))
        assert [each.timestamp for each in found] == [0, 9000]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.binary(max_size=40)), max_size=30))
def test_no_payload_breaks_the_reader(packets: list[tuple[int, bool, bool, bytes]]) -> None:
    reader = Depacketiser()
    for index, (timestamp, marker, lost, payload) in enumerate(packets):
        for each in reader.push(Ordered(packet(index, timestamp, payload, marker), lost)):
            assert each.data


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([VIDEO, AUDIO, 9]), st.binary(max_size=60)), max_size=20))
def test_no_packet_breaks_a_source(packets: list[tuple[int, bytes]]) -> None:
    source = Source(STREAMS)
    for number, data in packets:
        source.receive(number, 1000, data)
        source.receive(number, 1000, pack("!BBHII", 0x80, 0x80 | (96 if number == VIDEO else 111), 1, 1, 1) + data)
    source.tick(10**7)


@given(st.binary(max_size=80))
def test_no_sps_breaks_its_reader(data: bytes) -> None:
    try:
        facts = parse_sps(b"\x67" + data)
    except PeerError:
        return
    assert 1 <= facts.width <= 8192
    assert 1 <= facts.height <= 8192


@pytest.mark.parametrize(("width", "height"), [(320, 180), (640, 360), (1280, 720), (854, 480), (318, 178)])
@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
def test_sizes_are_those_that_were_encoded(width: int, height: int, profile: str) -> None:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.options, encoder.time_base = {"profile": profile}, Fraction(1, 30)
    encoder.flags |= 1 << 22
    encoder.open()
    sps = next(nal for nal in bytes(encoder.extradata).split(b"\0\0\0\1") if nal[:1] == b"\x67")
    assert parse_sps(sps)[3:] == (width, height)


# --- time and sound -------------------------------------------------------------------------------------------------


def test_the_fastest_packets_tell_the_time_and_jitter_does_not() -> None:
    clock, rng = RtpClock(90_000), random.Random(3)
    times = [clock.time((n * 3000 - 5) & 0xFFFFFFFF, n * 33_333 + rng.randrange(10_000)) for n in range(600)]
    assert all(abs(after - before - 33_333) <= 1 for before, after in pairwise(times))
    assert clock.jumps == 0


def test_a_base_that_is_wrong_is_mended_once_and_a_new_source_at_once() -> None:
    clock = RtpClock(90_000)
    clock.time(0, 2 * TOLERANCE_US)  # the first packet was late
    assert clock.time(9000, 100_000) == 100_000
    assert clock.jumps == 1
    later = 10 * WINDOW_US
    assert clock.time(77, later + STRANGE_US) == later + STRANGE_US


def test_a_clock_has_a_rate() -> None:
    with pytest.raises(UsageError):
        RtpClock(0)


def sounds(units: list[VideoUnit | AudioUnit]) -> list[AudioUnit]:
    return [unit for unit in units if isinstance(unit, AudioUnit)]


def test_sound_has_no_gap_whatever_comes() -> None:
    packets = [(at, each) for at, each in recorded(3.0) if each.stream == AUDIO]
    source = Source((Stream(AUDIO, "audio", "opus", 111),))
    units: list[VideoUnit | AudioUnit] = []
    for index, (at, each) in enumerate(packets):
        units += source.tick(at)
        if 40 <= index < 90:
            continue
        if index % 7:
            units += source.receive(AUDIO, at, each.data)
    units += source.tick(3_400_000)
    found = sounds(units)
    assert {after.position - before.position for before, after in pairwise(found)} == {1024}
    assert found[-1].time > 2_700_000


def test_sound_that_never_comes_is_silence_from_the_first_picture_on() -> None:
    packets = [(at, each) for at, each in recorded(1.0) if each.stream == VIDEO]
    source = Source(STREAMS)
    pictures(source, packets)
    found = sounds(source.tick(1_000_000 + SILENCE_US))
    assert found[-1].time >= 900_000


def test_wrong_sources_are_refused() -> None:
    for streams in ((), (STREAMS[0], STREAMS[0]), (Stream(1, "video", "opus"),)):
        with pytest.raises(UsageError):
            Source(streams)

"""VP8, which recordings take: from packets to frames, into a file for others, and refused where it does not go."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from struct import pack

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.egress.codecs import check_codecs
from relay.egress.media import AudioConfig, Unit, VideoUnit
from relay.egress.mp4 import init_segment
from relay.egress.picture import MAX_PICTURE
from relay.egress.record import GROWING
from relay.egress.reorder import Ordered
from relay.egress.segmenter import Segmenter, SegmentReady
from relay.egress.source import Source
from relay.egress.vp8 import Vp8Depacketiser, Vp8Parameters, parse_keyframe
from relay.errors import BadRequest, PeerError
from relay.plane.reference.rtp import Packet, parse
from relay.plane.vp8_payload import vp8_frame
from tests.egress.show import VIDEO, LiveFeeds, Look, Rtp, Show
from tests.egress.test_recording import counters, files, grown, sizes
from tests.egress.world import FFMPEG, World, ffmpeg_errors, until
from tests.processes import ended

LOOK = Look(codec="vp8", gop=15)
KEYFRAME = b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xb4\x00" + bytes(40)
DELTA = b"\x11\x02\x00" + bytes(40)
BEGINS, GOES_ON = b"\x10", b"\x00"


def recorded(seconds: float) -> list[tuple[int, Rtp]]:
    return list(Show(LOOK).packets(round(seconds * 1e6), lambda: 0))


def units(packets: list[tuple[int, Rtp]]) -> list[Unit]:
    source = Source(LOOK.streams)
    found = [unit for at, packet in packets for unit in source.receive(packet.stream, at, packet.data)]
    return found + source.tick(packets[-1][0] + 1_000_000)


def ordered(seq: int, timestamp: int, payload: bytes, *, marker: bool = False, lost: bool = False) -> Ordered:
    found = parse(pack("!BBHII", 0x80, 96 | marker << 7, seq, timestamp, 1) + payload, 1000 * seq)
    assert found is not None
    return Ordered(found, lost)


def read(*packets: Ordered) -> tuple[list[int], Vp8Depacketiser]:
    reader = Vp8Depacketiser()
    return [picture.timestamp for packet in packets for picture in reader.push(packet)], reader


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_show_comes_out_as_it_went_in() -> None:
    found = [unit for unit in units(recorded(1.0)) if isinstance(unit, VideoUnit)]
    assert [unit.keyframe for unit in found] == [index % 15 == 0 for index in range(30)]
    assert {unit.parameters for unit in found} == {Vp8Parameters(0, 320, 180)}
    decoder = av.CodecContext.create("vp8", "r")
    shown = [frame for unit in found for frame in decoder.decode(av.Packet(unit.data))]
    assert {(frame.width, frame.height) for frame in shown} == {(320, 180)}
    assert len(shown) == 30


def test_one_lost_packet_costs_everything_up_to_the_next_keyframe() -> None:
    packets = recorded(1.0)
    lost = next(index for index, (at, each) in enumerate(packets) if at > 200_000 and each.stream == VIDEO)
    whole, damaged = units(packets), units(packets[:lost] + packets[lost + 1 :])
    pictures = [unit for unit in whole if isinstance(unit, VideoUnit)]
    missing = [unit.time for unit in pictures if unit not in damaged]
    keyframe = [unit.time for unit in pictures if unit.keyframe][1]
    assert missing == [unit.time for unit in pictures if missing[0] <= unit.time < keyframe]
    assert len(missing) >= 2


def test_fragments_are_joined_and_a_stream_that_begins_within_one_waits() -> None:
    frame = [KEYFRAME[:12], KEYFRAME[12:30], KEYFRAME[30:]]
    parts = [ordered(n, 9, (GOES_ON if n else BEGINS) + part, marker=n == 2) for n, part in enumerate(frame)]
    pictures = [picture for part in parts for picture in Vp8Depacketiser().push(part)]
    assert pictures == []  # each reader saw but one of them
    reader = Vp8Depacketiser()
    (picture,) = [picture for part in parts for picture in reader.push(part)]
    assert (picture.data, picture.keyframe, picture.arrival) == (KEYFRAME, True, 0)
    told, reader = read(*parts[1:], ordered(3, 12, BEGINS + DELTA, marker=True))
    assert (told, reader.waits) == ([], True)


def test_a_picture_without_a_marker_ends_where_the_next_one_begins() -> None:
    told, _ = read(
        ordered(0, 3, BEGINS + KEYFRAME), ordered(1, 6, BEGINS + DELTA), ordered(2, 9, BEGINS + DELTA, marker=True)
    )
    assert told == [3, 6, 9]


def test_what_is_lost_between_two_pictures_costs_those_that_refer_to_it() -> None:
    told, _ = read(
        ordered(0, 3, BEGINS + KEYFRAME, marker=True),
        ordered(2, 9, BEGINS + DELTA, marker=True, lost=True),
        ordered(3, 12, BEGINS + KEYFRAME, marker=True),
        ordered(5, 18, BEGINS + KEYFRAME, marker=True, lost=True),
        ordered(6, 21, GOES_ON + KEYFRAME, marker=True),
    )
    assert told == [3, 12, 18]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x90", b"\x90\x80", b"\x90\x80\x80", b"\x10", b"\x10\x11", b"\x10" + DELTA[:2], b"\x10" + KEYFRAME[:9],
        b"\x10\x10\xff\xff\x9d\x01\x2a\x40\x01\xb4\x00", b"\x10\x10\x02\x00\x9d\x01\x2b\x40\x01\xb4\x00" + bytes(30),
        b"\x10\x10\x02\x00\x9d\x01\x2a\x00\x00\xb4\x00" + bytes(30), b"\x10\x19\x02\x00" + bytes(30),
    ],
)  # fmt: skip
def test_nonsense_costs_pictures_up_to_the_next_keyframe(nonsense: bytes) -> None:
    told, reader = read(
        ordered(0, 3, BEGINS + KEYFRAME, marker=True),
        ordered(1, 6, nonsense, marker=True),
        ordered(2, 9, BEGINS + DELTA, marker=True),
        ordered(3, 12, BEGINS + KEYFRAME, marker=True),
    )
    assert told == [3, 12]
    assert reader.damaged == 1


def test_a_picture_without_an_end_does_not_fill_the_memory() -> None:
    reader = Vp8Depacketiser()
    part = GOES_ON + bytes(60_000)
    reader.push(ordered(0, 3, BEGINS + KEYFRAME))
    for seq in range(1, MAX_PICTURE // 60_000 + 50):
        assert reader.push(ordered(seq, 3, part)) == []
    assert reader._packets == []
    assert reader.waits


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.binary(max_size=40)), max_size=30))
def test_no_payload_breaks_the_reader(packets: list[tuple[int, bool, bool, bytes]]) -> None:
    reader, first = Vp8Depacketiser(), True
    for index, (timestamp, marker, lost, payload) in enumerate(packets):
        for each in reader.push(ordered(index, timestamp, payload, marker=marker, lost=lost)):
            assert each.data
            assert each.keyframe or not first
            first = False


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=30), st.sampled_from([b"", KEYFRAME[:3], KEYFRAME[:6], DELTA[:3]]))
def test_no_frame_breaks_the_reader_of_its_header(data: bytes, head: bytes) -> None:
    try:
        found = parse_keyframe(head + data)
    except PeerError:
        return
    if found is not None:
        assert 1 <= found.width < 1 << 14
        assert 1 <= found.height < 1 << 14


@given(st.lists(st.binary(max_size=12), max_size=5))
def test_no_descriptor_breaks_its_reader(payloads: list[bytes]) -> None:
    packets: list[Packet] = [ordered(0, 0, payload).packet for payload in payloads]
    frame = vp8_frame(packets)
    assert frame is None or len(frame) <= sum(map(len, payloads)) - len(payloads)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_says_what_is_in_it() -> None:
    init = init_segment(Vp8Parameters(1, 640, 360), AudioConfig(b"\x11\x90"))
    entry = init[init.index(b"vp08") :]
    # VP Codec ISO Media File Format Binding: version 1; profile, level 2.1, 8 bits 4:2:0, BT.601, no data.
    assert entry.startswith(b"vpcC" + bytes.fromhex("01000000 01 15 82 02 02 06 0000"), 4 + 78 + 4)
    assert entry[28:32] == pack("!2H", 640, 360)
    levels = []
    for width, height in ((160, 90), (1280, 720), (1920, 1080), (16383, 16383)):
        init = init_segment(Vp8Parameters(0, width, height), None)
        levels.append(init[init.index(b"vpcC") + 9])
    assert levels == [10, 31, 40, 62]


def test_other_programs_read_it(tmp_path: Path) -> None:
    segmenter = Segmenter(AudioConfig(b"\x11\x90"), 300_000, 2_000_000, 3_000_000)
    events = [event for unit in units(recorded(2.0)) for event in segmenter.take(unit)] + segmenter.finish()
    path = tmp_path / "show.mp4"
    path.write_bytes(b"".join(event.data for event in events if not isinstance(event, SegmentReady)))
    said = subprocess.run([FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False).stderr
    assert "Video: vp8" in said
    assert "(vp08 / " in said
    assert "320x180" in said
    assert ffmpeg_errors(path) == ""
    assert counters(path) == list(range(60))


async def test_a_recording_survives_a_kill_and_other_sizes(tmp_path: Path) -> None:
    feeds = LiveFeeds(Show(Look(codec="vp8")))
    world = World(feeds, tmp_path)
    try:
        feeds.start()
        egress = await world.start("recording")
        await world.running(egress)
        await grown(world, 40_000)
        (growing,) = files(world)
        assert growing.name.endswith(GROWING)
        last = feeds.show.video.pictures
        (pid,) = world.pids()
        os.kill(pid, signal.SIGKILL)
        await ended(pid)
        assert ffmpeg_errors(growing) == ""
        assert last - counters(growing)[-1] <= 40
        await until(lambda: len(world.manager.get(egress)["files"]) == 2)
        await grown(world, 20_000)
        feeds.show.video.change(Look(codec="vp8", width=480, height=270))
        await until(lambda: len(world.manager.get(egress)["files"]) == 3)
        await grown(world, 20_000)
        await world.manager.stop(egress)
        assert [sizes(path) for path in files(world)] == [{(320, 180)}, {(320, 180)}, {(480, 270)}]
        assert ffmpeg_errors(*files(world)) == ""
        told = [counter for path in files(world) for counter in counters(path)]
        assert told == sorted(set(told))
    finally:
        await world.close()
        feeds.stop()


# --- where it does not go ---------------------------------------------------------------------------------------------


async def test_hls_and_pushes_are_refused_before_and_while_it_is_recorded(tmp_path: Path) -> None:
    feeds = LiveFeeds(Show(Look(codec="vp8")))
    world = World(feeds, tmp_path)

    async def refused() -> None:
        for kind, url in (("hls", ""), ("rtmp", "rtmp://127.0.0.1:9/live/key")):
            with pytest.raises(BadRequest) as error:
                await world.start(kind, url=url)
            assert error.value.code == "codec-not-taken"
            assert "program" in str(error.value)
            assert '"codecs": ["opus", "h264"]' in str(error.value)

    try:
        feeds.start()
        await refused()
        assert world.manager.list() == []
        assert feeds.opened == []
        egress = await world.start("recording")
        await world.running(egress)
        await refused()
        assert world.manager.get(egress)["state"] == "running"
    finally:
        await world.close()
        feeds.stop()


async def test_a_source_that_comes_back_as_vp8_ends_its_hls_and_goes_on_being_recorded(
    world: World, feeds: LiveFeeds
) -> None:
    feeds.start()
    recording, hls = await world.start("recording"), await world.start("hls")
    await world.running(hls)
    await world.running(recording)
    feeds.show.look = Look(codec="vp8")
    feeds.show.video.change(feeds.show.look)
    feeds.opened[0].on_end()
    await until(lambda: world.manager.get(hls)["state"] == "failed")
    assert world.manager.get(hls)["error"]["code"] == "codec-not-taken"
    await until(lambda: len(world.manager.get(recording)["files"]) == 2)
    await grown(world, 10_000)
    await world.manager.stop(recording)
    assert ffmpeg_errors(*files(world)) == ""


def test_sound_alone_goes_anywhere() -> None:
    for kind in ("hls", "rtmp", "recording"):
        check_codecs(kind, LOOK.streams[1:])  # type: ignore[arg-type]

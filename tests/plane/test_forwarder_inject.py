"""Taps and injection: a track carried to another plane."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.contract import (
    AddTap,
    AddTrack,
    BindSlot,
    KeyframeRequested,
    Kind,
    LayerSpec,
    LayerStarted,
    LayerStopped,
    LoudnessMeasured,
    RemoveRingTaps,
    RemoveTap,
    RemoveTrack,
    RequestKeyframe,
)
from relay.plane.reference import rtp
from relay.plane.reference.state import INJECT_EXTENSIONS
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, OPUS, PUBLISHER_EXTENSIONS, SECOND, VIEWER_EXTENSIONS, VP8, VP8_RTX, World

KEY = b"\x90\xe0\x80\x01\x01\x20\x10\x00\x00\x9d\x01\x2a\x80\x02\x68\x01" + bytes(20)


def test_tap_and_inject_carry_a_track_to_another_plane() -> None:
    here, there = World(seed=1), World(seed=2)
    publisher, viewer = Publisher(here), Viewer(there)
    video = publisher.video()[0].start()
    here.apply(AddTap(5, video.track, 0))
    there.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8, VP8_RTX), (LayerSpec(),)))
    slot = viewer.slot()
    there.apply(BindSlot(slot, 50))
    publisher.up.loss = 0.05
    for _ in range(200):
        here.run(10 * MS)
        for tap, packet, at in here.tapped:
            assert tap == 5
            assert at <= here.now
            there.plane.inject(50, 0, packet, there.now)
            there.pump()
        here.tapped.clear()
        there.run(10 * MS)
    check_stream(viewer.got(slot), holes=True)
    assert len(viewer.got(slot)) > 100
    viewer.pli(slot)
    there.run(20 * MS)
    assert there.of(KeyframeRequested)[-1] == KeyframeRequested(50, 0)
    here.apply(RemoveTap(5))
    here.run(SECOND)
    assert here.tapped == []


def test_injected_packets_carry_canonical_extension_ids() -> None:
    world = World()
    viewer = Viewer(world, VIEWER_EXTENSIONS)
    world.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8,), (LayerSpec(),)))
    slot = viewer.slot()
    world.apply(BindSlot(slot, 50))
    header = rtp.build_header(96, True, 1, 1, 9, ((INJECT_EXTENSIONS["orientation"], b"\x01"),))
    world.plane.inject(50, 0, header + KEY, world.now)
    world.plane.inject(50, 0, header + KEY, world.now)
    world.plane.inject(50, 0, b"\x80", world.now)
    world.pump()
    world.run(20 * MS)
    assert [packet.extensions["orientation"] for packet in viewer.got(slot)] == [b"\x01"]
    assert world.plane.stats().drops == {"inject_duplicate": 1, "inject_malformed": 1}


def test_undrained_taps_are_bounded_and_counted() -> None:
    world = World()
    world.apply(AddTrack(50, None, Kind.AUDIO, "", (), (LayerSpec(),)))
    world.apply(AddTrack(51, None, Kind.VIDEO, "", (VP8,), (LayerSpec(),)), AddTap(1, 51, 0))
    for seq in range(5000):
        world.plane.inject(51, 0, rtp.build_header(96, True, seq, 1, 9) + b"\x10\x00\x00", world.now)
    assert len(world.plane.taps()) == 4096
    assert world.plane.taps_dropped == 5000 - 4096


def test_what_an_injected_packet_is_dropped_for() -> None:
    world = World()
    world.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8,), (LayerSpec(),)))
    header = rtp.build_header(96, True, 1, 1, 9)
    world.plane.inject(50, 0, header + bytes(1500 - len(header)), world.now)
    assert world.plane.stats().drops == {}
    world.plane.inject(50, 0, header + bytes(1501 - len(header)), world.now)
    world.plane.inject(50, 0, bytes(70_000), world.now)
    world.plane.inject(50, 0, b"", world.now)
    world.plane.inject(50, 0, header + b"again", world.now)
    world.plane.inject(50, 0, rtp.build_header(100, True, 2, 1, 9) + b"x", world.now)
    drops = {"inject_oversize": 2, "inject_malformed": 1, "inject_duplicate": 1, "inject_unknown_payload_type": 1}
    assert world.plane.stats().drops == drops
    assert world.plane.stats().datagrams_in == 0
    for track, layer in ((50, 1), (50, -1), (51, 0)):
        with pytest.raises(UsageError):
            world.plane.inject(track, layer, header, world.now)
    world.check_conservation()


def test_an_injected_track_tells_what_a_received_one_does() -> None:
    world = World()
    viewer = Viewer(world)
    world.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8,), (LayerSpec("q"), LayerSpec("f"))))
    slot = viewer.slot()
    world.apply(BindSlot(slot, 50, 1))
    delta = b"\x80\x80\x01\x31\x00\x00" + bytes(20)
    world.plane.inject(50, 1, rtp.build_header(96, True, 1, 1, 9) + delta, world.now)
    world.pump()
    assert world.of(LayerStarted) == [LayerStarted(50, 1, 9, 96)]
    assert world.of(KeyframeRequested) == [KeyframeRequested(50, 1)]
    world.apply(RequestKeyframe(50, 0), RequestKeyframe(50, 1), RequestKeyframe(50, 1))
    world.run(900 * MS)
    asked = world.of(KeyframeRequested)
    assert asked.count(KeyframeRequested(50, 0)) == 1
    assert asked.count(KeyframeRequested(50, 1)) == 2  # the second half a second later, for all who ask
    world.plane.inject(50, 1, rtp.build_header(96, True, 2, 2, 9) + KEY, world.now)
    world.pump()
    world.run(20 * MS)
    assert len(viewer.got(slot)) == 1
    world.run(2 * SECOND)
    assert world.of(LayerStopped) == [LayerStopped(50, 1)]
    world.plane.inject(50, 1, rtp.build_header(96, True, 7, 3, 10) + KEY, world.now)  # another sender takes over
    world.pump()
    assert world.of(LayerStarted)[-1] == LayerStarted(50, 1, 10, 96)
    assert [layer.packets for layer in world.plane.stats().tracks[50]] == [0, 3]


def test_an_injected_voice_is_heard() -> None:
    world = World()
    world.apply(AddTrack(50, None, Kind.AUDIO, "", (OPUS,), (LayerSpec(),)))
    level = ((INJECT_EXTENSIONS["audio_level"], b"\x85"),)
    for seq in range(10):
        world.plane.inject(50, 0, rtp.build_header(111, False, seq, seq * 960, 9, level) + b"sound", world.now)
        world.run(20 * MS)
        world.pump()
    heard = world.of(LoudnessMeasured)[0]
    assert isinstance(heard, LoudnessMeasured)
    assert [track for track, _ in heard.levels] == [50]


def test_a_canonical_tap_can_be_injected_elsewhere_as_it_is() -> None:
    here, there = World(seed=1), World(seed=2)
    publisher, viewer = Publisher(here), Viewer(there, VIEWER_EXTENSIONS)
    video = publisher.video()[0]
    there.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8, VP8_RTX), (LayerSpec(),)))
    slot = viewer.slot()
    there.apply(BindSlot(slot, 50))
    here.apply(AddTap(5, video.track, 0, canonical=True), AddTap(6, video.track, 0))
    ids = dict(PUBLISHER_EXTENSIONS)
    block = ((ids["mid"], video.mid.encode()), (ids["orientation"], b"\x03"), (12, b"unknown"))
    plain = rtp.build_header(96, True, 1, 1, video.ssrc, block) + KEY
    publisher.send_rtp(plain)
    here.run(20 * MS)
    (tap, canonical, _), (other, raw, _) = here.tapped
    assert (tap, other, raw) == (5, 6, plain)
    packet = rtp.parse(canonical, 0)
    assert packet is not None
    expected = {INJECT_EXTENSIONS["mid"]: video.mid.encode(), INJECT_EXTENSIONS["orientation"]: b"\x03"}
    assert {number: packet.extension(number) for number in packet.extensions} == expected
    assert packet.payload == KEY
    there.apply(AddTap(7, 50, 0, canonical=True))
    there.plane.inject(50, 0, canonical, there.now)
    there.pump()
    there.run(20 * MS)
    assert [got.extensions["orientation"] for got in viewer.got(slot)] == [b"\x03"]
    assert [packet for _, packet, _ in there.tapped] == [canonical]  # an injected track has these ids anyway


def test_padding_alone_is_tapped_so_that_no_number_is_missing() -> None:
    here, there = World(seed=1), World(seed=2)
    publisher, viewer = Publisher(here), Viewer(there)
    video = publisher.video()[0].start()
    here.apply(AddTap(5, video.track, 0, canonical=True), AddTap(6, video.track, 0))
    there.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8, VP8_RTX), (LayerSpec(),)))
    slot = viewer.slot()
    there.apply(BindSlot(slot, 50))
    for turn in range(20):
        here.after(turn * 50 * MS + 7 * MS, video.send_padding)
    here.run(2 * SECOND)
    for tap in (5, 6):
        packets = [rtp.parse(packet, at) for other, packet, at in here.tapped if other == tap]
        numbers = [packet.seq for packet in packets if packet]
        assert numbers == list(range(numbers[0], numbers[0] + len(packets)))
        assert sum(not packet.payload for packet in packets if packet) == 20
    for tap, packet, _ in here.tapped:
        if tap == 5:
            there.plane.inject(50, 0, packet, there.now)
    there.pump()
    there.run(SECOND)
    check_stream(viewer.got(slot))
    assert len(viewer.got(slot)) == len(here.tapped) // 2 - 20
    assert viewer.padding == 0


ELEMENTS = st.lists(st.tuples(st.integers(1, 20), st.binary(max_size=20)), max_size=6, unique_by=lambda pair: pair[0])


@given(
    headers=st.lists(
        st.tuples(ELEMENTS, st.integers(0, 3), st.integers(0, 5), st.sampled_from([None, 0x1234, 0xBEDE, 0x1003])),
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_canonical_packets_of_any_header(
    headers: list[tuple[list[tuple[int, bytes]], int, int, int | None]],
) -> None:
    extensions = (*PUBLISHER_EXTENSIONS, ("framemarking", 16), ("dependency_descriptor", 12), ("color_space", 20))
    world = World()
    publisher = Publisher(world, extensions)
    video = publisher.video()[0]
    world.apply(AddTap(5, video.track, 0, canonical=True))
    # Its SSRC is known from here on, whatever the other headers say.
    publisher.send_rtp(rtp.build_header(96, True, 0, 0, video.ssrc, ((4, video.mid.encode()),)) + KEY)
    for number, (elements, sources, padding, profile) in enumerate(headers, 1):
        elements = [(i, value) for i, value in elements if i not in (4, 10, 11)] + [(4, video.mid.encode())]
        plain = bytearray(rtp.build_header(96, True, number, number, video.ssrc, elements))
        if profile is not None:
            plain[12:14] = profile.to_bytes(2, "big")
        plain[12:12] = bytes(range(4 * sources))
        plain[0] |= sources
        tail = bytes(padding - 1) + bytes((padding,)) if padding else b""
        plain[0] |= 0x20 if padding else 0
        publisher.send_rtp(bytes(plain) + KEY + tail)
        world.run(20 * MS)
        assert len(world.tapped) == number + 1
        before = rtp.parse(bytes(plain) + KEY + tail, 0)
        assert before is not None
        packet = rtp.parse(world.tapped[-1][1], 0)
        assert packet is not None
        assert packet.data.endswith(KEY + tail)
        assert packet.payload == KEY
        assert (packet.seq, packet.timestamp, packet.ssrc, packet.marker) == (number, number, video.ssrc, True)
        assert packet.data[12 : 12 + 4 * sources] == bytes(range(4 * sources))
        expected = {
            INJECT_EXTENSIONS[name]: before.extension(i) for name, i in extensions if before.extension(i) is not None
        }
        assert {number: packet.extension(number) for number in packet.extensions} == expected


def test_the_taps_of_a_ring_go_together() -> None:
    world = World()
    world.apply(*(AddTrack(track, None, Kind.VIDEO, "", (VP8,), (LayerSpec(), LayerSpec())) for track in (50, 51, 52)))
    world.apply(AddTap(1, 50, 0, ring=3), AddTap(2, 51, 1, ring=3), AddTap(3, 51, 1, ring=4), AddTap(4, 52, 0, ring=3))
    world.apply(RemoveTrack(52), RemoveRingTaps(3), RemoveRingTaps(3), RemoveRingTaps(9))
    for track, layer in ((50, 0), (51, 1)):
        world.plane.inject(track, layer, rtp.build_header(96, True, 1, 1, 9) + KEY, world.now)
    world.pump()
    assert [tap for tap, _, _ in world.tapped] == [3]
    for tap in (1, 2, 4):
        with pytest.raises(UsageError):
            world.apply(RemoveTap(tap))
    world.apply(RemoveTap(3), AddTap(1, 50, 0))

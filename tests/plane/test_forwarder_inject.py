"""Taps and injection: a track carried to another plane."""

from __future__ import annotations

from relay.plane.contract import (
    AddTap,
    AddTrack,
    BindSlot,
    KeyframeRequested,
    Kind,
    LayerSpec,
    RemoveTap,
)
from relay.plane.reference import rtp
from relay.plane.reference.state import INJECT_EXTENSIONS
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, SECOND, VIEWER_EXTENSIONS, VP8, VP8_RTX, World


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
    key = b"\x90\xe0\x80\x01\x01\x20\x10\x00\x00\x9d\x01\x2a\x80\x02\x68\x01" + bytes(20)
    header = rtp.build_header(96, True, 1, 1, 9, ((INJECT_EXTENSIONS["orientation"], b"\x01"),))
    world.plane.inject(50, 0, header + key, world.now)
    world.plane.inject(50, 0, header + key, world.now)
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

"""A slab that runs full: those inside get every packet, taps too; what cannot be kept is not repeated, and places come
back."""

from __future__ import annotations

import random

import pytest

from relay.plane.contract import (
    AddTap,
    AddTrack,
    BindSlot,
    CloseSession,
    KeyframeRequested,
    Kind,
    LayerSpec,
    PauseSlot,
    RemoveTrack,
    RequestKeyframe,
    SetLayer,
)
from relay.plane.reference import rtcp, rtp
from relay.plane.reference.state import INJECT_EXTENSIONS
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, OPUS, PUBLISHER_EXTENSIONS, SECOND, VP8, World


def free(world: World) -> int:
    return world.plane.stats().slab_free


def lose_and_ask(world: World, viewer: Viewer, slot: int) -> tuple[int, int]:
    """A viewer asks again for the latest packets; returns how many were resent, and how many not."""
    before = world.plane.stats().slots[slot]
    seq = viewer.got(slot)[-1].seq
    asked = [(seq - back) & 0xFFFF for back in range(5)]
    viewer.send_rtcp(rtcp.build_nack(viewer.ssrc, viewer.ssrc_of[slot], asked))
    world.run(100 * MS)
    after = world.plane.stats().slots[slot]
    return after.resent - before.resent, after.not_resent - before.not_resent


@pytest.mark.parametrize("places", [1, 7, 40])
def test_with_a_full_slab_every_packet_is_forwarded_and_none_repeated(places: int) -> None:
    world = World(slab_packets=places)
    publisher, viewers = Publisher(world), [Viewer(world) for _ in range(3)]
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    slots = [(viewer, viewer.watch(stream)) for viewer in viewers for stream in (video, audio)]
    world.run(3 * SECOND)
    stats = world.plane.stats()
    assert (stats.slab_free, stats.slab_total) == (0, places)
    assert stats.unkept > 50
    for viewer, slot in slots:
        check_stream(viewer.got(slot))
        assert viewer.got(slot)[-1].at > world.now - 50 * MS
    assert lose_and_ask(world, *slots[0])[1] > 0
    world.check_conservation()


def test_what_is_kept_is_repeated() -> None:
    world = World(slab_packets=300)
    viewer = Viewer(world)
    slot = viewer.watch(Publisher(world).video()[0].start())
    world.run(2 * SECOND)
    assert world.plane.stats().unkept == 0
    assert lose_and_ask(world, viewer, slot) == (5, 0)


def test_a_full_slab_recovers_by_itself() -> None:
    """Packets that are not kept push out kept ones: the history goes round, and then there is room again."""
    world = World(slab_packets=100, history_video=64)
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()
    slot = viewer.watch(video[0].start())
    others = [(Viewer(world), publisher.video(mid=str(mid))[0].start()) for mid in range(2, 5)]
    late = [(peer, peer.watch(stream)) for peer, stream in others]
    world.run(5 * SECOND)
    assert free(world) == 0
    for peer, _ in late:
        world.apply(CloseSession(peer.session))
    world.run(5 * SECOND)
    assert free(world) > 30
    before = world.plane.stats().unkept
    world.run(SECOND)
    assert world.plane.stats().unkept == before
    assert lose_and_ask(world, viewer, slot) == (5, 0)


@pytest.mark.parametrize("end", ["pause", "unbind", "remove", "silence"])
def test_a_slot_that_shows_nothing_keeps_nothing(end: str) -> None:
    world = World()
    viewer, video = Viewer(world), Publisher(world).video()[0].start()
    slot = viewer.watch(video)
    world.run(3 * SECOND)
    held = world.plane.stats().slab_total - free(world)
    assert held > 80
    if end == "pause":
        world.apply(PauseSlot(slot, True))
    elif end == "unbind":
        world.apply(BindSlot(slot, None))
    elif end == "remove":
        world.apply(RemoveTrack(video.track))
    else:
        video.paused = True
        world.apply(BindSlot(slot, None))
    world.run(1100 * MS)
    held = world.plane.stats().slab_total - free(world)
    assert held <= (0 if end == "remove" else 192), "those since the keyframe are kept by the layer"


def test_taps_get_what_is_not_kept() -> None:
    """As received and with canonical extension ids, each packet as itself and not as the one that followed it."""
    world = World(slab_packets=30)
    viewer, publisher = Viewer(world), Publisher(world)
    video = publisher.video()[0].start()
    slot = viewer.watch(video)
    world.apply(AddTap(5, video.track, 0), AddTap(6, video.track, 0, canonical=True))
    world.run(2 * SECOND)
    assert world.plane.stats().unkept > 50
    assert world.plane.taps_dropped == 0
    shown = [packet.mark for packet in viewer.got(slot)]
    for tap, ids in ((5, dict(PUBLISHER_EXTENSIONS)), (6, INJECT_EXTENSIONS)):
        packets = [rtp.parse(packet, at) for other, packet, at in world.tapped if other == tap]
        assert [packet.payload for packet in packets if packet] == [
            video.history[packet.seq][2] for packet in packets if packet
        ]
        assert len({packet.seq for packet in packets if packet}) == len(packets) == len(shown)
        assert {packet.extension(ids["mid"]) for packet in packets if packet} == {video.mid.encode()}


def test_taps_that_nobody_reads_are_bounded_without_places_too() -> None:
    world = World(slab_packets=1)
    world.apply(AddTrack(51, None, Kind.VIDEO, "", (VP8,), (LayerSpec(),)), AddTap(1, 51, 0))
    for seq in range(5000):
        world.plane.inject(51, 0, rtp.build_header(96, True, seq, 1, 9) + b"\x10\x00\x00", world.now)
    assert [int.from_bytes(packet[2:4], "big") for _, packet, _ in world.plane.taps()] == list(range(4096))
    assert world.plane.taps_dropped == 5000 - 4096


def test_those_behind_a_link_see_as_much_of_a_full_slab_as_those_at_hand() -> None:
    """The track is tapped here and injected there, as links do; the viewer there is as fluent as the one here."""
    here, there = World(seed=1, slab_packets=40), World(seed=2)
    publisher = Publisher(here)
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    near, far = Viewer(here), Viewer(there)
    at_hand = [near.watch(stream) for stream in (video, audio)]
    behind = []
    for tap, stream, kind, codec in ((5, video, Kind.VIDEO, VP8), (6, audio, Kind.AUDIO, OPUS)):
        here.apply(AddTap(tap, stream.track, 0, canonical=True))
        there.apply(AddTrack(50 + tap, None, kind, "", (codec,), (LayerSpec(),)))
        behind.append(far.slot(kind))
        there.apply(BindSlot(behind[-1], 50 + tap))
    for _ in range(300):
        here.run(10 * MS)
        for tap, packet, _ in here.tapped:
            there.plane.inject(50 + tap, 0, packet, there.now)
        here.tapped.clear()
        there.pump()
        there.run(10 * MS)
        for _ in there.of(KeyframeRequested):
            here.apply(RequestKeyframe(video.track, 0))
        there.events.clear()
    assert here.plane.stats().unkept > 200
    for one, other in zip(at_hand, behind, strict=True):
        check_stream(far.got(other))
        shown = [packet.mark for packet in far.got(other)]
        here_too = [packet.mark for packet in near.got(one)]
        here_too = here_too[here_too.index(shown[0]) :]
        assert shown == here_too[: len(shown)]
        assert len(here_too) - len(shown) < 10  # on their way
        assert len(shown) > 80


@pytest.mark.parametrize("seed", range(12))
def test_people_come_and_go_with_a_small_slab(seed: int) -> None:
    choose = random.Random(seed)
    world = World(seed, slab_packets=choose.choice((1, 16, 64, 200, 500)), history_video=choose.choice((16, 128)))
    publisher = Publisher(world)
    publisher.up.loss = choose.choice((0, 0.02))
    layers = publisher.video(rids=("q", "h"))
    streams = [*layers, publisher.audio()]
    for stream in streams:
        stream.start()
    inside: list[tuple[Viewer, int]] = []
    for _ in range(25):
        match choose.randrange(5):
            case 0 | 1:
                viewer = Viewer(world)
                viewer.down.loss = choose.choice((0, 0.05))
                viewer.start_nacks()
                inside.append((viewer, viewer.watch(choose.choice(streams))))
            case 2 if inside:
                viewer, slot = choose.choice(inside)
                if slot in world.plane.stats().slots and world.plane.stats().slots[slot].track == layers[0].track:
                    world.apply(SetLayer(slot, choose.randrange(2)))
            case 3 if inside:
                viewer, _ = inside.pop(choose.randrange(len(inside)))
                world.apply(CloseSession(viewer.session))
            case _:
                pass
        world.run(choose.randrange(50, 400) * MS)
        world.plane.stats()
    for peer in (publisher, *(viewer for viewer, _ in inside)):
        world.apply(CloseSession(peer.session))
    assert set(world.plane.table_sizes().values()) == {0}
    world.check_conservation()

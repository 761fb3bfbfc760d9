"""A viewer who comes shortly after a keyframe starts with it at once, from the packets since."""

from __future__ import annotations

from relay.plane.contract import MuteTrack
from tests.plane.peers import Publisher, Stream, Viewer
from tests.plane.world import H264, MS, SECOND, World


def show(world: World) -> Stream:
    """A stream that gave its keyframe a moment ago and gives no other."""
    stream = Publisher(world).video()[0].start()
    world.run(SECOND)
    stream.answers_pli = False
    stream.want_keyframe = True
    world.run(100 * MS)
    return stream


def test_viewers_who_come_together_need_one_keyframe() -> None:
    world = World()
    stream = show(world)
    asked, keyframe = stream.plis, stream.frame - 3
    viewers = [Viewer(world) for _ in range(5)]
    slots = [viewer.watch(stream) for viewer in viewers]
    world.run(50 * MS)
    assert stream.plis == asked
    for viewer, slot in zip(viewers, slots, strict=True):
        got = viewer.got(slot)
        frames = [each.mark[1] for each in got]
        assert frames == sorted(frames)
        assert frames[0] <= keyframe
        assert got[0].mark[2] == 0, "it begins with the first packet of a frame"
        assert got[0].payload[6] & 1 == 0, "and that frame is a keyframe"
        assert [each.seq - got[0].seq for each in got] == list(range(len(got)))
        assert frames[-1] >= stream.frame - 2, "the viewer is up to date"
    world.check_conservation()


def test_an_older_keyframe_is_asked_for_anew() -> None:
    world = World()
    stream = show(world)
    world.run(600 * MS)
    viewer = Viewer(world)
    slot = viewer.watch(stream)
    world.run(300 * MS)
    assert stream.plis == 1
    assert not viewer.got(slot)


def test_what_was_muted_is_not_shown_afterwards() -> None:
    world = World()
    stream = show(world)
    world.apply(MuteTrack(stream.track, True))
    stream.want_keyframe = True
    world.run(100 * MS)
    world.apply(MuteTrack(stream.track, False))
    viewer = Viewer(world)
    slot = viewer.watch(stream)
    world.run(100 * MS)
    assert not viewer.got(slot)


def test_too_much_since_the_keyframe_is_not_sent_in_one_go() -> None:
    world = World()
    stream = show(world)
    stream.frame_bytes = 100_000
    stream.want_keyframe = True
    world.run(200 * MS)
    viewer = Viewer(world)
    slot = viewer.watch(stream)
    world.run(20 * MS)
    assert not viewer.got(slot)


def test_parameter_sets_before_every_slice_begin_one_picture() -> None:
    """GStreamer's rtph264pay with config-interval=-1, after an encoder that makes two slices of a picture."""
    world = World()
    stream = Publisher(world).video(codec=H264)[0]
    first, second = b"\x65\x88", b"\x65\x08"  # slices of an IDR picture: first_mb_in_slice is 0, then not
    units = [head + bytes(16) for each in (first, second) for head in (b"\x67\x42", b"\x68\xce", each)]
    for number, unit in enumerate(units, 1):
        stream.send_packet(unit, number == len(units), 90_000)
    world.run(20 * MS)
    viewer = Viewer(world)
    slot = viewer.watch(stream)
    world.run(20 * MS)
    assert [each.payload for each in viewer.got(slot)] == units

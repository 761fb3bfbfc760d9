"""Slots change what they show: publishers, codecs, layers, mute, pause, moves; and nobody downstream is told."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.plane.contract import (
    AddTrack,
    BindSlot,
    CloseSession,
    Kind,
    LayerSpec,
    LayerStopped,
    MoveTrack,
    MuteTrack,
    PauseSlot,
    PayloadType,
    RemoveTrack,
    SetLayer,
    SlotSwitched,
)
from relay.plane.reference import rtcp, rtp
from tests.plane.peers import Got, Publisher, Stream, Viewer, check_stream
from tests.plane.world import ALL_FEEDBACK, H264, MS, OPUS, SECOND, VP8, VP8_RTX, World


def sources(got: list[Got]) -> list[int]:
    """The streams that a slot showed, in order, without repeats."""
    out: list[int] = []
    for packet in got:
        if not out or out[-1] != packet.mark[0]:
            out.append(packet.mark[0])
    return out


def starts_with_keyframe(packet: Got) -> bool:
    return packet.payload[0] == 24 if packet.payload_type == 122 else packet.payload[6] & 1 == 0


def check_splices(got: list[Got]) -> None:
    """Every stream is taken up at the first packet of a keyframe."""
    check_stream(got)
    by_seq = sorted(got, key=lambda packet: packet.seq)
    for before, after in pairwise(by_seq):
        if before.mark[0] != after.mark[0]:
            assert after.mark[2] == 0
            assert starts_with_keyframe(after)


def test_slot_follows_publishers_of_different_codecs() -> None:
    world = World()
    viewer = Viewer(world)
    one, two = Publisher(world), Publisher(world)
    first, second = one.video()[0].start(), two.video(codec=H264)[0].start()
    slot = viewer.watch(first)
    for stream in (second, first, second, first):
        world.run(700 * MS)
        world.apply(BindSlot(slot, stream.track))
    world.run(700 * MS)
    got = viewer.got(slot)
    check_splices(got)
    assert sources(got) == [first.ssrc, second.ssrc] * 2 + [first.ssrc]
    assert {packet.payload_type for packet in got} == {120, 122}
    gaps = [after.at - before.at for before, after in pairwise(got)]
    assert max(gaps) < 70 * MS  # what played before goes on until the splice
    switches = world.of(SlotSwitched)
    at_splice = {rtp.SEQ_MASK & p.seq: p.timestamp for p in got}
    for event in switches:
        assert at_splice[event.sequence] == event.timestamp


def test_timestamps_of_a_splice_advance_with_the_clock() -> None:
    world = World()
    viewer = Viewer(world)
    streams = [Publisher(world).video()[0].start() for _ in range(3)]
    slot = viewer.watch(streams[0])
    for turn in range(1, 10):
        world.run(500 * MS)
        world.apply(BindSlot(slot, streams[turn % 3].track))
    world.run(500 * MS)
    got = viewer.got(slot)
    check_splices(got)
    for packet in got:
        elapsed = rtp.timestamp_delta(packet.timestamp, got[0].timestamp) * SECOND // 90_000
        assert abs(elapsed - (packet.at - got[0].at)) < 10 * 34 * MS


def test_audio_is_spliced_at_once_with_a_marker() -> None:
    world = World()
    viewer = Viewer(world)
    first, second = Publisher(world).audio().start(), Publisher(world).audio().start()
    slot = viewer.watch(first)
    world.run(500 * MS)
    world.apply(BindSlot(slot, second.track))
    at = world.now
    world.run(500 * MS)
    got = viewer.got(slot)
    check_stream(got)
    spliced = next(packet for packet in got if packet.mark[0] == second.ssrc)
    assert spliced.at - at <= 25 * MS
    assert spliced.marker
    steps = {rtp.timestamp_delta(b.timestamp, a.timestamp) for a, b in pairwise(got)}
    assert all(480 <= step <= 1920 for step in steps)


def test_silent_track_is_waited_for_while_the_old_one_plays() -> None:
    world = World()
    viewer, one, two = Viewer(world), Publisher(world), Publisher(world)
    first, second = one.video()[0].start(), two.video()[0]
    slot = viewer.watch(first)
    world.run(SECOND)
    world.apply(BindSlot(slot, second.track))
    world.run(SECOND)
    assert sources(viewer.got(slot)) == [first.ssrc]
    assert viewer.got(slot)[-1].at > world.now - 50 * MS
    second.start()
    world.run(SECOND)
    check_splices(viewer.got(slot))
    assert sources(viewer.got(slot)) == [first.ssrc, second.ssrc]
    assert second.plis == 0  # it began with a keyframe


def test_publisher_that_never_answers_is_taken_at_its_next_keyframe() -> None:
    world = World()
    viewer, one, two = Viewer(world), Publisher(world), Publisher(world)
    first, second = one.video()[0].start(), two.video(codec=H264)[0]
    second.answers_pli, second.keyframe_every = False, 60
    second.start()
    slot = viewer.watch(first)
    world.run(500 * MS)
    world.apply(BindSlot(slot, second.track))
    world.run(3 * SECOND)
    check_splices(viewer.got(slot))
    assert sources(viewer.got(slot)) == [first.ssrc, second.ssrc]
    assert 3 <= second.plis <= 4  # one per 500 ms while it was waited for
    plis = second.plis
    world.run(2 * SECOND)
    assert second.plis == plis


def test_none_silences_at_once_and_numbers_go_on_later() -> None:
    world = World()
    viewer, publisher = Viewer(world), Publisher(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(500 * MS)
    world.apply(BindSlot(slot, None))
    world.run(20 * MS)
    count = len(viewer.got(slot))
    world.run(SECOND)
    assert len(viewer.got(slot)) == count
    assert world.plane.stats().slots[slot].track == -1
    world.apply(BindSlot(slot, stream.track))
    world.run(500 * MS)
    check_splices(viewer.got(slot))
    before, after = viewer.got(slot)[count - 1 : count + 1]
    elapsed = rtp.timestamp_delta(after.timestamp, before.timestamp) * SECOND // 90_000
    assert abs(elapsed - (after.at - before.at)) < 50 * MS


@pytest.mark.parametrize("how", ["mute", "pause"])
def test_mute_and_pause_resume_at_a_keyframe(how: str) -> None:
    world = World()
    viewer, publisher = Viewer(world), Publisher(world)
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    slots = viewer.watch(video), viewer.watch(audio)

    def switch(off: bool) -> None:
        for slot, stream in zip(slots, (video, audio), strict=True):
            world.apply(MuteTrack(stream.track, off) if how == "mute" else PauseSlot(slot, off))

    world.run(700 * MS)
    switch(True)
    world.run(20 * MS)
    counts = [len(viewer.got(slot)) for slot in slots]
    world.run(2 * SECOND)
    assert [len(viewer.got(slot)) for slot in slots] == counts
    assert video.plis == 0
    switch(False)
    world.run(500 * MS)
    assert video.plis == 1
    check_stream(viewer.got(slots[0]))
    check_stream(viewer.got(slots[1]))
    assert starts_with_keyframe(viewer.got(slots[0])[counts[0]])
    assert viewer.got(slots[1])[counts[1]].marker


def test_binding_to_a_muted_host_never_leaves_another_voice_on() -> None:
    world = World()
    viewer = Viewer(world)
    loud, muted = Publisher(world).audio().start(), Publisher(world).audio().start()
    slot = viewer.watch(loud)
    world.apply(MuteTrack(muted.track, True))
    world.run(500 * MS)
    world.apply(BindSlot(slot, muted.track))
    world.run(10 * MS)
    count = len(viewer.got(slot))
    world.run(500 * MS)
    assert len(viewer.got(slot)) == count
    world.apply(MuteTrack(muted.track, False))
    world.run(500 * MS)
    assert sources(viewer.got(slot)) == [loud.ssrc, muted.ssrc]


def simulcast(world: World) -> tuple[Publisher, list[Stream]]:
    publisher = Publisher(world)
    return publisher, publisher.video(rids=("q", "h", "f"))


def test_layers_switch_at_keyframes_up_and_down() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    for stream in layers:
        stream.start()
    slot = viewer.watch(layers[0])
    for index in (1, 2, 0, 2, 1):
        world.run(600 * MS)
        world.apply(SetLayer(slot, index))
    world.run(600 * MS)
    got = viewer.got(slot)
    check_splices(got)
    assert sources(got) == [layers[index].ssrc for index in (0, 1, 2, 0, 2, 1)]
    assert [stream.plis for stream in layers] == [1, 2, 2]


def test_sender_reports_align_the_layers_of_one_camera() -> None:
    world = World()
    viewer, (publisher, layers) = Viewer(world), simulcast(world)
    for stream in layers:
        stream.start()
        stream.send_report()
    world.run(50 * MS)
    slot = viewer.watch(layers[0])
    for index in (1, 2, 0, 2):
        world.run(450 * MS)
        for stream in layers:
            stream.send_report()
        world.run(50 * MS)
        world.apply(SetLayer(slot, index))
    world.run(500 * MS)
    got = viewer.got(slot)
    check_splices(got)
    by_ssrc = {stream.ssrc: stream for stream in layers}
    captured = [(packet, packet.mark[1]) for packet in got]
    assert len(by_ssrc) == 3
    # All layers send frame n at the same instant, so one line fits all: no step at any splice.
    for packet, frame in captured:
        expected = rtp.timestamp_delta(packet.timestamp, got[0].timestamp)
        assert abs(expected - (frame - got[0].mark[1]) * 3000) <= 3
    assert publisher.control_of(rtcp.Pli)


def test_a_splice_tells_the_source_timestamp_that_its_own_stands_for() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    other = Publisher(world).video(codec=H264)[0].start()
    for stream in layers:
        stream.start()
        stream.send_report()
    world.run(50 * MS)
    slot = viewer.watch(layers[0])
    for command in (SetLayer(slot, 2), BindSlot(slot, other.track), BindSlot(slot, layers[1].track, 1)):
        world.run(450 * MS)
        for stream in layers:
            stream.send_report()
        world.apply(command)
    world.run(450 * MS)
    switches = world.of(SlotSwitched)
    assert len(switches) >= 4
    streams = {stream.ssrc: stream for stream in (*layers, other)}
    first = viewer.got(slot)[0]
    at = -1
    for packet in sorted(viewer.got(slot), key=lambda packet: packet.seq):
        if at + 1 < len(switches) and packet.seq & rtp.SEQ_MASK == switches[at + 1].sequence:
            at += 1
        assert at >= 0, first
        source = streams[packet.mark[0]].captured[packet.mark[1]]
        ahead = (packet.timestamp - switches[at].timestamp) & 0xFFFFFFFF
        reckoned = (switches[at].source_timestamp + ahead) & 0xFFFFFFFF
        # the frame of an aligned splice itself may be sent later than it was taken
        assert reckoned == source or packet.timestamp == switches[at].timestamp
    for handle, stats in world.plane.stats().tracks.items():
        for layer in stats:
            stream = next((each for each in streams.values() if each.ssrc == layer.ssrc), None)
            if stream is not None:
                assert stream.track == handle
                assert layer.timestamp in stream.captured.values()
                assert 0 < world.now - layer.arrival_us < 100 * MS


def test_reports_that_contradict_arrival_are_not_believed() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    for stream in layers:
        stream.start()
    layers[0].send_report()
    layers[1].send_report(clock_offset=3600 * SECOND)
    slot = viewer.watch(layers[0])
    world.run(500 * MS)
    world.apply(SetLayer(slot, 1))
    world.run(500 * MS)
    got = viewer.got(slot)
    check_splices(got)
    assert rtp.timestamp_delta(got[-1].timestamp, got[0].timestamp) < 2 * 90_000


def test_fallback_to_the_nearest_live_layer_until_the_wished_one_lives() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    layers[0].start()
    slot = viewer.watch(layers[0], layer=2)
    world.run(500 * MS)
    assert sources(viewer.got(slot)) == [layers[0].ssrc]
    layers[1].start()
    world.run(500 * MS)
    assert sources(viewer.got(slot)) == [layers[0].ssrc]  # the present one plays on
    layers[2].start()
    world.run(500 * MS)
    assert sources(viewer.got(slot)) == [layers[0].ssrc, layers[2].ssrc]
    check_splices(viewer.got(slot))


def test_fallback_upwards_when_nothing_below_lives() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    layers[1].start()
    layers[2].start()
    world.run(SECOND)
    slot = viewer.watch(layers[0], layer=0)
    world.run(500 * MS)
    assert sources(viewer.got(slot)) == [layers[1].ssrc]


def test_silent_layer_that_is_wished_for_leaves_the_present_one_on() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    layers[0].start()
    slot = viewer.watch(layers[0])
    world.run(SECOND)
    world.apply(SetLayer(slot, 2))
    world.run(SECOND)
    assert viewer.got(slot)[-1].at > world.now - 50 * MS
    world.apply(SetLayer(slot, 0))
    world.run(100 * MS)
    layers[2].start()
    world.run(SECOND)
    assert sources(viewer.got(slot)) == [layers[0].ssrc]


def test_layer_that_dies_is_told_and_the_stage_moves_the_slot() -> None:
    world = World()
    viewer, (_, layers) = Viewer(world), simulcast(world)
    for stream in layers:
        stream.start()
    slot = viewer.watch(layers[2], layer=2)
    world.run(SECOND)
    layers[2].paused = True
    world.run(2 * SECOND)
    assert LayerStopped(layers[2].track, 2) in world.events
    world.apply(SetLayer(slot, 1))
    world.run(500 * MS)
    check_splices(viewer.got(slot))
    assert sources(viewer.got(slot))[-2:] == [layers[2].ssrc, layers[1].ssrc]


def test_moved_track_plays_on_from_the_new_session() -> None:
    world = World()
    viewer, old = Viewer(world), Publisher(world)
    stream = old.video()[0].start()
    slot = viewer.watch(stream)
    world.run(SECOND)
    stream.paused = True
    world.run(2 * SECOND)
    new = Publisher(world)
    kinds = (VP8, VP8_RTX)
    world.apply(
        MoveTrack(stream.track, new.session, "5", kinds, (LayerSpec(),), ALL_FEEDBACK), CloseSession(old.session)
    )
    again = new.add_streams(stream.track, "5", VP8, ("",))[0].start()
    world.run(SECOND)
    got = viewer.got(slot)
    check_splices(got)
    assert sources(got) == [stream.ssrc, again.ssrc]
    splice = next(i for i, packet in enumerate(got) if packet.mark[0] == again.ssrc)
    elapsed = rtp.timestamp_delta(got[splice].timestamp, got[splice - 1].timestamp) * SECOND // 90_000
    assert abs(elapsed - (got[splice].at - got[splice - 1].at)) < 5 * MS
    stats = world.plane.stats().tracks[stream.track][0]
    assert stats.packets == stream.packets + again.packets - stats_under_way(again, stats.packets, stream)
    world.check_conservation()


def stats_under_way(again: Stream, seen: int, before: Stream) -> int:
    """Packets that were sent and have not arrived: at most one frame."""
    missing = before.packets + again.packets - seen
    assert 0 <= missing <= 6
    return missing


def test_track_moves_to_another_m_line_of_its_session() -> None:
    world = World()
    viewer, publisher = Viewer(world), Publisher(world)
    stream = publisher.video(rids=("q", "h"))[1].start()
    slot = viewer.watch(stream, layer=1)
    world.run(SECOND)
    stream.paused = True
    spec = (LayerSpec(),)
    world.apply(MoveTrack(stream.track, publisher.session, "8", (VP8, VP8_RTX), spec, ALL_FEEDBACK))
    again = publisher.add_streams(stream.track, "8", VP8, ("",))[0].start()
    world.run(SECOND)
    check_splices(viewer.got(slot))
    assert sources(viewer.got(slot)) == [stream.ssrc, again.ssrc]


def test_removed_track_falls_silent_and_the_slot_can_play_another() -> None:
    world = World()
    viewer, publisher = Viewer(world), Publisher(world)
    first, second = publisher.video(mid="1")[0].start(), publisher.video(mid="2")[0].start()
    slot = viewer.watch(first)
    world.run(500 * MS)
    world.apply(BindSlot(slot, second.track), RemoveTrack(first.track))  # what played is gone while it waits
    world.run(500 * MS)
    world.apply(RemoveTrack(second.track))
    world.run(500 * MS)
    stats = world.plane.stats()
    assert stats.slots[slot].track == -1
    assert stats.drops["rtp_unknown_ssrc"] > 0
    check_splices(viewer.got(slot))


def test_codec_that_the_slot_lacks_is_not_sent_nor_asked_for_again_and_again() -> None:
    world = World()
    viewer, publisher = Viewer(world), Publisher(world)
    stream = publisher.video(codec=H264)[0].start()
    slot = viewer.slot(kinds=(PayloadType(120, "vp8", 90_000),))
    world.apply(BindSlot(slot, stream.track))
    world.run(5 * SECOND)
    assert viewer.got(slot) == []
    assert stream.plis <= 2


def test_chosen_payload_type_is_used() -> None:
    world = World()
    viewer, publisher = Viewer(world), Publisher(world)
    stream = publisher.audio().start()
    kinds = (PayloadType(109, "opus", 48_000), PayloadType(110, "opus", 48_000))
    slot = viewer.slot(Kind.AUDIO, kinds=kinds)
    world.apply(BindSlot(slot, stream.track, 0, 109))
    world.run(100 * MS)
    assert {packet.payload_type for packet in viewer.got(slot)} == {109}


def test_muted_before_it_is_added_to_nobody() -> None:
    world = World()
    world.apply(AddTrack(9000, None, Kind.AUDIO, "", (OPUS,), (LayerSpec(),)), MuteTrack(9000, True))
    world.apply(MuteTrack(9000, True), RemoveTrack(9000))
    assert set(world.plane.table_sizes().values()) == {0}

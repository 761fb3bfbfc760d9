"""Media from publisher to viewer: identity, headers, losses on both sides, wraparounds, feedback to publishers."""

from __future__ import annotations

import pytest

from relay.plane.contract import (
    BindSlot,
    Feedback,
    LayerStarted,
    LayerStopped,
    LoudnessMeasured,
)
from relay.plane.reference import rtcp
from relay.plane.reference.egress import send_time
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, SECOND, World


def test_audio_and_video_arrive_whole_and_in_order() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    audio, video = publisher.audio().start(), publisher.video()[0].start()
    slots = viewer.watch(audio), viewer.watch(video)
    world.run(5 * SECOND)
    for slot, stream in zip(slots, (audio, video), strict=True):
        got = viewer.got(slot)
        check_stream(got)
        assert [packet.mark[1:] for packet in got] == sorted(packet.mark[1:] for packet in got)
        assert {packet.mark[0] for packet in got} == {stream.ssrc}
        assert got[0].mark[1:3] == (0, 0)
        # What arrives is what was sent at most 10 ms (two paths) ago, save what is under way.
        assert len(got) >= stream.packets - 6
    assert {packet.payload_type for packet in viewer.got(slots[0])} == {109}
    assert {packet.payload_type for packet in viewer.got(slots[1])} == {120}
    assert world.plane.stats().drops == {}
    assert video.plis == 0
    world.check_conservation()


def test_header_extensions_are_those_of_the_viewer() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    audio, video = publisher.audio().start(), publisher.video()[0].start()
    slots = viewer.watch(audio), viewer.watch(video)
    video_ids = []
    world.run(SECOND)
    for packet in viewer.got(slots[0]):
        assert packet.extensions["mid"] == str(slots[0]).encode()
        assert packet.extensions["audio_level"] == bytes((0x80 | audio.level,))
    for packet in viewer.got(slots[1]):
        assert "audio_level" not in packet.extensions
        assert packet.extensions["abs_send_time"] == send_time(packet.at - 5 * MS).to_bytes(3, "big")
    both = sorted(viewer.got(slots[0]) + viewer.got(slots[1]), key=lambda packet: packet.at)
    video_ids = sorted(int.from_bytes(packet.extensions["transport_cc"], "big") for packet in both)
    assert video_ids == list(range(video_ids[0], video_ids[0] + len(both)))  # one count for the whole session


def test_viewer_without_extensions_gets_bare_headers() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world, extensions=())
    video = publisher.video()[0].start()
    slot = viewer.slot(feedback=Feedback(nack=True, pli=True))
    world.apply(BindSlot(slot, video.track))
    world.run(SECOND)
    assert viewer.got(slot)
    assert all(packet.extensions == {} for packet in viewer.got(slot))


@pytest.mark.parametrize("rtx", [True, False])
def test_what_the_viewer_lost_is_sent_again(rtx: bool) -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    slot = viewer.slot(rtx=rtx)
    viewer.watch(video, slot)
    viewer.start_nacks()
    world.run(500 * MS)
    viewer.down.loss = 0.15
    world.run(4 * SECOND)
    viewer.down.loss = 0.0
    world.run(500 * MS)
    got = viewer.got(slot)
    check_stream(got)
    stats = world.plane.stats().slots[slot]
    assert stats.resent > 30
    assert any(packet.repaired for packet in got) is rtx
    assert viewer.refused < (1 if rtx else 400)  # the same packet twice under one number is a replay for SRTP
    assert video.plis == 0


def test_what_the_publisher_lost_is_asked_for_and_put_in_its_place() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    slot = viewer.watch(video)
    world.run(500 * MS)
    publisher.up.loss = 0.15
    world.run(4 * SECOND)
    publisher.up.loss = 0.0
    world.run(SECOND)
    check_stream(viewer.got(slot))
    stats = world.plane.stats().tracks[video.track][0]
    assert stats.recovered > 20
    assert stats.nacks_sent >= stats.recovered
    assert stats.lost == 0
    world.check_conservation()


def test_no_nacks_where_they_were_not_agreed_on() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video(feedback=Feedback(pli=True))[0].start()
    viewer.watch(video)
    publisher.up.loss = 0.1
    world.run(2 * SECOND)
    assert publisher.control_of(rtcp.Nack) == []


def test_reordering_and_duplicates_of_the_network_stay_invisible() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    publisher.up.jitter, publisher.up.duplicate = 8 * MS, 0.2
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    slots = viewer.watch(video), viewer.watch(audio)
    world.run(5 * SECOND)
    for slot in slots:
        check_stream(viewer.got(slot), holes=True)
    assert viewer.duplicates == 0
    assert world.plane.stats().drops["srtp_replay"] > 50
    world.check_conservation()


def test_wraparounds_of_sequence_number_and_timestamp() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video, audio = publisher.video()[0], publisher.audio()
    for stream in (video, audio):
        stream.seq = 0xFFF0
        stream.timestamp_base = -(world.now + SECOND) * stream.codec.clock_hz // SECOND
        stream.start()
    slots = viewer.watch(video), viewer.watch(audio)
    publisher.up.loss = 0.05
    world.run(3 * SECOND)
    publisher.up.loss = 0
    world.run(SECOND)
    for slot in slots:
        check_stream(viewer.got(slot), holes=slot == slots[1])
        assert len(viewer.got(slot)) > 150


def test_padding_of_the_publisher_leaves_no_hole() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    slot = viewer.watch(video)
    for turn in range(20):
        world.after(turn * 50 * MS + 7 * MS, video.send_padding)
    world.run(2 * SECOND)
    check_stream(viewer.got(slot))
    assert viewer.padding == 0
    world.check_conservation()


def test_transport_feedback_and_reports_reach_the_publisher() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    audio = publisher.audio().start()
    viewer.watch(video)
    world.run(100 * MS)
    video.send_report()
    world.run(3 * SECOND)
    assert 40 <= len(publisher.control_of(rtcp.TransportFeedback)) <= 65
    reports = publisher.control_of(rtcp.ReceiverReport)
    blocks = {block.ssrc: block for report in reports for block in report.reports}
    assert set(blocks) == {video.ssrc, audio.ssrc}
    assert blocks[video.ssrc].fraction_lost == 0
    assert blocks[video.ssrc].lsr != 0
    assert blocks[video.ssrc].dlsr > 65_536
    assert blocks[audio.ssrc].lsr == 0
    assert publisher.control_of(rtcp.Remb) == []


def test_remb_where_nothing_better_was_agreed_on() -> None:
    world = World(estimate_start=1_000_000, estimate_max=3_000_000)
    publisher = Publisher(world)
    video = publisher.video(feedback=Feedback(nack=True, pli=True, remb=True))[0].start()
    world.run(12 * SECOND)
    rates = [packet.bitrate for packet in publisher.control_of(rtcp.Remb)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(3_000_000, rel=0.001)
    assert publisher.control_of(rtcp.TransportFeedback) == []
    publisher.up.loss = 0.4
    world.run(5 * SECOND)
    assert publisher.control_of(rtcp.Remb)[-1].bitrate < 2_500_000
    assert video.ssrc in publisher.control_of(rtcp.Remb)[-1].ssrcs


def test_layer_starts_and_stops() -> None:
    world = World()
    publisher = Publisher(world)
    video = publisher.video()[0].start()
    world.run(SECOND)
    assert world.of(LayerStarted) == [LayerStarted(video.track, 0, video.ssrc, 96)]
    video.paused = True
    world.run(2 * SECOND)
    assert world.of(LayerStopped) == [LayerStopped(video.track, 0)]
    stats = world.plane.stats().tracks[video.track][0]
    assert (stats.active, stats.bitrate, stats.width, stats.height) == (False, 0, 640, 360)
    video.paused = False
    world.run(SECOND)
    assert len(world.of(LayerStarted)) == 2
    publisher.send_rtcp(rtcp.build_rr(1) + rtcp.build_bye([video.ssrc]))
    world.run(10 * MS)
    assert len(world.of(LayerStopped)) == 2


def test_bitrate_is_that_of_the_last_second() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    slot = viewer.watch(video)
    world.run(4 * SECOND)
    stats = world.plane.stats()
    assert stats.tracks[video.track][0].bitrate == pytest.approx(260_000, rel=0.1)
    assert stats.slots[slot].bitrate == pytest.approx(260_000, rel=0.1)
    assert stats.sessions[viewer.session].packets_out == len(viewer.got(slot)) + len(
        viewer.control_of(rtcp.SenderReport)
    )


def test_loudness_names_the_speakers() -> None:
    world = World()
    publisher = Publisher(world)
    loud, quiet = publisher.audio(mid="0").start(), publisher.audio(mid="2").start()
    loud.level, quiet.level = 10, 100
    world.run(2 * SECOND)
    events = world.of(LoudnessMeasured)
    assert 18 <= len(events) <= 21
    levels = dict(events[-1].levels)
    assert levels[loud.track] > 100
    assert levels[quiet.track] < 40
    for stream in (loud, quiet):
        stream.paused = True
    world.run(2 * SECOND)
    world.events.clear()
    world.run(SECOND)
    assert world.events == []


def test_repeats_without_rtx_stay_identical_when_the_extensions_change() -> None:
    world = World()
    viewer = Viewer(world)
    first = Publisher(world).video()[0].start()
    second = Publisher(world, (("mid", 4), ("transport_cc", 3), ("orientation", 12)))
    other = second.video()[0].start()
    slot = viewer.slot(rtx=False)
    viewer.watch(first, slot)
    world.run(500 * MS)
    sent = [packet.seq for packet in viewer.sent[viewer.ssrc_of[slot]]][-20:]
    world.apply(BindSlot(slot, other.track))
    world.run(100 * MS)
    viewer.send_rtcp(rtcp.build_nack(1, viewer.ssrc_of[slot], sent))
    world.run(100 * MS)  # the witness in `Viewer` compares what is sent under one number
    stats = world.plane.stats().slots[slot]
    assert (stats.resent, stats.not_resent) == (0, len(sent))

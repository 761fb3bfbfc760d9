"""Media from publisher to viewer: identity, headers, losses on both sides, wraparounds, members' nonsense."""

from __future__ import annotations

import pytest

from relay.plane.contract import (
    AddTap,
    AddTrack,
    BindSlot,
    Feedback,
    KeyframeRequested,
    Kind,
    LayerSpec,
    LayerStarted,
    LayerStopped,
    LoudnessMeasured,
    RemoveTap,
)
from relay.plane.reference import rtcp, rtp
from relay.plane.reference.egress import send_time
from relay.plane.reference.state import INJECT_EXTENSIONS
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import ALL_FEEDBACK, H264, MS, SECOND, VIEWER_EXTENSIONS, VP8, VP8_RTX, World


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


def test_ssrc_by_signalling_alone_and_by_payload_type_alone() -> None:
    world = World()
    publisher, viewer = Publisher(world, extensions=()), Viewer(world)
    track = world.handle()
    video = publisher.add_streams(track, "1", VP8, ("",))[0]
    video.named = False
    spec = LayerSpec(ssrc=video.ssrc, rtx_ssrc=video.rtx_ssrc)
    kinds = (VP8, VP8_RTX)
    world.apply(AddTrack(track, publisher.session, Kind.VIDEO, "1", kinds, (spec,), Feedback(nack=True, pli=True)))
    audio = publisher.audio()
    audio.named = False
    slots = viewer.watch(video.start()), viewer.watch(audio.start())
    publisher.up.loss = 0.1
    world.run(3 * SECOND)
    publisher.up.loss = 0
    world.run(SECOND)
    check_stream(viewer.got(slots[0]))
    check_stream(viewer.got(slots[1]), holes=True)
    assert world.plane.stats().tracks[track][0].recovered > 5
    assert world.plane.stats().drops == {}


def test_unknown_and_too_many_ssrcs_of_a_member() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video, audio = publisher.video(rids=("q", "h"))[0].start(), publisher.audio().start()
    slot = viewer.watch(audio)
    elements = lambda mid, rid: ((publisher.extensions["mid"], mid), (publisher.extensions["rid"], rid))  # noqa: E731
    for mid, rid, payload_type in ((b"x", b"q", 96), (b"1", b"zz", 96), (b"1", b"q", 50), (b"\xff\xfe", b"\xff", 96)):
        publisher.send_rtp(rtp.build_header(payload_type, False, 1, 1, world.ssrc(), elements(mid, rid)) + b"payload")
    publisher.send_rtp(rtp.build_header(96, False, 1, 1, world.ssrc()) + b"which layer?")
    world.run(20 * MS)
    assert world.plane.stats().drops["rtp_unknown_ssrc"] == 5
    for turn in range(300):
        publisher.send_rtp(rtp.build_header(96, False, turn, 1, world.ssrc(), elements(b"1", b"h")) + b"\x10\x00abc")
    world.run(2 * SECOND)
    session = world.plane._core.sessions[publisher.session]
    assert len(session.sources) <= 64 + 1
    assert video.ssrc in session.sources
    assert viewer.got(slot)[-1].at > world.now - 50 * MS
    world.check_conservation()


def test_malformed_packets_of_a_member_cost_only_themselves() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    slot = viewer.watch(video)
    world.run(200 * MS)
    head = rtp.build_header(96, False, video.seq, 7, video.ssrc)
    for plain in (
        bytes((0xA0,)) + head[1:] + bytes(20),  # padding of length 0
        bytes((0xA0,)) + head[1:] + b"\xff",  # padding longer than the packet
        rtp.build_header(99, False, video.seq, 7, video.ssrc) + b"unknown payload type",
        rtp.build_header(97, False, 1, 7, video.ssrc + 5000, ((4, b"1"),)) + b"x",  # a repair of one octet
        rtp.build_header(97, False, 2, 7, video.ssrc + 5000) + b"\x12\x34\x10",  # a repair of nothing we miss
    ):
        publisher.send_rtp(plain)
    for compound in (
        b"\x81\xc9\x00\x01" + bytes(4),
        b"\x80\xce\x00\x01" + bytes(4),
        rtcp.build_nack(1, 424242, [1]),
        rtcp.build_pli(1, 424242),
        rtcp.build_fir(1, [(424242, 1)]),
        rtcp.build_bye([424242]),
        rtcp.build_remb(1, 10**9, [424242]),
        rtcp.build_transport_cc(1, 2, bytes(8)),
        rtcp.build_sr(rtcp.SenderReport(video.ssrc, 0, 0, 0, 0)),
        rtcp.build_sr(rtcp.SenderReport(video.ssrc, (1 << 64) - 1, 0, 0, 0)),
    ):
        publisher.send_rtcp(compound)
        viewer.send_rtcp(compound)
    world.run(2 * SECOND)
    assert viewer.got(slot)[-1].at > world.now - 50 * MS
    assert world.plane.stats().drops["rtcp_malformed"] >= 2
    world.check_conservation()


def test_changed_ssrc_of_a_layer_goes_on_at_its_keyframe() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    first = publisher.video()[0].start()
    slot = viewer.watch(first)
    world.run(SECOND)
    first.paused = True
    second = publisher.add_streams(first.track, first.mid, VP8, ("",))[0].start()
    world.run(SECOND)
    check_stream(viewer.got(slot))
    assert viewer.got(slot)[-1].mark[0] == second.ssrc
    first.paused = False
    world.run(100 * MS)
    assert world.plane.stats().drops["rtp_stale_ssrc"] > 0
    assert world.of(LayerStarted)[-1] == LayerStarted(first.track, 0, second.ssrc, 96)


def test_codec_change_of_the_publisher() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    track = world.handle()
    kinds = (VP8, VP8_RTX, H264)
    world.apply(AddTrack(track, publisher.session, Kind.VIDEO, "1", kinds, (LayerSpec(),), ALL_FEEDBACK))
    stream = publisher.add_streams(track, "1", VP8, ("",))[0].start()
    slot = viewer.watch(stream)
    world.run(SECOND)
    stream.codec, stream.rtx_type = H264, None
    world.run(SECOND)
    got = viewer.got(slot)
    check_stream(got)
    assert [got[0].payload_type, got[-1].payload_type] == [120, 122]
    first = next(packet for packet in got if packet.payload_type == 122)
    assert first.payload[0] == 24  # it waited for parameter sets


def test_late_packet_of_the_former_codec_does_not_bring_it_back() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    track = world.handle()
    kinds = (VP8, VP8_RTX, H264)
    world.apply(AddTrack(track, publisher.session, Kind.VIDEO, "1", kinds, (LayerSpec(),), ALL_FEEDBACK))
    stream = publisher.add_streams(track, "1", VP8, ("",))[0].start()
    slot = viewer.watch(stream)
    world.run(500 * MS)
    publisher.down.delay = 40 * MS
    stream.losing = {stream.frame}
    while stream.frame in stream.losing:
        world.run(MS)
    stream.codec = H264  # what is lost of the last VP8 frame comes by RTX, as VP8
    world.run(SECOND)
    assert world.plane.stats().drops == {"rtp_unknown_payload_type": 1}
    assert [event.payload_type for event in world.of(LayerStarted)] == [96, 102]
    assert viewer.got(slot)[-1].payload_type == 122


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


def test_reset_of_the_sequence_numbers_under_one_ssrc() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    video = publisher.video()[0].start()
    slot = viewer.watch(video)
    world.run(SECOND)
    video.seq = (video.seq + 20_000) & 0xFFFF
    video.timestamp_base = 12345
    world.run(2 * SECOND)
    check_stream(viewer.got(slot))
    assert viewer.got(slot)[-1].at > world.now - 50 * MS


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

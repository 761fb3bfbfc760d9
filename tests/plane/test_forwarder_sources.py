"""Which SSRC is which layer; publishers that change it, their codec or their numbers, or that send nonsense."""

from __future__ import annotations

from relay.plane.contract import (
    AddTrack,
    Feedback,
    Kind,
    LayerSpec,
    LayerStarted,
)
from relay.plane.reference import rtcp, rtp
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import ALL_FEEDBACK, H264, MS, SECOND, VP8, VP8_RTX, World


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

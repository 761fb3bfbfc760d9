"""Sender reports: soon, regular, and such that sound and picture of one publisher stay together."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.plane.contract import SlotSwitched
from relay.plane.reference import rtcp, rtp
from relay.plane.reference.rtcp import wall_us_from_ntp
from tests.plane.peers import Publisher, Viewer
from tests.plane.world import MS, SECOND, WALL, World


def reported_instants(viewer: Viewer, slot: int) -> list[tuple[int, int]]:
    """(wall time, RTP timestamp) of the slot's sender reports."""
    ssrc = viewer.ssrc_of[slot]
    return [(wall_us_from_ntp(p.ntp), p.rtp_timestamp) for p in viewer.control_of(rtcp.SenderReport) if p.ssrc == ssrc]


def test_first_sender_report_comes_within_100_ms_then_every_second() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(5 * SECOND)
    ssrc = viewer.ssrc_of[slot]
    times = [at for at, p in viewer.control_times if isinstance(p, rtcp.SenderReport) and p.ssrc == ssrc]
    assert times[0] - viewer.got(slot)[0].at < 100 * MS
    assert [after - before for before, after in pairwise(times)] == [SECOND] * (len(times) - 1)
    assert ((ssrc, f"cname-{viewer.session}"),) in [p.cnames for p in viewer.control_of(rtcp.SourceDescription)]
    last = [p for p in viewer.control_of(rtcp.SenderReport) if p.ssrc == ssrc][-1]
    assert 0 <= len(viewer.got(slot)) - last.packets < 60
    stream.paused = True
    world.run(3 * SECOND)
    count = len(reported_instants(viewer, slot))
    world.run(3 * SECOND)
    assert len(reported_instants(viewer, slot)) == count


@pytest.mark.parametrize("clock_offset", [0, 7200 * SECOND, -55 * SECOND])
def test_audio_and_video_of_one_publisher_share_one_clock(clock_offset: int) -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    publisher.up.jitter = 20 * MS
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    slots = viewer.watch(video), viewer.watch(audio)
    for _ in range(5):
        world.run(SECOND)
        video.send_report(clock_offset)
        world.run(37 * MS)
        audio.send_report(clock_offset)
    world.run(1500 * MS)
    shown = []
    for slot, stream in zip(slots, (video, audio), strict=True):
        wall, timestamp = reported_instants(viewer, slot)[-1]
        packet = viewer.got(slot)[-1]
        ticks = rtp.timestamp_delta(packet.timestamp, timestamp)
        played = wall + ticks * SECOND // stream.codec.clock_hz - WALL
        sent = (rtp.timestamp_delta(stream.timestamp(world.now), stream.captured[packet.mark[1]])) * SECOND
        shown.append(played - (world.now - sent // stream.codec.clock_hz))
    # Both are shown the same while after their capture, and that while is what the fastest report took.
    assert abs(shown[0] - shown[1]) < MS
    assert 0 <= shown[0] <= 25 * MS


def test_before_the_publisher_reports_arrival_is_the_clock() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    audio = publisher.audio().start()
    slot = viewer.watch(audio)
    world.run(3 * SECOND)
    for wall, timestamp in reported_instants(viewer, slot):
        before = [p for p in viewer.got(slot) if p.at - 5 * MS <= wall - WALL][-1]
        expected = before.timestamp + (wall - WALL - (before.at - 5 * MS)) * 48_000 // SECOND
        assert abs(rtp.timestamp_delta(timestamp, expected)) < 48
    assert world.of(SlotSwitched)


def test_what_a_publisher_reports_is_seen_by_its_layers() -> None:
    world = World()
    publisher = Publisher(world)
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    world.run(SECOND)
    assert world.plane.stats().tracks[video.track][0].report_ntp == 0
    for stream in (video, audio):
        world.run(SECOND)
        stream.send_report(7200 * SECOND)
        sent, timestamp = world.now, stream.timestamp(world.now)
        world.run(100 * MS)
        layer = world.plane.stats().tracks[stream.track][0]
        assert (layer.report_ssrc, layer.report_timestamp) == (stream.ssrc, timestamp)
        assert layer.report_ssrc == layer.ssrc
        assert wall_us_from_ntp(layer.report_ntp) == sent + WALL + 7200 * SECOND
        assert layer.report_arrival_us == sent + publisher.up.delay

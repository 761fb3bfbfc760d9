"""What a viewer's feedback makes of the estimate, and what a bandwidth probe sends."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.plane.contract import EstimateChanged, Feedback, ProbeBandwidth, RemoveSlot
from relay.plane.reference import rtcp
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, SECOND, World

REMB_ONLY = Feedback(nack=True, pli=True, remb=True)


def told(world: World) -> list[tuple[int, int]]:
    return [(at, event.bitrate) for at, event in world.event_times if isinstance(event, EstimateChanged)]


def test_estimate_follows_transport_feedback_and_is_told_sparingly() -> None:
    world = World(estimate_start=300_000)
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video(rids=("q", "h", "f"))[2].start()
    viewer.watch(stream, layer=2)
    viewer.start_reports()
    world.run(10 * SECOND)
    events = told(world)
    assert events[-1][1] > 400_000
    for (at, rate), (later, other) in pairwise(events):
        assert later - at >= 200 * MS
        assert abs(other - rate) * 10 > rate
    assert world.plane.stats().sessions[viewer.session].estimate >= events[-1][1]


def test_estimate_sinks_when_much_is_lost() -> None:
    world = World(estimate_start=2_000_000)
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video(rids=("q", "h"))[1].start()
    viewer.watch(stream, layer=1)
    viewer.start_reports()
    world.run(SECOND)
    before = world.plane.stats().sessions[viewer.session].estimate
    viewer.down.loss = 0.4
    world.run(5 * SECOND)
    assert world.plane.stats().sessions[viewer.session].estimate < before // 2


def test_remb_is_the_estimate_without_transport_cc() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.slot(feedback=REMB_ONLY)
    viewer.watch(stream, slot)
    world.run(SECOND)
    for rate in (700_000, 710_000, 300_000, 90_000_000):
        viewer.send_rtcp(rtcp.build_remb(1, rate, [viewer.ssrc_of[slot]]))
        world.run(SECOND)
    rates = [rate for _, rate in told(world)]
    assert rates[:2] == [pytest.approx(700_000, rel=0.01), pytest.approx(300_000, rel=0.01)]
    assert rates[2] <= 20_000_000
    assert all("transport_cc" not in packet.extensions for packet in viewer.got(slot))


def test_remb_that_was_not_agreed_on_is_ignored() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.slot(feedback=Feedback(nack=True))
    viewer.watch(stream, slot)
    viewer.send_rtcp(rtcp.build_remb(1, 100_000, [viewer.ssrc_of[slot]]))
    world.run(SECOND)
    assert told(world) == []


def test_receiver_reports_tell_loss_and_round_trip() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    viewer.up.delay, viewer.down.delay = 30 * MS, 20 * MS
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(SECOND)
    report = viewer.control_of(rtcp.SenderReport)[-1]
    at = next(at for at, packet in viewer.control_times if packet is report)
    dlsr = (world.now - at) * 65_536 // SECOND
    block = rtcp.ReportBlock(viewer.ssrc_of[slot], 25, 3, 100, 0, rtcp.ntp_middle(report.ntp), dlsr)
    other = rtcp.ReportBlock(424_242, 200, 3, 100, 0, 1, 1)
    viewer.send_rtcp(rtcp.build_rr(1, [block, other]))
    world.run(SECOND)
    stats = world.plane.stats().sessions[viewer.session]
    assert stats.loss_256 == 25
    assert stats.round_trip_us == pytest.approx(50 * MS, abs=100)


def test_probe_fills_up_to_its_rate_in_small_slices_and_ends() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    viewer.start_reports()
    world.run(SECOND)
    before, duplicates = world.plane.stats().sessions[viewer.session].bytes_out, viewer.duplicates
    start = world.now
    world.apply(ProbeBandwidth(viewer.session, 3_000_000, 200 * MS))
    world.run(210 * MS)
    sent = world.plane.stats().sessions[viewer.session].bytes_out - before
    assert sent * 8 * 5 == pytest.approx(3_000_000, rel=0.1)
    repeats = [p.arrival for p in viewer.sent[viewer.ssrc_of[slot] + 1] if p.arrival > start]
    assert max(after - earlier for earlier, after in pairwise(repeats)) <= 30 * MS
    assert viewer.duplicates - duplicates > 20  # repeats of what was sent serve as padding
    world.run(SECOND)
    assert max(p.arrival for p in viewer.sent[viewer.ssrc_of[slot] + 1]) <= start + 200 * MS
    check_stream(viewer.got(slot))
    assert world.plane.stats().slots[slot].resent == 0


def test_probe_lifts_the_estimate_to_what_arrives() -> None:
    world = World(estimate_start=400_000)
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    viewer.watch(stream)
    viewer.start_reports()
    world.run(SECOND)
    world.apply(ProbeBandwidth(viewer.session, 3_000_000, 200 * MS))
    world.run(SECOND)
    assert told(world)[-1][1] > 2_000_000


def test_probe_before_any_media_is_pure_padding() -> None:
    world = World()
    viewer = Viewer(world)
    slot = viewer.slot()
    world.apply(ProbeBandwidth(viewer.session, 500_000, 100 * MS))
    world.run(200 * MS)
    padding = viewer.sent[viewer.ssrc_of[slot] + 1]
    assert len(padding) > 10
    assert viewer.padding == len(padding)
    assert {packet.payload for packet in padding} == {b""}
    assert {packet.payload_type for packet in padding} == {121}
    numbers = [int.from_bytes(packet.extension(5) or b"", "big") for packet in padding]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("feedback", [REMB_ONLY, Feedback()])
def test_probe_is_ignored_where_nothing_measures_it(feedback: Feedback) -> None:
    world = World()
    viewer = Viewer(world)
    viewer.slot(feedback=feedback)
    world.apply(ProbeBandwidth(viewer.session, 500_000))
    world.run(SECOND)
    assert viewer.padding == 0
    assert world.plane.next_timeout() is None


def test_probe_ends_with_its_slot() -> None:
    world = World()
    viewer = Viewer(world)
    slot = viewer.slot()
    world.apply(ProbeBandwidth(viewer.session, 500_000))
    world.run(50 * MS)
    world.apply(RemoveSlot(slot))
    count = viewer.padding
    world.run(SECOND)
    assert viewer.padding <= count + 2
    assert world.plane.next_timeout() is None

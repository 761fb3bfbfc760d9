"""Capture times of a node's tracks: sessions that share a clock or do not, publishers who return, and other nodes."""

from __future__ import annotations

from relay.edge.plan import TrackPlan
from relay.node.local import LocalTrack
from relay.node.senders import SenderClocks
from relay.plane.contract import Feedback, Kind, LayerSpec, LayerStats, PayloadType
from relay.plane.reference.rtcp import ntp_from_wall_us
from relay.stage.sender_clock import Anchor, Refusal

SECOND = 1_000_000
VP8, OPUS = PayloadType(96, "vp8", 90_000), PayloadType(111, "opus", 48_000)


def track(handle: int, session: str, kind: Kind = Kind.VIDEO, layers: int = 1) -> LocalTrack:
    payload = VP8 if kind is Kind.VIDEO else OPUS
    specs = tuple(LayerSpec("qhf"[index]) for index in range(layers))
    plan = TrackPlan("0", kind, (payload,), specs, Feedback(), "camera", "")
    return LocalTrack(("ann", kind.value, "camera"), handle, f"p{handle}", session, plan)


class Plane:
    """Publishers whose wall clocks are `walls` ahead of our monotonic one."""

    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.walls = {"s1": 10**15, "s2": 2 * 10**15}
        self.silent: set[int] = set()

    def stats(self, *tracks: LocalTrack) -> dict[int, list[LayerStats]]:
        return {each.handle: [self._layer(each, layer) for layer in range(len(each.rids))] for each in tracks}

    def _layer(self, of: LocalTrack, layer: int) -> LayerStats:
        timestamp = self.now * of.plan.payload_types[0].clock_hz // SECOND
        stats = LayerStats(ssrc=10 * of.handle + layer, timestamp=timestamp, arrival_us=self.now)
        if of.handle not in self.silent:
            stats.report_ssrc, stats.report_timestamp, stats.report_arrival_us = stats.ssrc, timestamp, self.now
            stats.report_ntp = ntp_from_wall_us(self.walls[of.session] + self.now)
        return stats


def test_streams_of_a_session_are_told_by_its_clock_and_layers_each_have_their_line() -> None:
    clocks, plane = SenderClocks(), Plane()
    camera, microphone, other = track(1, "s1", layers=3), track(2, "s1", Kind.AUDIO), track(3, "s2")
    everything = camera, microphone, other
    assert clocks.take(everything, plane.stats(*everything))
    for handle, layer, wall in ((1, 0, "s1"), (1, 2, "s1"), (2, 0, "s1"), (3, 0, "s2")):
        anchor = clocks.anchor(handle, layer)
        assert anchor is not None
        assert (anchor.ssrc, anchor.captured - plane.now) == (10 * handle + layer, plane.walls[wall])
    assert clocks.anchor(1, 3) is clocks.anchor(9, 0) is None
    plane.now += SECOND
    assert not clocks.take(everything, plane.stats(*everything)), "the same lines: nobody has to be told"
    clocks.forget(1)
    assert clocks.anchor(1, 0) is None
    assert clocks.anchor(2, 0) is not None


def test_a_stream_without_reports_or_with_those_of_another_ssrc_is_not_known() -> None:
    clocks, plane = SenderClocks(), Plane()
    camera, microphone = track(1, "s1"), track(2, "s1", Kind.AUDIO)
    plane.silent = {1}
    stats = plane.stats(camera, microphone)
    stats[2][0].ssrc += 1  # the frame is of a newer stream
    assert not clocks.take([camera, microphone, track(7, "s1")], stats)
    assert clocks.anchor(1, 0) is clocks.anchor(2, 0) is None


def test_a_publisher_who_returns_on_another_session_has_another_clock() -> None:
    clocks, plane = SenderClocks(), Plane()
    camera = track(1, "s1")
    clocks.take([camera], plane.stats(camera))
    camera.session = "s2"
    plane.now += SECOND
    assert clocks.take([camera], plane.stats(camera))
    anchor = clocks.anchor(1, 0)
    assert anchor is not None
    assert anchor.captured - plane.now == plane.walls["s2"]
    clocks.forget(1)
    clocks.forget(1)


def test_reports_that_are_refused_are_told_once_in_a_row() -> None:
    clocks, plane, told = SenderClocks(), Plane(), list[Refusal]()
    clocks.refused = told.append
    camera = track(1, "s1")
    for number in range(4):
        plane.now += SECOND
        stats = plane.stats(camera)
        stats[1][0].report_timestamp = (stats[1][0].timestamp + (1 << 31) + number) % (1 << 32)
        clocks.take([camera], stats)
    assert told == ["timestamp"]
    assert clocks.anchor(1, 0) is None


def test_what_a_track_is_known_by_is_offered_to_other_nodes_and_comes_from_them() -> None:
    here, there, plane = SenderClocks(), SenderClocks(), Plane()
    camera = track(1, "s1", layers=2)
    assert [layer.captured for layer in camera.offer("demo").layers] == [None, None]
    here.take([camera], plane.stats(camera))
    offered = camera.offer("demo").layers
    for layer, entry in enumerate(offered):
        assert entry.captured is not None
        there.linked(5, layer, Anchor(*entry.captured))
        assert there.anchor(5, layer) == here.anchor(1, layer)
    there.linked(5, 0, None)
    assert there.anchor(5, 0) is None
    there.forget(5)
    assert there.anchor(5, 1) is None

"""What crosses a link is what a plane takes: tapped at a publisher's session, marked, received, injected elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.ids import HybridClock
from relay.link import flows, roq, varint
from relay.link.history import FlowSpec
from relay.link.marking import Marker
from relay.link.receiver import LinkReceiver
from relay.link.sender import LinkSender
from relay.plane.contract import AddTap, AddTrack, BindSlot, Kind, LayerSpec
from relay.plane.reference import rtp
from relay.plane.reference.state import INJECT_EXTENSIONS
from relay.settings import LinkFlowSettings
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, PUBLISHER_EXTENSIONS, VIEWER_EXTENSIONS, VP8, VP8_RTX, World

FLOW = flows.FIRST


class Crossing:
    """A publisher's track, tapped `here` and injected `there`, where somebody watches. The link is a function call."""

    def __init__(self) -> None:
        self.here, self.there = World(seed=1), World(seed=2)
        self.publisher, self.viewer = Publisher(self.here), Viewer(self.there, VIEWER_EXTENSIONS)
        self.video = self.publisher.video()[0].start()
        self.there.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8, VP8_RTX), (LayerSpec(),)))
        self.slot = self.viewer.slot()
        self.there.apply(BindSlot(self.slot, 50))
        self.sender, self.receiver = LinkSender(LinkFlowSettings()), LinkReceiver(LinkFlowSettings())
        self.sender.open_flow(FLOW, FlowSpec(Kind.VIDEO))
        self.sender.path_opened("primary", 0)
        self.receiver.open_flow(FLOW, 90_000)
        self.frames = 0
        self.asked = 0

    def run(self, marker: Marker, turns: int, lost: Callable[[bytes], bool] = lambda packet: False) -> None:
        """Let 20 ms pass, half of them here and half there, in each turn. `lost` packets do not arrive by one path."""
        here, there, sender, receiver = self.here, self.there, self.sender, self.receiver
        for _ in range(turns):
            here.run(10 * MS)
            for tap, packet, at in here.tapped:
                marked = marker.mark(packet, at)
                assert marked is not None
                sender.push(tap, marked, roq.frame(tap, marked.data), at)
            here.tapped.clear()
            for datagram, _ in sender.transmit("primary", 100, here.now):
                if not lost(datagram):
                    receiver.receive("primary", datagram, there.now)
                    receiver.receive("backup", datagram, there.now)
            receiver.handle_timeout(there.now)
            for _, request in receiver.transmit():
                self.asked += 1
                number, start = varint.decode(request)
                sender.feedback(number, request[start:], here.now)
            for arrival in receiver.arrived():
                self.frames += arrival.sync_id is not None
                there.plane.inject(50, 0, arrival.packet, there.now)
                there.pump()
            there.run(10 * MS)


def test_a_track_crosses_two_planes_and_a_link() -> None:
    at = Crossing()
    at.here.apply(AddTap(FLOW, at.video.track, 0))
    at.run(Marker(HybridClock(), 90_000, dict(PUBLISHER_EXTENSIONS)), 150)
    assert at.there.plane.stats().drops.get("inject_duplicate", 0) == 0
    assert at.there.plane.stats().drops.get("inject_malformed", 0) == 0
    got = at.viewer.got(at.slot)
    check_stream(got, holes=False)
    assert len(got) > 80
    assert at.frames > 20
    assert at.receiver.counts(FLOW).packets == at.receiver.counts(FLOW).duplicates


@pytest.mark.parametrize("canonical", [True, False])
def test_padding_crosses_a_link_so_that_nobody_asks_for_its_numbers(canonical: bool) -> None:
    at = Crossing()
    at.here.apply(AddTap(FLOW, at.video.track, 0, canonical=canonical))
    for turn in range(40):
        at.here.after(turn * 50 * MS + 7 * MS, at.video.send_padding)
    marker = Marker(HybridClock(), 90_000, INJECT_EXTENSIONS if canonical else dict(PUBLISHER_EXTENSIONS))
    at.run(marker, 200)
    assert at.receiver.counts(FLOW).nacks == at.asked == 0
    assert at.receiver.counts(FLOW).absent == at.receiver.counts(FLOW).lost == 0
    assert at.sender.counts(FLOW).absent == at.sender.counts(FLOW).nacked == 0
    assert at.frames == at.video.frame - 1, "padding has no sync id of its own"
    check_stream(at.viewer.got(at.slot), holes=False)
    assert len(at.viewer.got(at.slot)) > 80
    assert at.viewer.padding == 0


def test_padding_that_a_link_lost_is_there_when_it_is_asked_for() -> None:
    at = Crossing()
    at.here.apply(AddTap(FLOW, at.video.track, 0, canonical=True))
    for turn in range(40):
        at.here.after(turn * 50 * MS + 7 * MS, at.video.send_padding)
    numbers: set[int] = set()

    def lost(datagram: bytes) -> bool:
        packet = rtp.parse(datagram[varint.decode(datagram)[1] :], 0)
        first = packet is not None and not packet.payload and packet.seq not in numbers
        if first and packet is not None:
            numbers.add(packet.seq)
        return first

    at.run(Marker(HybridClock(), 90_000), 200, lost)
    counts = at.receiver.counts(FLOW)
    assert len(numbers) == 40
    assert counts.nacks >= counts.repaired > 35
    assert (counts.absent, counts.lost, at.sender.counts(FLOW).absent) == (0, 0, 0)

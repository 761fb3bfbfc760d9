"""What crosses a link is what a plane takes: tapped at a publisher's session, marked, received, injected elsewhere."""

from __future__ import annotations

from relay.ids import HybridClock
from relay.link import flows, roq
from relay.link.history import FlowSpec
from relay.link.marking import Marker
from relay.link.receiver import LinkReceiver
from relay.link.sender import LinkSender
from relay.plane.contract import AddTap, AddTrack, BindSlot, Kind, LayerSpec
from relay.settings import LinkFlowSettings
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, PUBLISHER_EXTENSIONS, VIEWER_EXTENSIONS, VP8, VP8_RTX, World

FLOW = flows.FIRST


def test_a_track_crosses_two_planes_and_a_link() -> None:
    here, there = World(seed=1), World(seed=2)
    publisher, viewer = Publisher(here), Viewer(there, VIEWER_EXTENSIONS)
    video = publisher.video()[0].start()
    here.apply(AddTap(FLOW, video.track, 0))
    there.apply(AddTrack(50, None, Kind.VIDEO, "", (VP8, VP8_RTX), (LayerSpec(),)))
    slot = viewer.slot()
    there.apply(BindSlot(slot, 50))
    sender, receiver = LinkSender(LinkFlowSettings()), LinkReceiver(LinkFlowSettings())
    sender.open_flow(FLOW, FlowSpec(Kind.VIDEO))
    sender.path_opened("primary", 0)
    receiver.open_flow(FLOW, 90_000)
    marker = Marker(HybridClock(), 90_000, dict(PUBLISHER_EXTENSIONS))
    frames = 0
    for _ in range(150):
        here.run(10 * MS)
        for tap, packet, at in here.tapped:
            marked = marker.mark(packet, at // MS)
            assert marked is not None
            sender.push(tap, marked, roq.frame(tap, marked.data), at)
        here.tapped.clear()
        for datagram, _ in sender.transmit("primary", 100, here.now):
            receiver.receive("primary", datagram, there.now)
            receiver.receive("backup", datagram, there.now)
        for arrival in receiver.arrived():
            frames += arrival.sync_id is not None
            there.plane.inject(50, 0, arrival.packet, there.now)
            there.pump()
        there.run(10 * MS)
    assert there.plane.stats().drops.get("inject_duplicate", 0) == 0
    assert there.plane.stats().drops.get("inject_malformed", 0) == 0
    got = viewer.got(slot)
    check_stream(got, holes=False)
    assert len(got) > 80
    assert frames > 20
    assert receiver.counts(FLOW).packets == receiver.counts(FLOW).duplicates

"""Keyframe requests: coalesced, remembered, repeated, and of the kind that was agreed on."""

from __future__ import annotations

import pytest

from relay.plane.contract import Feedback, RequestKeyframe
from relay.plane.reference import rtcp
from tests.plane.peers import Publisher, Viewer
from tests.plane.world import MS, SECOND, World


def test_many_requests_are_one_per_interval_and_the_last_is_remembered() -> None:
    world = World()
    publisher = Publisher(world)
    stream = publisher.video()[0].start()
    stream.answers_pli = False
    viewers = [Viewer(world) for _ in range(20)]
    slots = [viewer.watch(stream) for viewer in viewers]
    world.run(3 * SECOND)
    stream.want_keyframe = True
    world.run(600 * MS)
    before = stream.plis
    for viewer, slot in zip(viewers, slots, strict=True):
        viewer.pli(slot)
    world.run(400 * MS)
    assert stream.plis == before + 1
    for viewer, slot in zip(viewers, slots, strict=True):
        viewer.pli(slot)
    world.run(50 * MS)
    assert stream.plis == before + 1
    world.run(500 * MS)
    assert stream.plis == before + 2
    world.run(2 * SECOND)
    assert stream.plis == before + 2
    stats = world.plane.stats()
    assert stats.slots[slots[0]].keyframe_requests == 2


def test_remembered_request_is_dropped_when_a_keyframe_came() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    viewer.watch(stream)
    world.run(SECOND)
    world.apply(RequestKeyframe(stream.track, 0))
    world.run(2 * MS)
    world.apply(RequestKeyframe(stream.track, 0))  # too soon: remembered, and served by the answer to the first
    world.run(2 * SECOND)
    assert stream.plis == 1


@pytest.mark.parametrize(("feedback", "kind"), [(Feedback(pli=True), rtcp.Pli), (Feedback(fir=True), rtcp.Fir)])
def test_request_is_a_pli_or_where_only_that_was_agreed_on_a_fir(feedback: Feedback, kind: type) -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video(feedback=feedback)[0].start()
    stream.answers_pli = False
    world.run(SECOND)
    viewer.watch(stream)
    world.run(2 * SECOND)
    assert len(publisher.control_of(kind)) in (4, 5)
    if kind is rtcp.Fir:
        numbers = [packet.entries[0][1] for packet in publisher.control_of(kind)]
        assert numbers == list(range(1, len(numbers) + 1))


def test_repeated_fir_of_a_viewer_is_one_request() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(SECOND)
    for number in (7, 7, 7, 8):
        viewer.send_rtcp(rtcp.build_fir(1, [(viewer.ssrc_of[slot], number)]))
        world.run(SECOND)
    assert stream.plis == 2


def test_no_request_without_agreement() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video(feedback=Feedback())[0].start()
    world.run(SECOND)
    viewer.watch(stream)
    world.run(2 * SECOND)
    assert stream.plis == 0

"""Video packets are padded so that those of a frame are of one size; payloads and repeats are what they were."""

from __future__ import annotations

import pytest

from relay.plane.contract import Kind
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.world import MS, SECOND, World


@pytest.mark.parametrize("step", [1, 2, 8, 16, 64])
@pytest.mark.parametrize("rtx", [True, False])
def test_packets_of_a_frame_but_the_last_are_of_round_sizes(step: int, rtx: bool) -> None:
    world = World(pad_video=step)
    publisher, viewer = Publisher(world), Viewer(world)
    viewer.down.loss = 0.05
    viewer.start_nacks()
    video, audio = publisher.video(rids=("q", "h"))[1].start(), publisher.audio().start()
    slot, heard = viewer.slot(rtx=rtx), viewer.slot(Kind.AUDIO)
    viewer.watch(video, slot, layer=1)
    viewer.watch(audio, heard)
    world.run(2 * SECOND)
    for packet in viewer.sent[viewer.ssrc_of[slot]]:
        assert packet.marker or len(packet.data) % step == 0
        if packet.marker:
            assert packet.payload_end == len(packet.data)
    padded = [packet for packet in viewer.sent[viewer.ssrc_of[slot]] if packet.payload_end < len(packet.data)]
    assert bool(padded) == (step > 1)
    assert all(packet.payload_end == len(packet.data) for packet in viewer.sent[viewer.ssrc_of[heard]])
    assert world.plane.stats().slots[slot].resent > 5
    viewer.down.loss = 0
    world.run(500 * MS)
    check_stream(viewer.got(slot))
    assert viewer.refused == 0
    assert viewer.padding == 0

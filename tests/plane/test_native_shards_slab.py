"""Several shards that divide the slab: one that is full costs repeats there, and pictures nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from relay.errors import UsageError
from relay.plane.contract import AddTap, CloseSession
from relay.plane.reference import rtp
from tests.plane import world
from tests.plane.peers import Publisher, Viewer, check_stream
from tests.plane.test_forwarder_slab import lose_and_ask
from tests.plane.test_native_shards_alone import SHARDS, Shards, native
from tests.plane.world import MS, SECOND, World


@pytest.fixture(autouse=True, scope="module")
def shards() -> Iterator[None]:
    """Worlds of this module have several shards, each with the slab that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "Forwarder", Shards)
        yield


def at(shard: int, kind: type[Any], stage: World) -> Any:
    """A peer on this shard: sessions take turns."""
    while True:
        peer = kind(stage)
        if peer.session % SHARDS == shard:
            return peer
        stage.apply(CloseSession(peer.session))


def unkept(stage: World) -> list[int]:
    return [unkept for _, _, unkept in stage.plane.slabs()]


def test_the_slab_is_divided() -> None:
    made = native.Cluster(world.PlaneConfig(slab_packets=1001), 4)
    assert made.slabs() == [(251, 251, 0), (250, 250, 0), (250, 250, 0), (250, 250, 0)]
    with pytest.raises(UsageError, match="3 packets for 4 shards"):
        native.Cluster(world.PlaneConfig(slab_packets=3), 4)


def test_a_full_shard_hands_every_packet_on_to_one_with_room() -> None:
    """Those on the other shard lose nothing, and have it repeated from what their own shard keeps."""
    stage = World(slab_packets=400)
    publisher = at(0, Publisher, stage)
    near, far = at(0, Viewer, stage), at(1, Viewer, stage)
    video = publisher.video()[0].start()
    for mid in range(2, 5):
        near.watch(publisher.video(mid=str(mid))[0].start())
    stage.run(4 * SECOND)
    assert stage.plane.slabs()[0][0] == 0
    slot = far.watch(video)
    stage.run(2 * SECOND)
    assert unkept(stage)[0] > 100
    assert unkept(stage)[1] == 0
    check_stream(far.got(slot))
    assert len(far.got(slot)) > 50
    assert far.got(slot)[-1].at > stage.now - 50 * MS
    assert lose_and_ask(stage, far, slot) == (5, 0)
    stage.check_conservation()


def test_a_full_shard_forwards_what_another_hands_on() -> None:
    stage = World(slab_packets=30)
    publisher, viewers = at(0, Publisher, stage), [at(1, Viewer, stage) for _ in range(3)]
    video, audio = publisher.video()[0].start(), publisher.audio().start()
    slots = [(viewer, viewer.watch(stream)) for viewer in viewers for stream in (video, audio)]
    stage.run(3 * SECOND)
    assert stage.plane.slabs()[1][:2] == (0, 30)
    assert unkept(stage)[1] > 50
    for viewer, slot in slots:
        check_stream(viewer.got(slot))
        assert viewer.got(slot)[-1].at > stage.now - 50 * MS
    assert lose_and_ask(stage, *slots[0])[1] > 0
    for peer in (publisher, *viewers):
        stage.apply(CloseSession(peer.session))
    assert not any(stage.plane.table_sizes().values())


@pytest.mark.parametrize("ring", [0, 1])
def test_taps_of_either_shard_get_what_is_not_kept(ring: int) -> None:
    stage = World(slab_packets=30)
    publisher = at(0, Publisher, stage)
    viewers = [at(shard, Viewer, stage) for shard in range(SHARDS)]
    video = publisher.video()[0].start()
    slots = [viewer.watch(video) for viewer in viewers]
    stage.apply(AddTap(5, video.track, 0, ring=ring))
    stage.run(2 * SECOND)
    assert min(unkept(stage)) > 0
    assert stage.plane.taps_dropped == 0
    packets = [rtp.parse(packet, at) for _, packet, at in stage.tapped]
    assert len(packets) == len(viewers[0].got(slots[0]))
    assert len({packet.seq for packet in packets if packet}) == len(packets)
    for packet in packets:
        assert packet is not None
        assert packet.payload == video.history[packet.seq][2], "a place was taken from a tap that had not read it"

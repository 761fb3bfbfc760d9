"""Timelines of a node's tracks: what the plane saw, what links in another process tell, and what is asked again."""

from __future__ import annotations

from relay.ids import sync_id_at
from relay.node.clocks import LOOK_US, TrackClocks
from relay.plane.contract import LayerStats

HZ = 90_000


class World:
    """A plane that has one layer of one track, and a clock."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.looks = 0
        self.layer = LayerStats(ssrc=7, timestamp=3000, arrival_us=500)
        self.clocks = TrackClocks(self.look, offset_us=lambda: 0, now_us=lambda: self.now)

    def look(self) -> dict[int, list[LayerStats]]:
        self.looks += 1
        return {1: [self.layer]}


def test_the_plane_is_asked_for_what_is_unknown_but_not_all_the_time() -> None:
    world = World()
    assert world.clocks.sync_id(2, 0, HZ, 3000) is None
    assert world.clocks.sync_id(1, 0, HZ, 3000) is None
    assert world.looks == 1
    world.now += LOOK_US
    assert world.clocks.sync_id(1, 0, HZ, 3000) == sync_id_at(500)
    world.clocks.refresh()
    assert world.looks == 2


def test_a_track_whose_times_are_told_is_not_placed_by_its_arrival() -> None:
    world = World()
    world.clocks.placed(1, 0, HZ, None)
    world.clocks.refresh()
    assert world.clocks.newest(1, 0) is None
    assert world.clocks.sync_id(1, 0, HZ, 3000) is None
    told = sync_id_at(77_000_000)
    world.clocks.placed(1, 0, HZ, (7, 3000, told))
    world.layer = LayerStats(ssrc=7, timestamp=6000, arrival_us=40_000)
    world.now += LOOK_US
    world.clocks.refresh()
    assert world.clocks.newest(1, 0) == 3000
    assert world.clocks.sync_id(1, 0, HZ, 3000) == told
    world.clocks.forget(1)
    assert world.clocks.newest(1, 0) is None

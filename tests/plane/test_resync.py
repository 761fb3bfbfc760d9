"""Events that were lost are made up for from a snapshot."""

from __future__ import annotations

from relay.plane.contract import (
    AddressSelected,
    EstimateChanged,
    Event,
    LayerStarted,
    LayerStats,
    LayerStopped,
    PlaneStats,
    SessionStats,
    SlotStats,
    SlotSwitched,
)
from relay.plane.resync import Told

START = 1_000_000
HERE, THERE = ("192.0.2.1", 1), ("192.0.2.1", 2)


def snapshot() -> PlaneStats:
    return PlaneStats(
        sessions={1: SessionStats(address=HERE, estimate=START), 2: SessionStats()},
        tracks={3: [LayerStats(active=True, payload_type=96), LayerStats()]},
        slots={4: SlotStats(track=3, layer=0), 5: SlotStats()},
        drops={},
    )


ALL: list[Event] = [AddressSelected(1, HERE), LayerStarted(3, 0, 0, 96), SlotSwitched(4, 3, 0, 0, 0)]


def test_what_was_told_is_not_told_again() -> None:
    told = Told(START)
    told.note(ALL)
    assert told.catch_up(snapshot()) == []


def test_all_that_was_never_told_is() -> None:
    told = Told(START)
    assert told.catch_up(snapshot()) == ALL
    assert told.catch_up(snapshot()) == []


def test_what_became_different_is_told() -> None:
    told = Told(START)
    told.note(ALL)
    stats = snapshot()
    stats.sessions[1].address = THERE
    stats.sessions[1].estimate = 2 * START
    stats.tracks[3][0].active = False
    stats.tracks[3][1] = LayerStats(active=True, payload_type=102)
    stats.slots[4].layer = 1
    expected = [
        AddressSelected(1, THERE),
        EstimateChanged(1, 2 * START),
        LayerStopped(3, 0),
        LayerStarted(3, 1, 0, 102),
        SlotSwitched(4, 3, 1, 0, 0),
    ]
    assert told.catch_up(stats) == expected
    assert told.catch_up(stats) == []
    stats.tracks[3][1].payload_type = 96
    assert told.catch_up(stats) == [LayerStarted(3, 1, 0, 96)]


def test_small_moves_of_an_estimate_are_not_worth_telling() -> None:
    told = Told(START)
    stats = snapshot()
    told.catch_up(stats)
    stats.sessions[1].estimate = START + START // 20
    assert told.catch_up(stats) == []


def test_what_is_gone_is_forgotten() -> None:
    told = Told(START)
    told.note([*ALL, EstimateChanged(1, 5)])
    assert len(told) == 4
    told.forget(PlaneStats({}, {}, {}, {}))
    assert len(told) == 0

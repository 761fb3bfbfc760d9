"""What viewers' lines say of freezes, lost, repeated and reordered frames, and silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.measure import Spread, Stream, Watched, frames, silences, spread, watched, worst

V, W = Stream("v", 1), Stream("w", 1)


def frame(at: float, counter: int | None, viewer: str = "v", publisher: int | None = 1) -> dict[str, Any]:
    return {"at": at, "viewer": viewer, "event": "frame", "slot": 0, "publisher": publisher, "counter": counter}


def sound(at: float, level: float, viewer: str = "v", slot: int = 0) -> dict[str, Any]:
    return {"at": at, "viewer": viewer, "event": "sound", "slot": slot, "level": level}


def test_frames_are_collected_by_viewer_and_publisher_and_unreadable_ones_left_out() -> None:
    lines = [
        {"at": 0.0, "viewer": "v", "event": "joined", "session": "s"},
        frame(1.0, 5),
        frame(1.1, None, publisher=None),
        frame(1.2, 6),
        frame(1.2, 9, publisher=2),
    ]
    assert frames(lines) == {V: [(1.0, 5), (1.2, 6)], Stream("v", 2): [(1.2, 9)]}


def test_the_longest_time_without_a_new_frame() -> None:
    seen = {V: [(0.0, 1), (0.1, 2), (0.4, 3), (0.5, 4)]}
    assert watched(seen, 0.0, 0.5)[V] == Watched(3, pytest.approx(0.3), 0.1, (), 0, 0)


def test_a_frame_that_comes_again_is_no_new_one() -> None:
    seen = {V: [(0.0, 1), (0.1, 2), (0.2, 2), (0.3, 1), (0.6, 3)]}
    judged = watched(seen, 0.0, 1.0)[V]
    assert (judged.gap, judged.gap_at) == (pytest.approx(0.5), 0.1)
    assert (judged.repeated, judged.reordered) == (1, 1)


def test_a_gap_counts_as_a_whole_when_it_began_before_and_when_it_has_not_ended() -> None:
    seen = {V: [(0.0, 1), (2.0, 2)], W: [(0.0, 1), (1.1, 2)]}
    judged = watched(seen, 1.0, 2.5)
    assert judged[V].gap == pytest.approx(2.0)
    assert judged[W].gap == pytest.approx(1.4)
    assert worst(judged) == {"v": pytest.approx(2.0), "w": pytest.approx(1.4)}


def test_who_was_frozen_all_the_time_and_who_was_not_there_yet() -> None:
    seen = {V: [(0.0, 1)], W: [(9.0, 1)]}
    judged = watched(seen, 1.0, 3.0)
    assert judged == {V: Watched(0, pytest.approx(3.0), 0.0, (), 0, 0)}


def test_frames_are_lost_when_another_saw_them() -> None:
    seen = {V: [(1.0, 1), (1.1, 3), (1.4, 6)], W: [(1.0, 1), (1.1, 2), (1.4, 6)]}
    judged = watched(seen, 0.0, 2.0, reference={Stream("near", 1): [(1.2, 4)], Stream("near", 2): [(1.2, 5)]})
    assert judged[V].lost == (2, 4)
    assert judged[W].lost == (3, 4)


def test_silence_is_the_longest_time_without_sound_on_a_slot_that_had_some() -> None:
    lines = [sound(at / 50, -20.0 if at < 50 or at > 70 else -90.0) for at in range(100)]
    lines += [sound(at / 50, -100.0, slot=1) for at in range(100)]
    lines += [sound(at / 50, -20.0, "w") for at in range(100)]
    found = silences(lines, 0.5, 1.99)
    assert found == {"v": pytest.approx(71 / 50 - 49 / 50), "w": pytest.approx(0.02, abs=0.02)}
    assert silences([sound(0.0, -20.0)], 1.0, 3.0) == {"v": pytest.approx(3.0)}


def test_spread() -> None:
    assert spread([]) == Spread(0.0, 0.0, 0.0)
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 3.0, 3.0)
    assert spread(range(1, 1001)) == Spread(500, 990, 1000)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50)), min_size=1))
def test_what_is_judged_is_consistent(told: list[tuple[float, int]]) -> None:
    told.sort(key=lambda one: one[0])
    judged = watched({V: told}, 2.0, 8.0).get(V)
    if judged is None:
        assert told[0][0] >= 8.0
        return
    within = [counter for at, counter in told if 2.0 <= at < 8.0]
    assert judged.frames == len(within)
    assert judged.repeated + judged.reordered <= len(within)
    assert 0 <= judged.gap <= 8.0
    assert not set(judged.lost) & {counter for _, counter in told}

"""The breaker against the oracle: the same moves at the same times for the same reasons, on 10,000 random stories."""

from __future__ import annotations

from collections import Counter

import pytest

from drills.oracle import Forced, Move, Reported, Restored, Woken, expected
from drills.simulation.model_path import MS, SECOND
from relay.link.breaker import LAW, BreakerMoved
from relay.link.path import PathReport
from relay.settings import BreakerSettings
from tests.link.traces import random_story

STORIES = 10_000
PARTS = 40


def as_expected(moves: list[BreakerMoved]) -> list[Move]:
    """Return moves of the breaker in the oracle's words."""
    return [Move(move.now, move.previous.value, move.state.value, move.reason) for move in moves]


@pytest.mark.parametrize("part", range(PARTS))
def test_random_stories_end_alike(part: int) -> None:
    reasons: Counter[str] = Counter()
    for seed in range(part, STORIES, PARTS):
        settings, steps, moves = random_story(seed)
        assert as_expected(moves) == expected(steps, settings), f"seed {seed}"
        reasons.update(f"{move.previous.value} > {move.state.value}" for move in moves)
    legal = {f"{state.value} > {target.value}" for state, rules in LAW.items() for _, target in rules}
    assert legal <= set(reasons), "the stories reach every arc of the law"


def test_a_storm_by_hand() -> None:
    """The oracle itself, on a story whose moves can be read off: it does more than agree with the breaker."""
    good = [
        Reported(name, PathReport(at * MS, (20 * MS,), at, at, 0, None, 27 * MS))
        for at in range(0, 1000, 20)
        for name in ("primary", "backup")
    ]
    slow = [
        Reported("primary", PathReport(at * MS, (300 * MS,), at, at, 0, None, 27 * MS)) for at in range(1000, 1100, 20)
    ]
    moves = expected([*good, *slow, Woken(5 * SECOND), Woken(6040 * MS), Woken(37 * SECOND)], BreakerSettings())
    assert moves == [
        Move(1040 * MS, "closed", "suspect", "doubted: rtt"),
        Move(1040 * MS, "suspect", "open", "tripped: rtt"),
        Move(6040 * MS, "open", "half-open", "hold_over"),
        Move(37 * SECOND, "half-open", "open", "probe_failed: timeout"),
    ]


def test_a_black_hole_and_an_operator_by_hand() -> None:
    waiting = PathReport(SECOND, (), 10, 5, 0, SECOND, 27 * MS)
    steps = [
        Reported("backup", PathReport(SECOND, (20 * MS,), 5, 5, 0, None, 27 * MS)),
        Reported("primary", waiting),
        Woken(1060 * MS - 1),
        Woken(1060 * MS),
        Woken(1240 * MS - 1),
        Woken(1240 * MS),
        Restored(2 * SECOND),
        Forced(2100 * MS),
    ]
    assert expected(steps, BreakerSettings()) == [
        Move(1060 * MS, "closed", "suspect", "doubted: silence"),
        Move(1240 * MS, "suspect", "open", "tripped: silence"),
        Move(2 * SECOND, "open", "closed", "reset"),
        Move(2100 * MS, "closed", "open", "forced"),
    ]

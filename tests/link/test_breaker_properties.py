"""What holds for every story, however it goes: never neither path, legal moves only, deadlines that are deadlines."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from drills.oracle import Reported, Step, Woken
from relay.link.breaker import LAW, MINUTE_US, RESTING, Breaker, BreakerMoved
from relay.link.path import PathReport
from relay.settings import BreakerSettings
from tests.link.traces import Telling, random_settings, random_story

TIMES = st.integers(0, 10**9)
COUNTS = st.integers(0, 5000)
REPORTS = st.builds(
    PathReport,
    now=TIMES,
    rtt_us=st.lists(st.integers(0, 10**7), max_size=5).map(tuple),
    sent=COUNTS,
    acked=COUNTS,
    lost=st.integers(-10, 5000),
    oldest_unacked=st.none() | TIMES,
    pto_us=st.integers(0, 10**7),
    closed=st.sampled_from([False] * 9 + [True]),
)
STEPS = st.builds(Reported, st.sampled_from(["primary", "backup"]), REPORTS, st.integers(0, 3)) | st.builds(
    Woken, TIMES
)
LEGAL = {(state, target) for state, rules in LAW.items() for _, target in rules}


def replay(steps: list[Step], breaker_settings: BreakerSettings) -> list[BreakerMoved]:
    telling = Telling(breaker_settings)
    for step in steps:
        telling.tell(step)
    return telling.moves


@settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, max_size=40), st.integers(0, 2**32))
def test_any_reports_at_all(steps: list[Step], seed: int) -> None:
    """Even counters that no connection could have: no exception, one event per move, something always carries."""
    telling = Telling(random_settings(random.Random(seed)))
    for step in steps:
        before, known = telling.breaker.state, len(telling.moves)
        telling.tell(step)
        new = telling.moves[known:]
        states = [before, *(move.state for move in new)]
        assert [(move.previous, move.state) for move in new] == list(pairwise(states))
        assert {(move.previous, move.state) for move in new} <= LEGAL
        assert telling.breaker.state is states[-1]
        assert telling.breaker.carrying
        assert 0 <= telling.breaker.probe_share <= 1
        due = telling.breaker.next_timeout()
        assert due is None or due > telling.now


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32))
def test_deadlines_come_to_an_end(seed: int) -> None:
    """When nobody reports any more, the breaker comes to rest, or goes round in circles no faster than its hold."""
    breaker_settings, steps, _ = random_story(seed, length=30)
    telling = Telling(breaker_settings)
    for step in steps:
        telling.tell(step)
    start = telling.now
    for _ in range(200):
        due = telling.breaker.next_timeout()
        if due is None or due > start + 600_000_000:
            break
        assert due > telling.now
        telling.tell(Woken(due))
    moves = [move for move in telling.moves if move.now > start]
    fastest = min(breaker_settings.hold_s, breaker_settings.suspect_s, 0.05) * 1_000_000
    assert len(moves) <= 4 + 3 * (telling.now - start) / fastest


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_waking_more_often_changes_nothing(seed: int) -> None:
    """`next_timeout` names every moment at which time alone changes something."""
    breaker_settings, steps, _ = random_story(seed, length=40)
    dice = random.Random(seed)
    times = sorted({step.report.now for step in steps if isinstance(step, Reported)})
    plain, restless = Telling(breaker_settings), Telling(breaker_settings)
    extra = sorted(dice.randrange(times[0], times[-1] + 1) for _ in range(60)) if times else []
    for step in steps:
        if not isinstance(step, Reported):
            continue
        now = step.report.now
        plain.wake_until(now)
        while extra and extra[0] <= now:
            moment = extra.pop(0)
            restless.wake_until(moment)
            restless.tell(Woken(moment))
        restless.wake_until(now)
        plain.tell(step)
        restless.tell(step)
    assert restless.moves == plain.moves


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_switches_are_few(seed: int) -> None:
    """In no 60 s are there more than allowed, but for what a failing backup or an operator causes."""
    breaker_settings, _, moves = random_story(seed)
    causes = [m for m in moves if m.reason.startswith(("backup_failed", "forced", "reset"))]
    switches = [m.now for m in moves if (m.previous in RESTING) != (m.state in RESTING)]
    if not causes:
        limit = breaker_settings.switches_per_minute
        for first, over in zip(switches, switches[limit:], strict=False):
            assert over - first >= MINUTE_US


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), max_size=300), st.integers(1, 30), st.floats(0.01, 1))
def test_probes_in_flight_are_bounded(answers: list[bool], limit: int, share: float) -> None:
    """Whatever order packets and answers come in, never are more copies open than permitted."""
    chosen = BreakerSettings(probes_in_flight=limit, probe_share=share, hold_s=0.1, probe_packets=100_000)
    breaker = Breaker(chosen)
    breaker.report("backup", PathReport(0, (1000,), 1, 1, 0, None, 27_000))
    breaker.report("primary", PathReport(0, (300_000,) * 3, 3, 3, 0, None, 27_000))
    now = 100_000
    breaker.handle_timeout(now)
    sent, acked = 0, 0
    for answered in answers:
        sent += breaker.take_probe()
        assert sent - acked <= limit
        if answered and sent > acked:
            acked += 1
            now += 1000
            breaker.report("primary", PathReport(now, (1000,), 3 + sent, 3 + acked, 0, None, 27_000))

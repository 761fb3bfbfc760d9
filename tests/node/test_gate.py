"""The slab's gate in virtual time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.node.gate import OPENING_S, GateState, SlabGate, tightest

TOTAL = 1000


def came_in(gate: SlabGate, begin: float, seconds: float, free: int = 500, every: float = 0.01) -> list[float]:
    """When newcomers were let in, of a crowd that asks all the time."""
    times = []
    for step in range(1, round(seconds / every) + 1):
        now = begin + step * every
        gate.observe(free, TOTAL, now)
        if gate.allows():
            gate.came_in()
            times.append(now)
    return times


def shut() -> SlabGate:
    gate = SlabGate()
    gate.observe(49, TOTAL, 5.0)
    assert gate.state is GateState.SHUT
    return gate


def test_it_is_open_until_less_than_a_twentieth_is_free() -> None:
    gate = SlabGate()
    assert gate.allows()
    gate.observe(50, TOTAL, 0.0)
    assert gate.allows()
    gate.observe(49, TOTAL, 0.0)
    assert not gate.allows()


def test_it_stays_shut_until_more_than_a_tenth_is_free() -> None:
    gate = shut()
    assert not came_in(gate, 5.0, 100.0, free=100)
    gate.observe(101, TOTAL, 106.0)
    assert gate.state is GateState.OPENING
    assert gate.allows()


def test_it_opens_gradually() -> None:
    gate = shut()
    times = came_in(gate, 10.0, OPENING_S)
    by_second = [sum(10.0 + second < at <= 11.0 + second for at in times) for second in range(10)]
    assert all(before < after for before, after in pairwise(by_second)), by_second
    assert by_second[0] <= 5
    assert 40 <= by_second[-1] <= 60
    gate.observe(500, TOTAL, 10.0 + OPENING_S + 1)
    assert gate.state is GateState.OPEN
    assert all(gate.allows() or gate.came_in() for _ in range(1000))


def test_it_shuts_again_while_it_opens() -> None:
    gate = shut()
    assert came_in(gate, 10.0, 5.0)
    gate.observe(20, TOTAL, 15.0)
    assert not came_in(gate, 15.0, 5.0, free=90)
    again = came_in(gate, 20.0, 1.0)
    assert len(again) <= 5, "it begins slowly again"


def test_a_quiet_time_lets_no_crowd_in() -> None:
    gate = shut()
    gate.observe(500, TOTAL, 10.0)
    gate.observe(500, TOTAL, 15.0)
    count = 0
    while gate.allows():
        gate.came_in()
        count += 1
    assert count <= 26  # one second of that time's rate, and not five


def test_one_full_shard_shuts_it_although_the_others_have_room() -> None:
    slabs = [(900, TOTAL), (49, TOTAL), (2, 20)]
    assert tightest(slabs) == (49, TOTAL), "the share counts, not the number"
    gate = SlabGate()
    gate.observe(*tightest(slabs), 0.0)
    assert not gate.allows()
    assert tightest([(7, 9)]) == (7, 9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, TOTAL), st.floats(0.001, 20.0), st.booleans()), max_size=60))
def test_it_never_lets_in_below_the_threshold_nor_stays_shut_above(
    steps: list[tuple[int, float, bool]],
) -> None:
    gate, now = SlabGate(), 0.0
    for free, passed, ask in steps:
        now += passed
        gate.observe(free, TOTAL, now)
        if free < 50:
            assert not gate.allows()
        if ask and gate.allows():
            gate.came_in()
    now += 1.0
    gate.observe(TOTAL, TOTAL, now)
    gate.observe(TOTAL, TOTAL, now + OPENING_S + 1)
    assert gate.allows()

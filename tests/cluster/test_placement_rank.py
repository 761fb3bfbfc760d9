"""Placement as a pure function: who is asked first, and that nobody is overrun."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cluster.placement import SPARE_LOAD, load_of, rank, rendezvous
from relay.ports import NodeRecord


def node(name: str, region: str = "eu", load: float = 0.0, **changes: object) -> NodeRecord:
    return NodeRecord(name, "http://x", region, "0", load=load, max_sessions=10, **changes)  # type: ignore[arg-type]


NODES = st.lists(
    st.builds(
        node,
        st.sampled_from("abcdefgh"),
        st.sampled_from(["eu", "us"]),
        st.floats(0, 1),
        draining=st.booleans(),
        healthy=st.booleans(),
        sessions=st.integers(0, 11),
    ),
    unique_by=lambda each: each.id,
)
ROOMS = st.text(max_size=8)


@given(ROOMS, NODES, st.sets(st.sampled_from("abcdefgh")), st.sampled_from(["", "eu"]), st.sets(st.sampled_from("abc")))
def test_the_order_is_as_told(
    room: str, nodes: list[NodeRecord], present: set[str], region: str, down: set[str]
) -> None:
    ranked = rank(room, nodes, present=present, region=region, down=down)
    usable = {
        each.id
        for each in nodes
        if not (each.draining or each.sessions >= 10 or each.load >= 1 or not each.healthy or each.id in down)
    }
    assert {each.id for each in ranked} == usable
    assert len(ranked) == len(usable)
    serving = [each.id in present and each.load <= SPARE_LOAD for each in ranked]
    assert serving == sorted(serving, reverse=True)
    for group in (True, False):
        near = [each.region == region for each, there in zip(ranked, serving, strict=True) if there is group]
        assert not region or near == sorted(near, reverse=True)
    assert rank(room, reversed(nodes), present=present, region=region, down=down) == ranked


@given(ROOMS, st.sets(st.text(min_size=1), min_size=2))
def test_a_node_that_goes_moves_only_its_own_rooms(room: str, names: set[str]) -> None:
    chosen = rendezvous(room, names)
    for gone in names - {chosen}:
        assert rendezvous(room, names - {gone}) == chosen
    assert rank(room, [node(name) for name in names])[0].id == chosen


def test_a_burst_between_two_heartbeats_is_spread() -> None:
    nodes = [node(name, load=0.5) for name in "abcdef"] + [node("idle")]
    first = Counter(rank(f"r{number}", nodes)[0].id for number in range(700))
    assert 100 < first["idle"] < 300  # its share of the pairs, 2 of 7, and not everything
    assert len(first) == 7


def test_a_flicker_of_load_moves_nobody() -> None:
    nodes = [node(name, load=0.50) for name in "abc"]
    for number in range(50):
        before = rank(f"r{number}", nodes)
        after = rank(f"r{number}", [replace(each, load=0.505) for each in nodes[:1]] + nodes[1:])
        assert [each.id for each in before] == [each.id for each in after]


def test_a_serving_node_that_is_nearly_full_is_relieved() -> None:
    nodes = [node("serving", load=0.9), node("other", load=0.2)]
    assert [each.id for each in rank("r", nodes, present={"serving"})] == ["other", "serving"]
    nodes[0] = node("serving", load=0.8)
    assert [each.id for each in rank("r", nodes, present={"serving"})] == ["serving", "other"]


@pytest.mark.parametrize(
    ("shares", "load"),
    [
        ([], 0.0),
        ([(1, 0)], 0.0),
        ([(5, 10), (3, 4)], 0.75),
        ([(999, 1000)], 0.95),
        ([(1000, 1000)], 1.0),
        ([(5000, 1000)], 1.0),
        ([(-5, 10)], 0.0),
    ],
)
def test_the_greatest_share_is_the_load(shares: list[tuple[float, float]], load: float) -> None:
    assert load_of(shares) == load

"""When a node tells its viewers to go elsewhere, and when it keeps them: in virtual time."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from relay.node.stranded import KEPT_S, REPEAT_S, Stranded, Watched
from relay.ports import NodeRecord

AFTER, SPREAD = 5.0, 4.0
VIEWERS = tuple(f"s{number}" for number in range(200))
ROOM = {"show": Watched(frozenset({"a"}), VIEWERS)}


def record(node: str, *hears: str, **more: object) -> NodeRecord:
    return NodeRecord(node, "", "", "", hears=hears, **more)  # type: ignore[arg-type]


class World:
    """Node c, which watches a room of a's; b does, too."""

    def __init__(self) -> None:
        self.machine = Stranded("c", AFTER, SPREAD, Random(1))
        self.now = 100.0
        self.told: list[tuple[float, str]] = []
        self.rooms = dict(ROOM)
        self.heard = frozenset[str]()
        self.records: Iterable[NodeRecord] | None = [record("a"), record("b", "a"), record("c")]

    def run(self, seconds: float) -> list[str]:
        """Let time pass and return who was told."""
        begun, until = len(self.told), self.now + seconds
        while self.now < until:
            self.now += 0.25
            found = self.machine.tick(self.rooms, self.heard, self.records, self.now)
            self.told += [(self.now, session) for session in found]
        return [session for _, session in self.told[begun:]]


def test_all_are_told_once_after_the_bound_and_not_at_once() -> None:
    world = World()
    assert world.run(AFTER) == []
    assert sorted(world.run(SPREAD + 0.5)) == sorted(VIEWERS)
    times = [at for at, _ in world.told]
    busiest = max(times.count(at) for at in times)
    assert busiest < len(VIEWERS) / SPREAD
    assert "show" in world.machine


def test_who_is_still_here_is_told_again() -> None:
    world = World()
    world.run(AFTER + SPREAD + 0.5)
    world.rooms["show"] = Watched(frozenset({"a"}), VIEWERS[:3])
    assert sorted(world.run(REPEAT_S + SPREAD)) == sorted(VIEWERS[:3])


def test_nothing_is_said_while_the_origin_is_heard() -> None:
    world = World()
    world.heard = frozenset({"a"})
    assert world.run(60) == []
    world.heard = frozenset()
    world.run(AFTER - 0.5)
    world.heard = frozenset({"a"})  # it was a hiccup
    world.run(0.25)
    world.heard = frozenset()
    assert world.run(AFTER) == []
    assert "show" not in world.machine


def test_who_was_not_told_yet_stays_when_the_origin_is_back() -> None:
    world = World()
    told = len(world.run(AFTER + SPREAD / 2))
    assert 0 < told < len(VIEWERS)
    world.heard = frozenset({"a"})
    assert world.run(60) == []
    assert "show" not in world.machine


@pytest.mark.parametrize(
    ("why", "records"),
    [
        ("the store is silent: cut off from everybody", None),
        ("the origin is gone itself", [record("b", "a"), record("c")]),
        ("nobody else hears it, and it is full itself", [record("a", sessions=1), record("b"), record("c", "a")]),
        ("the one that hears it drains", [record("a", draining=True), record("b", "a", draining=True), record("c")]),
        ("the one that hears it is full", [record("a", load=1.0), record("b", "a", load=1.0), record("c")]),
        ("the one that hears it has a broken plane", [record("a", healthy=False), record("b", "a", healthy=False)]),
    ],
)
def test_without_a_better_place_they_stay(why: str, records: list[NodeRecord] | None) -> None:
    world = World()
    world.records = records
    assert world.run(60) == [], why
    assert "show" not in world.machine


def test_the_origin_itself_is_a_better_place() -> None:
    world = World()
    world.records = [record("a"), record("c")]
    assert len(world.run(AFTER + SPREAD + 0.5)) == len(VIEWERS)


def test_a_place_has_to_have_all_that_is_watched() -> None:
    world = World()
    world.rooms = {"show": Watched(frozenset({"a", "d"}), VIEWERS)}
    world.heard = frozenset({"d"})
    world.records = [record("a"), record("b", "a"), record("c", "d"), record("d")]
    assert world.run(60) == [], "elsewhere they would miss what they have here"
    world.records = [record("a"), record("b", "a", "d"), record("c", "d"), record("d")]
    assert len(world.run(AFTER + SPREAD + 0.5)) == len(VIEWERS)


def test_rooms_do_not_disturb_each_other_and_end() -> None:
    world = World()
    world.rooms = {**ROOM, "other": Watched(frozenset({"b"}), ("t1",)), "own": Watched(frozenset(), ("t2",))}
    world.heard = frozenset({"b"})
    told = world.run(AFTER + SPREAD + 0.5)
    assert sorted(told) == sorted(VIEWERS)
    world.rooms = {}
    assert world.run(KEPT_S - 1) == []
    assert "show" in world.machine, "whoever came would only wait"
    world.run(2)
    assert "show" not in world.machine


def test_a_room_that_everybody_left_before_the_bound_is_forgotten() -> None:
    world = World()
    world.run(AFTER - 0.5)
    world.rooms = {}
    world.run(0.25)
    world.rooms = dict(ROOM)
    assert world.run(AFTER) == []


def test_a_node_that_comes_later_is_told_within_the_spread() -> None:
    world = World()
    world.run(AFTER + SPREAD + 0.5)
    world.rooms["show"] = Watched(frozenset({"a"}), ("late",))
    assert world.run(SPREAD + 0.25) == ["late"]

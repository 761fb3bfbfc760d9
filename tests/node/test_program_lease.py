"""Who asks for the right to mix, and when: nodes of a cluster with one document, in virtual time, and no process."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest

from relay.errors import Overloaded
from relay.mix.video import events as picture
from relay.node.clocks import TrackClocks
from relay.node.program import QUESTION_S, RETRY_S, TURN_S, RoomProgram, in_line
from relay.node.programs import Pools
from relay.stage import program as programs
from relay.stage import publications
from relay.stage.document import RoomChange, RoomState
from relay.stage.live import LiveRoom
from tests.stage.rooms import GUEST, OTHER, OWNER, new_room, publish


class NoPools:
    """Ready only if told so: what is asked before mixing begins is all that counts here."""

    def __init__(self) -> None:
        self.rooms: set[str] = set()
        self.troubles: list[str] = []
        self.ready = False

    def wanted(self, room: str, program: object) -> bool:
        self.rooms.add(room)
        return self.ready

    def count_trouble(self, fault: str) -> None:
        self.troubles.append(fault)

    def unwanted(self, room: str) -> None:
        self.rooms.discard(room)


class World:
    """One document, and the nodes that host its room. The lease is given by the test."""

    def __init__(self, *nodes: str) -> None:
        self.now = 100.0
        self.state, _ = publish(new_room(), GUEST, node="n1", epoch=1)
        self.state, _ = publish(self.state, OTHER, node="n2", epoch=2)
        self.nodes = {name: Node(self, name) for name in nodes}

    def change(self, change: Callable[[RoomState], RoomChange]) -> None:
        self.state, _ = change(self.state)
        self.update()

    def switch_on(self) -> None:
        self.change(lambda state: programs.switch_on(state, OWNER, self.now))

    def update(self) -> None:
        for node in self.nodes.values():
            node.program.update()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.update()

    @property
    def asking(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.asked]


class Node:
    """One node's part; stands for its room and its links."""

    def __init__(self, world: World, name: str, linked: bool = True) -> None:
        self.world, self.name, self.id = world, name, "demo"
        self.live = LiveRoom(lambda slot, track: track.number)
        self.asked = 0
        self.ended = False
        self.pools = NoPools()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.program = RoomProgram(
            cast(Any, self), name, cast(Pools, self.pools), cast(Any, self), TrackClocks(dict),
            lambda: world.now, lambda: world.now, world.change, self.told.extend, cast(Any, self) if linked else None,
        )  # fmt: skip

    @property
    def state(self) -> RoomState:
        return self.world.state

    def want_lease(self, room: str, publication: str, over: int | None) -> None:
        assert (room, publication, over) == ("demo", programs.LEASE, None)
        self.asked += 1

    def give_up_lease(self, room: str, publication: str) -> None:
        assert (room, publication) == ("demo", programs.LEASE)
        self.asked = 0


@pytest.fixture
def world() -> World:
    return World("n1", "n2", "n3")


def test_nobody_asks_while_it_is_off(world: World) -> None:
    world.wait(60)
    assert world.asking == []


def test_the_first_hosts_node_asks_first_and_who_has_no_host_never(world: World) -> None:
    world.switch_on()
    assert world.asking == ["n1"]
    world.wait(TURN_S)
    assert world.asking == ["n1", "n2"]
    world.wait(60)
    assert world.asking == ["n1", "n2"]
    assert in_line(world.state) == ["n1", "n2"]


def test_who_was_refused_asks_again_but_not_at_once(world: World) -> None:
    world.switch_on()
    one = world.nodes["n1"]
    one.program.lease_refused()
    world.wait(QUESTION_S / 2)
    assert one.asked == 1
    world.wait(QUESTION_S)
    assert one.asked == 2


def test_while_another_mixes_nobody_asks_and_when_it_is_gone_the_next_does(world: World) -> None:
    world.switch_on()
    world.change(lambda state: programs.take(state, "n1", 5))
    world.nodes["n1"].asked = 0
    world.wait(60)
    assert world.nodes["n2"].asked == 0
    for name in ("n2", "n3"):
        world.nodes[name].program.nodes_known(frozenset({"n2", "n3"}))
    assert world.state.program is not None
    assert world.state.program.node == ""
    world.change(lambda state: publications.node_away(state, "n1", world.now))
    world.wait(0.01)
    assert world.nodes["n2"].asked == 1


def test_the_lease_begins_it_and_its_loss_ends_it(world: World) -> None:
    world.switch_on()
    one = world.nodes["n1"]
    one.program.lease_changed(7)
    assert one.pools.rooms == {"demo"}
    one.program.lease_changed(0)
    assert one.pools.rooms == set()
    one.program.lease_changed(8)
    assert one.pools.rooms == {"demo"}
    world.change(lambda state: programs.switch_off(state, OWNER, world.now))
    assert one.pools.rooms == set()
    assert one.asked == 0, "the lease is given back"


def test_a_room_that_closes_gives_the_lease_back(world: World) -> None:
    world.switch_on()
    one = world.nodes["n1"]
    one.program.lease_changed(7)
    one.program.close()
    assert (one.pools.rooms, one.asked) == (set(), 0)
    world.wait(60)
    assert one.asked == 0


def test_a_room_is_told_what_its_program_gives_up_and_gets_back(world: World) -> None:
    one = world.nodes["n1"]
    for event in (
        picture.ProgramRecovered("demo", 2),  # one more hand, while nothing was given up
        picture.ProgramDegraded("demo", 15.0, 1280, 720, 2),
        picture.ProgramDegraded("demo", 7.5, 960, 540, 2),
        picture.ProgramRecovered("demo", 2),
        picture.ProgramRecovered("demo", 1),
        picture.ProgramDegraded("demo", 15.0, 1280, 720, 2),
        picture.WorkerLost("here", "it hangs", ("demo",)),
        picture.StageMoved("demo", "there", 250_000),
        picture.InputTroubled("demo", "bob", "resized", "to 640x360"),
        picture.InputTroubled("demo", "bob", "resized", "to 320x180"),  # not so soon again
        picture.InputTroubled("demo", "bob", "clock_jumped", "by 3.000 s"),
    ):
        one.program.picture_told(event)
    assert [kind.removeprefix("program.") for kind, _ in one.told] == [
        "degraded", "degraded", "restored", "degraded", "interrupted", "recovered", "restored", "input_troubled",
        "input_troubled",
    ]  # fmt: skip
    assert one.told[1][1] == {"fps": 7.5, "width": 960, "height": 540}
    assert one.told[5][1] == {"part": "video", "gap_ms": 250}
    assert one.pools.troubles == ["resized", "resized", "clock_jumped"]


def test_what_cannot_be_mixed_is_told_once_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = world.nodes["n1"]
    tries: list[float] = []

    def fail() -> None:
        tries.append(world.now)
        raise Overloaded("all 4 video workers are in use")

    monkeypatch.setattr(one.program, "_make", fail)
    one.pools.ready = True
    world.switch_on()
    one.program.lease_changed(7)
    for _ in range(10):
        world.wait(RETRY_S / 2)
    failed = [data for kind, data in one.told if kind == "program.failed"]
    assert failed == [{"node": "n1", "reason": "all 4 video workers are in use"}]
    assert len(tries) >= 5
    assert all(later - earlier >= RETRY_S for earlier, later in pairwise(tries))


def test_without_links_the_first_hosts_node_mixes_and_asks_nobody(world: World) -> None:
    world.nodes = {name: Node(world, name, linked=False) for name in ("n1", "n2", "n3")}
    world.switch_on()
    assert {name for name, node in world.nodes.items() if node.pools.rooms} == {"n1"}
    world.change(lambda state: publications.node_away(state, "n1", world.now))
    assert {name for name, node in world.nodes.items() if node.pools.rooms} == {"n2"}
    assert world.asking == []

"""When leases are asked for and what is believed of them, in virtual time: no two nodes are ever certain at once."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from relay.cluster.lease_keeper import (
    MARGIN,
    RENEWALS,
    Acquire,
    LeaseConfirmed,
    LeaseDoubted,
    LeaseGained,
    LeaseKeeper,
    LeaseLost,
    LeaseRefused,
    Release,
    Renew,
    Request,
)
from relay.ports import Lease

TTL = 3.0
CERTAIN = TTL * (1 - MARGIN)
ROOM, CAM, MIC = "demo", "cam", "mic"


def only(requests: list[Request], kind: type[Request]) -> Request:
    (request,) = requests
    assert isinstance(request, kind)
    return request


def held(now: float = 0.0, *publications: str) -> LeaseKeeper:
    """A keeper that was given leases at `now`, with epochs 1, 2, …"""
    keeper = LeaseKeeper("a", TTL)
    for epoch, publication in enumerate(publications or (CAM,), 1):
        keeper.want(ROOM, publication)
        request = only(keeper.requests(now), Acquire)
        assert isinstance(request, Acquire)
        keeper.acquired(request, epoch)
    keeper.events()
    return keeper


def renewal(keeper: LeaseKeeper, now: float) -> Renew:
    request = only(keeper.requests(now), Renew)
    assert isinstance(request, Renew)
    return request


def test_a_wish_is_asked_once_and_again_after_a_failure() -> None:
    keeper = LeaseKeeper("a", TTL)
    assert keeper.next_timeout() is None
    keeper.want(ROOM, CAM, over=7)
    keeper.want(ROOM, CAM, over=8)
    request = only(keeper.requests(1.0), Acquire)
    assert request == Acquire(ROOM, CAM, 7, 1.0)
    assert keeper.requests(5.0) == []
    keeper.failed(request, 5.0)
    assert keeper.requests(5.0) == []
    assert keeper.next_timeout() == 5.0 + TTL / RENEWALS / 2
    assert only(keeper.requests(5.5), Acquire) == Acquire(ROOM, CAM, 7, 5.5)


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    keeper = LeaseKeeper("a", TTL)
    keeper.want(ROOM, CAM)
    request = only(keeper.requests(0.0), Acquire)
    assert isinstance(request, Acquire)
    assert keeper.epoch(ROOM, CAM, 0.0) is None
    keeper.acquired(request, 5)  # however late
    assert keeper.events() == [LeaseGained(ROOM, CAM, 5)]
    assert keeper.epoch(ROOM, CAM, CERTAIN - 0.01) == 5
    assert keeper.epoch(ROOM, CAM, CERTAIN) is None


def test_all_leases_of_a_room_are_renewed_in_one_at_a_third() -> None:
    keeper = held(0.0, CAM, MIC)
    assert keeper.next_timeout() == TTL / RENEWALS
    assert keeper.requests(0.9) == []
    request = renewal(keeper, 1.0)
    assert request.epochs == {CAM: 1, MIC: 2}
    assert keeper.requests(2.0) == []  # one at a time
    keeper.renewed(request, {})
    assert keeper.epoch(ROOM, MIC, 1.0 + CERTAIN - 0.01) == 2
    assert keeper.next_timeout() == 2.0
    assert keeper.events() == []


def test_without_answers_it_doubts_and_a_late_answer_confirms() -> None:
    keeper = held()
    first = renewal(keeper, 1.0)
    keeper.failed(first, 1.5)
    second = renewal(keeper, 2.0)
    assert keeper.requests(CERTAIN) == []
    assert keeper.events() == [LeaseDoubted(ROOM, CAM, 1)]
    keeper.failed(second, 60.0)
    third = renewal(keeper, 60.5)
    assert third.epochs == {CAM: 1}
    assert keeper.requests(60.6) == []
    assert keeper.events() == []
    keeper.renewed(third, {})
    assert keeper.events() == [LeaseConfirmed(ROOM, CAM, 1)]
    assert keeper.epoch(ROOM, CAM, 61.0) == 1


def test_an_answer_that_came_too_late_is_doubted_at_once() -> None:
    keeper = held()
    request = renewal(keeper, 1.0)
    keeper.requests(30.0)
    keeper.renewed(request, {})
    assert keeper.epoch(ROOM, CAM, 30.0) is None
    keeper.requests(30.0)
    assert [type(event) for event in keeper.events()] == [LeaseDoubted, LeaseConfirmed, LeaseDoubted]


def test_a_successor_is_named_and_nothing_is_asked_any_more() -> None:
    keeper = held(0.0, CAM, MIC)
    keeper.renewed(renewal(keeper, 1.0), {CAM: Lease(ROOM, CAM, "b", 9, 1.0)})
    assert keeper.events() == [LeaseLost(ROOM, CAM, 1, "b", 9)]
    assert renewal(keeper, 2.0).epochs == {MIC: 2}
    assert keeper.kept() == [(ROOM, MIC)]


def test_a_store_that_forgot_is_asked_anew() -> None:
    keeper = held()
    keeper.renewed(renewal(keeper, 1.0), {CAM: None})
    assert keeper.epoch(ROOM, CAM, 1.0) is None
    request = only(keeper.requests(1.0), Acquire)
    assert isinstance(request, Acquire)
    keeper.acquired(request, 9)
    assert keeper.events() == [LeaseDoubted(ROOM, CAM, 1), LeaseGained(ROOM, CAM, 9)]
    assert keeper.epoch(ROOM, CAM, 1.1) == 9


def test_a_refusal_names_the_owner_and_ends_the_wish() -> None:
    keeper = LeaseKeeper("a", TTL)
    keeper.want(ROOM, CAM)
    request = only(keeper.requests(0.0), Acquire)
    assert isinstance(request, Acquire)
    keeper.refused(request, "b", 4)
    assert keeper.events() == [LeaseRefused(ROOM, CAM, "b", 4)]
    assert (keeper.requests(9.0), keeper.kept(), keeper.next_timeout()) == ([], [], None)


def test_what_is_given_up_is_released_even_if_it_was_only_asked_for() -> None:
    keeper = held(0.0, CAM, MIC)
    keeper.give_up(ROOM, CAM)
    keeper.give_up(ROOM, CAM)
    assert keeper.requests(0.0) == [Release(ROOM, {CAM: 1})]
    keeper.want(ROOM, "late")
    request = only(keeper.requests(0.0), Acquire)
    assert isinstance(request, Acquire)
    keeper.give_up(ROOM, "late")
    keeper.want(ROOM, "late")
    second = only(keeper.requests(0.0), Acquire)
    assert isinstance(second, Acquire)
    keeper.acquired(second, 5)
    keeper.acquired(request, 6)  # the store saw them the other way round
    assert keeper.requests(0.0) == []
    assert keeper.epoch(ROOM, "late", 0.0) == 6
    keeper.give_up(ROOM, "late")
    keeper.acquired(request, 7)
    assert keeper.requests(0.0) == [Release(ROOM, {"late": 7})]


def test_a_renewal_under_way_says_nothing_of_a_lease_that_is_newer() -> None:
    keeper = held()
    old = renewal(keeper, 1.0)
    keeper.give_up(ROOM, CAM)
    keeper.want(ROOM, CAM)
    requests = keeper.requests(1.1)
    (acquire,) = (request for request in requests if isinstance(request, Acquire))
    keeper.acquired(acquire, 2)
    keeper.renewed(old, {CAM: Lease(ROOM, CAM, "b", 2, 1.0)})
    assert keeper.epoch(ROOM, CAM, 1.2) == 2
    assert [type(event) for event in keeper.events()] == [LeaseGained]


def test_ones_own_late_request_is_no_successor() -> None:
    keeper = held()
    keeper.renewed(renewal(keeper, 1.0), {CAM: Lease(ROOM, CAM, "a", 2, 3.0)})
    request = only(keeper.requests(1.0), Acquire)
    assert isinstance(request, Acquire)
    keeper.acquired(request, 3)
    assert keeper.events() == [LeaseDoubted(ROOM, CAM, 1), LeaseGained(ROOM, CAM, 3)]


# --- a cluster in virtual time ----------------------------------------------------------------------------------------


class ModelStore:
    """What the scripts do, written again: one dictionary and a clock."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, int, float]] = {}
        self.last = 0

    def acquire(self, request: Acquire, node: str, now: float) -> int | Lease:
        owner = self.held.get(request.publication)
        if owner is not None and owner[2] > now and owner[0] != node and owner[1] != request.over:
            return Lease(ROOM, request.publication, owner[0], owner[1], owner[2] - now)
        self.last += 1
        self.held[request.publication] = (node, self.last, now + TTL)
        return self.last

    def renew(self, request: Renew, node: str, now: float) -> dict[str, Lease | None]:
        lost: dict[str, Lease | None] = {}
        for publication, epoch in request.epochs.items():
            owner = self.held.get(publication)
            if owner is not None and owner[:2] == (node, epoch):
                self.held[publication] = (node, epoch, now + TTL)
            elif owner is None or owner[2] <= now:
                lost[publication] = None
            else:
                lost[publication] = Lease(ROOM, publication, owner[0], owner[1], owner[2] - now)
        return lost

    def release(self, request: Release, node: str) -> None:
        for publication, epoch in request.epochs.items():
            if self.held.get(publication, ("", 0, 0.0))[:2] == (node, epoch):
                del self.held[publication]


@dataclass
class Node:
    """A keeper whose clock is off by `offset` and runs `rate` as fast as the store's."""

    name: str
    offset: float
    rate: float
    cut: bool = False
    keeper: LeaseKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = LeaseKeeper(self.name, TTL)

    def clock(self, now: float) -> float:
        return self.offset + self.rate * now


class World:
    """Nodes, a store, and a network that delays up to seconds, loses and cuts off. Seeded."""

    def __init__(self, seed: int, handovers: bool) -> None:
        self.handovers = handovers
        self.random = random.Random(seed)
        self.now = 0.0
        self.store = ModelStore()
        self.nodes = [
            Node(name, self.random.uniform(-1e6, 1e6), self.random.uniform(1 - MARGIN / 3, 1 + MARGIN / 3))
            for name in "abc"
        ]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.gained = 0
        self.doubted = 0

    def at(self, delay: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._numbers), work))

    def delay(self) -> float:
        slow = self.random.random() < 0.05
        return self.random.uniform(0, 2 * TTL) if slow else self.random.expovariate(1 / 0.01)

    def run(self, seconds: float) -> None:
        self.at(0.0, self._wish)
        for node in self.nodes:
            self.at(0.0, lambda node=node: self._wake(node))  # type: ignore[misc]
        while self._queue and self.now < seconds:
            self.now, _, work = heapq.heappop(self._queue)
            work()
            self._check()

    def _wish(self) -> None:
        node, publication = self.random.choice(self.nodes), self.random.choice([CAM, MIC])
        chance = self.random.random()
        if chance < 0.15:
            node.keeper.give_up(ROOM, publication)
        elif chance < 0.25:
            node.cut = not node.cut
        elif chance < 0.35 and self.handovers:
            node.keeper.want(ROOM, publication, over=self.store.held.get(publication, ("", 0, 0.0))[1] or None)
        else:
            node.keeper.want(ROOM, publication)
        self._ask(node)
        self.at(self.random.expovariate(2.0), self._wish)

    def _wake(self, node: Node) -> None:
        self._ask(node)
        self.at(self.random.uniform(0.01, 0.2), lambda: self._wake(node))

    def _ask(self, node: Node) -> None:
        for request in node.keeper.requests(node.clock(self.now)):
            self.at(self.delay(), lambda request=request, cut=node.cut: self._arrive(node, request, cut))  # type: ignore[misc]
        for event in node.keeper.events():
            self.gained += isinstance(event, LeaseGained)
            self.doubted += isinstance(event, LeaseDoubted)

    def _arrive(self, node: Node, request: Request, cut: bool) -> None:
        """At the store. The answer may be lost although the store did what was asked."""
        lost = cut or self.random.random() < 0.1
        if cut or (lost and self.random.random() < 0.5):
            self.at(0.5, lambda: node.keeper.failed(request, node.clock(self.now)))
            return
        answer: Callable[[], None]
        match request:
            case Acquire():
                given = self.store.acquire(request, node.name, self.now)
                if isinstance(given, Lease):
                    answer = lambda: node.keeper.refused(request, given.node, given.epoch)  # noqa: E731
                else:
                    answer = lambda: node.keeper.acquired(request, given)  # noqa: E731
            case Renew():
                gone = self.store.renew(request, node.name, self.now)
                answer = lambda: node.keeper.renewed(request, gone)  # noqa: E731
            case Release():
                self.store.release(request, node.name)
                return
        if lost:
            self.at(0.5, lambda: node.keeper.failed(request, node.clock(self.now)))
        else:
            self.at(self.delay(), answer)

    def _check(self) -> None:
        for publication in (CAM, MIC):
            certain = {
                node.name: epoch
                for node in self.nodes
                if (epoch := node.keeper.epoch(ROOM, publication, node.clock(self.now))) is not None
            }
            assert len(set(certain.values())) == len(certain)
            if not self.handovers:
                # Who hands over learns of its successor by its next renewal, and all others by the greater epoch.
                holder = self.store.held.get(publication, ("", 0, 0.0))
                assert certain.keys() <= {holder[0]}
                # A request of its own that was late may have given it a greater one already.
                assert all(epoch <= holder[1] for epoch in certain.values())


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("handovers", [False, True])
def test_never_two_certain_owners(seed: int, handovers: bool) -> None:
    world = World(seed, handovers)
    world.run(120.0)
    assert world.gained > 5
    assert world.doubted > 0

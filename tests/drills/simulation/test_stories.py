"""Stories that random faults tell too rarely, step by step, and what the machines have to make of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drills.simulation.run import simulate
from drills.simulation.world import Plan, World, plan_of
from relay.errors import NotFound, StoreUnavailable
from relay.node.following import FollowedRoom
from relay.stage.document import RoomState

CALM = Plan(nodes=3, rooms=1, hosts=1, viewers=3, hours=0.02, faults_per_hour=0.0, common_per_hour=0.0)

EVERYWHERE = plan_of(CALM, viewers=12)


def moves_while_the_store_loses_all(world: World) -> None:
    """The host turns up on another node while the store is away; then it comes back empty."""
    loop = asyncio.get_running_loop()

    def away() -> None:
        world.network.store_away(True)
        world.touch(None, True)

    def move() -> None:
        (host,) = world.people.hosts("r0")
        world.people.come(host, avoid=host.node)

    def back() -> None:
        world.forget_store()
        world.network.store_away(False)
        world.touch(None, False)

    loop.call_at(10.0, away)
    loop.call_at(10.2, move)
    loop.call_at(12.5, back)


@pytest.mark.parametrize("seed", range(4))
def test_a_host_moves_while_the_store_loses_all(seed: int) -> None:
    outcome = simulate(plan_of(CALM, seed=seed, script=moves_while_the_store_loses_all))
    assert outcome.violation is None, "\n".join([*outcome.newest, str(outcome.violation)])
    assert len(outcome.heal_s) == 1
    assert not [line for line in outcome.newest if "was sent away" in line], "\n".join(outcome.newest)


def passes_by_a_node_without_a_store(world: World) -> None:
    """The host goes to a node that is cut off from the store, and on to a third one; then the cut one is back."""
    loop = asyncio.get_running_loop()
    (host,) = world.people.hosts("r0")
    route: list[str] = []

    def cut() -> None:
        route.extend(name for name in world.names() if name != host.node)
        world.network.cut_off(route[0], True)
        world.touch(route[:1], True)
        world.people.come(host, to=route[0])

    def back() -> None:
        world.network.cut_off(route[0], False)
        world.touch(route[:1], False)

    loop.call_at(10.0, cut)
    loop.call_at(14.0, lambda: world.people.come(host, to=route[1]))
    loop.call_at(16.0, back)


@pytest.mark.parametrize("seed", range(6))
def test_who_was_passed_by_does_not_take_the_lease_from_the_next(seed: int) -> None:
    outcome = simulate(plan_of(EVERYWHERE, seed=seed, script=passes_by_a_node_without_a_store))
    assert outcome.violation is None, "\n".join([*outcome.newest, str(outcome.violation)])
    assert len(outcome.heal_s) == 1
    assert not [line for line in outcome.newest if "was sent away" in line], "\n".join(outcome.newest)


def is_robbed(world: World) -> None:
    """A node takes over a lease whose publisher it does not have, and gives it back."""
    loop = asyncio.get_running_loop()
    (host,) = world.people.hosts("r0")
    wanted: list[tuple[str, str]] = []

    def robber() -> Any:
        return next(node for name, node in world.nodes.items() if name != host.node)

    def take() -> None:
        node = world.nodes[host.node]
        ((room, publication),) = node.keeper.kept()
        wanted.append((room, publication))
        robber().wake()
        robber().keeper.want(room, publication, over=node.keeper.epoch(room, publication, node.mono()))
        robber().drive()
        world.touch([host.node], True)

    def give_back() -> None:
        robber().keeper.give_up(*wanted[0])
        robber().drive()
        world.touch([host.node], False)

    loop.call_at(10.0, take)
    loop.call_at(11.5, give_back)


def test_who_lost_a_lease_and_has_the_publisher_asks_for_it_again() -> None:
    outcome = simulate(plan_of(CALM, script=is_robbed))
    assert any("LeaseLost" in line for line in outcome.newest), outcome.newest
    assert outcome.violation is None, "\n".join([*outcome.newest, str(outcome.violation)])
    assert len(outcome.heal_s) == 1


def misses_an_answer(world: World) -> None:
    """The host's picture stops and comes back while a quarter of all answers is lost at every node."""
    loop = asyncio.get_running_loop()
    (host,) = world.people.hosts("r0")

    def lose(on: bool) -> None:
        for name in world.names():
            world.network.lose(name, on)
        world.touch(None, on)

    loop.call_at(20.0, lose, True)
    loop.call_at(20.1, lambda: host.made and host.made.pause())
    loop.call_at(20.3, lambda: host.made and host.made.resume())
    loop.call_at(20.8, lose, False)


async def _refresh_once(self: Any) -> None:
    """As `FollowedRoom._refresh` was: a read that fails is never made again."""
    while True:
        await self._stale.wait()
        self._stale.clear()
        try:
            self._adopt(RoomState.from_json(await self._store.read(self.room)))
        except (StoreUnavailable, NotFound):
            continue


def test_a_node_that_misses_news_is_found_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [plan_of(CALM, seed=seed, script=misses_an_answer) for seed in range(24)]
    assert all(simulate(plan).violation is None for plan in plans[:4])
    monkeypatch.setattr(FollowedRoom, "_refresh", _refresh_once)
    found = next((found for plan in plans if (found := simulate(plan)).violation is not None), None)
    assert found is not None
    assert found.violation is not None
    assert found.violation.rule == "converges"
    again = simulate(found.plan)
    assert (str(again.violation), again.hash) == (str(found.violation), found.hash)

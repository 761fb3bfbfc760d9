"""The model of the store beside the real scripts: the same random story told to both, answer by answer."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from drills.simulation.store import StoreModel, sync_id_of_wall
from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.leases import RedisLeases
from relay.errors import Conflict, LeaseHeld, NotFound
from relay.ports import Lease

LONG_S, SHORT_S = 600.0, 0.02


class Epochs:
    """Names tokens by the order of their coming: the two sides count from different times."""

    def __init__(self) -> None:
        self._real: list[int] = []
        self._model: list[int] = []

    def take(self, real: int, model: int) -> None:
        self._real.append(real)
        self._model.append(model)

    def pick(self, dice: random.Random) -> tuple[int, int]:
        at = max(0, len(self._real) - 1 - dice.randrange(3)) if self._real else -1
        return (self._real[at], self._model[at]) if at >= 0 else (1, 1)

    def same(self, real: Lease | None, model: Lease | None) -> bool:
        if real is None or model is None:
            return real is model
        return real.node == model.node and self._real.index(real.epoch) == self._model.index(model.epoch)


async def test_leases_are_given_as_the_scripts_give_them(server: EmbeddedServer) -> None:
    real = RedisLeases(server.url, socket_timeout_s=5.0)
    now = 0.0
    model = StoreModel(lambda: now)
    dice, epochs, kinds = random.Random(1), Epochs(), set[str]()
    model.on_grant = lambda grant: kinds.add(grant.kind)
    try:
        for _ in range(250):
            node, publication = dice.choice("ab"), dice.choice(["cam", "mic"])
            pair = epochs.pick(dice)
            match dice.choice(["acquire", "over", "renew", "release", "release", "expire"]):
                case "renew":
                    lost = await real.renew("r", node, {publication: pair[0]}, LONG_S)
                    told = model.renew("r", node, {publication: pair[1]}, LONG_S)
                    assert lost.keys() == told.keys()
                    assert all(epochs.same(lost[key], told[key]) for key in lost)
                case "release":
                    await real.release("r", node, {publication: pair[0]})
                    model.release("r", node, {publication: pair[1]})
                case what:
                    over = pair if what == "over" else (None, None)
                    ttl = SHORT_S if what == "expire" else LONG_S
                    await acquired(real, model, epochs, publication, node, ttl, over)
                    if what == "expire":  # whatever was given short is over on both sides before anything is asked
                        await asyncio.sleep(2 * SHORT_S)
                        now += 2 * SHORT_S
        assert kinds == {"free", "own", "handed-over", "expired"}
    finally:
        await real.close()


async def acquired(real: RedisLeases, model: StoreModel, epochs: Epochs, publication: str, node: str, ttl: float,
                   over: tuple[int | None, int | None]) -> None:  # fmt: skip
    try:
        given: Any = await real.acquire("r", publication, node, ttl, over[0])
    except LeaseHeld as error:
        given = error
    if isinstance(given, LeaseHeld):
        with pytest.raises(LeaseHeld) as held:
            model.acquire("r", publication, node, ttl, over[1])
        assert held.value.owner == given.owner
        return
    epochs.take(given.epoch, model.acquire("r", publication, node, ttl, over[1]).epoch)


async def test_rooms_change_as_the_scripts_change_them(server: EmbeddedServer) -> None:
    store = RedisStore(server.url, socket_timeout_s=5.0)
    model = StoreModel(time.monotonic)
    stamp = sync_id_of_wall(time.time())
    document: dict[str, Any] = {"id": "r", "n": 0}
    try:
        with pytest.raises(NotFound):
            model.read("r")
        await store.create("r", document)
        model.create("r", document, stamp)
        with pytest.raises(Conflict):
            model.create("r", document, stamp)
        stale = model.read("r")[1]
        for number in range(1, 30):
            told = [(f"e{each}", {"n": number}) for each in range(number % 3)]
            body = {"id": "r", "n": number}
            _, events = await store.change("r", lambda _, body=body, told=told: (body, told))
            made = model.write("r", body, model.read("r")[1], 0, told)  # a clock that went back to 1970
            assert made is not None
            assert [(each.type, each.data) for each in made] == [(each.type, each.data) for each in events]
        assert model.write("r", {"n": -1}, stale, stamp, []) is None
        real = await store.read("r")
        kept = model.read("r")[0]
        assert {**real, "sync_id": ""} == {**kept, "sync_id": ""}
        ids = [event.sync_id for event in model.since("r", 0)]
        assert ids == sorted(set(ids))
        assert kept["sync_id"] == str(ids[-1])
        with pytest.raises(Conflict):
            model.since("r", ids[-1] + 1)
    finally:
        await store.close()


def test_a_sleeping_node_keeps_what_it_has() -> None:
    now = 0.0
    model = StoreModel(lambda: now)
    roused: list[str] = []
    lease = model.acquire("r", "cam", "a", 2.0)
    now = 100.0
    model.rouse = lambda node: (roused.append(node), model.extend("a", [("r", "cam")], 100.0))[0]  # type: ignore[func-returns-value]
    with pytest.raises(LeaseHeld) as held:
        model.acquire("r", "cam", "b", 2.0)
    assert held.value.epoch == lease.epoch
    assert roused == ["a"]


def test_events_that_are_no_longer_kept_are_told_so() -> None:
    model = StoreModel(lambda: 0.0)
    model.create("r", {"id": "r"}, 1)
    first = model.since("r", 0)[0].sync_id
    model.append("r", 1, [("e", {})] * 500)
    with pytest.raises(Conflict):
        model.since("r", first)

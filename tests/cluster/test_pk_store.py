"""PK records on real servers: one of many wins, what is spoilt says so, and two rooms on two shards agree."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.pk_desk import PkDesk
from relay.cluster.pk_store import KEEP_S
from relay.errors import Conflict, CorruptDocument, NotFound, StoreUnavailable
from relay.ids import sync_id_at
from relay.stage import pk as pks
from relay.stage.document import RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.pk_room import current, shown
from relay.stage.room import create
from tests.cluster.servers import clustered

KEY = "costream:pk:{p}"


async def test_records_are_kept_and_changed_by_one_at_a_time(store: RedisStore) -> None:
    await store.pks.create("p", {"n": 0}, 60)
    with pytest.raises(Conflict):
        await store.pks.create("p", {"n": 9}, 60)

    def more(document: dict[str, int]) -> dict[str, int]:
        return {"n": document["n"] + 1}

    await asyncio.gather(*(store.pks.change("p", more, 60) for _ in range(20)))
    assert await store.pks.read("p") == {"n": 20}
    left = await store._client.pttl(KEY)
    assert (KEEP_S + 50) * 1000 < left <= (KEEP_S + 60) * 1000
    before = await store._client.hget(KEY, "version")
    assert await store.pks.change("p", lambda document: document, 60) == {"n": 20}
    assert await store._client.hget(KEY, "version") == before
    for missing in (store.pks.read("q"), store.pks.change("q", more, 60)):
        with pytest.raises(NotFound) as caught:
            await missing
        assert caught.value.code == "pk-not-found"


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "\x00"])
async def test_a_spoilt_record_says_so(store: RedisStore, body: str) -> None:
    await store._client.hset(KEY, mapping={"document": body, "version": 1})
    with pytest.raises(CorruptDocument):
        await store.pks.read("p")
    await store._client.hset(KEY, "document", json.dumps({"id": "p"}))
    with pytest.raises(CorruptDocument):
        await PkDesk(store, time.time).read("p")
    await store._client.delete(KEY)
    await store._client.set(KEY, "x")
    with pytest.raises(CorruptDocument):
        await store.pks.read("p")


async def test_without_a_store(server: EmbeddedServer, store: RedisStore) -> None:
    await store.pks.create("p", {"n": 0}, 60)
    await server.stop()
    with pytest.raises(StoreUnavailable):
        await store.pks.read("p")


async def test_rooms_on_two_shards_of_a_cluster() -> None:
    """Of many who accept PKs with one room at once exactly one gets it, and both rooms of each agree."""
    async with clustered() as (_, url):
        store = RedisStore(url, socket_timeout_s=10, connect_timeout_s=10)
        rooms = [f"room-{number}" for number in range(6)]
        slots = {await store._client.execute_command("CLUSTER KEYSLOT", room) for room in [*rooms, "star"]}
        assert len(slots) > 1
        for room in [*rooms, "star"]:
            await store.create(room, create(Actor("t", Role.SERVICE), room, time.time())[0].to_json())
        desk = PkDesk(store, time.time)
        for room in rooms:
            await desk.invite(pks.invite(f"pk-{room}", "star", room, "olga", time.time()))
        accepted = await asyncio.gather(
            *(desk.accept(f"pk-{room}", room, "host") for room in rooms), return_exceptions=True
        )
        (won,) = (each for each in accepted if isinstance(each, pks.Pk))
        assert all(isinstance(each, Conflict) for each in accepted if each is not won)
        states = {room: RoomState.from_json(await store.read(room)) for room in [*rooms, "star"]}
        running = current(states["star"])
        assert running is not None
        assert running.id == won.id
        now = sync_id_at(round((time.time() + 5) * 1e6))
        for room in rooms:
            one = shown(states[room], states["star"], now)
            assert (one is not None) == (room == won.rooms[1]) == (shown(states["star"], states[room], now) is not None)
        await store.close()

"""The outbox where the store is a cluster, whose scripts reach one slot, and where a sentinel watches it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from relay.cluster import RedisStore
from relay.cluster.outbox import RedisOutbox
from relay.outbox import Endpoint, Message, Secret
from tests.cluster.servers import clustered, watched


@pytest.fixture(params=["cluster", "sentinel"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "cluster":
        async with clustered() as (_, url):
            yield url
    else:
        async with watched() as (_, _, url):
            yield url


async def test_from_rooms_to_takers(url: str) -> None:
    store, outbox = RedisStore(url, socket_timeout_s=10), RedisOutbox(url, socket_timeout_s=10)
    try:
        for name in ("a", "b"):
            await outbox.put_endpoint(Endpoint(name, "https://example.com/", (Secret("whsec_x"),)), 8)
        rooms = [f"room-{number}" for number in range(12)]
        for room in rooms:
            await store.create(room, {})
        await store.delete(rooms[0], ("room.ended", {}))
        await outbox.tell([("link.moved", {})])
        found = await outbox.news(50)
        assert set(rooms) < set(found)
        assert [each.type for each in found[rooms[0]]] == ["room.created", "room.ended"]
        for room, events in found.items():
            told = [Message(f"{room}_{each.sync_id}", each.type, "{}") for each in events]
            assert await outbox.forward(room, events, {"a": told, "b": told[:1]}, 100)
        assert await outbox.news(50) == {}
        taken = await outbox.take("p1", {"a": 50, "b": 50}, 0.5)
        assert len(taken) == 14 + 13
        await outbox.delivered(taken[0])
        await outbox.again(taken[1], 0)
        await outbox.bury(taken[2], "http-500")
        assert await outbox.revive(taken[2].endpoint) == 1
        assert len(await outbox.take("p1", {"a": 50, "b": 50}, 0.5)) == 2
        assert len(await outbox.adopt("p2", "a", 0, 100)) > 0
        assert (await outbox.backlog("a")).delivered == 1
        assert await outbox.lead("p1", 5)
        assert await outbox.drop_endpoint("a")
    finally:
        await store.close()
        await outbox.close()

"""Rooms on a real server: nothing lost under contention, no hole in the events, clear errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster import redis_store as subject
from relay.cluster.gate import CONNECTIONS
from relay.errors import Conflict, CorruptDocument, Forbidden, NotFound
from relay.ids import make_sync_id
from relay.ports import RoomEvent
from tests.cluster.servers import eventually

Told = list[tuple[str, dict[str, Any]]]


def count_up(document: dict[str, Any]) -> tuple[dict[str, Any], Told]:
    n = document["n"] + 1
    return {**document, "n": n}, [("app.counted", {"n": n})]


async def take(events: AsyncIterator[RoomEvent], count: int) -> list[RoomEvent]:
    found: list[RoomEvent] = []
    async with asyncio.timeout(20):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_room_is_created_once_read_listed_and_deleted(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    with pytest.raises(Conflict) as caught:
        await store.create("demo", {"n": 1})
    assert caught.value.code == "room-exists"
    document = await store.read("demo")
    assert document["n"] == 0
    assert int(document["sync_id"]) > 0
    assert await store.rooms() == ["demo"]
    await store.delete("demo", ("room.ended", {}))
    assert await store.rooms() == []
    for call in (store.read("demo"), store.delete("demo", ("room.ended", {})), store.append("demo", [])):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        await store.change("demo", count_up)


async def test_twenty_writers_of_several_processes_lose_no_change(server: EmbeddedServer, store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    others = [RedisStore(server.url) for _ in range(4)]  # each has a clock, a lock and a pool of its own
    following = store.events("demo")
    collecting = asyncio.create_task(take(following, 100))
    while not store._readers._readers:
        await asyncio.sleep(0.01)
    results = await asyncio.gather(*(others[i % 4].change("demo", count_up) for i in range(20) for _ in range(5)))
    assert (await store.read("demo"))["n"] == 100
    returned = sorted((events[0] for _, events in results), key=lambda event: event.sync_id)
    seen = await collecting
    assert [event.data["n"] for event in seen] == list(range(1, 101))
    assert seen == returned
    for other in others:
        await other.close()


async def test_state_and_stream_agree(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    changed, events = await store.change("demo", count_up)
    assert changed["sync_id"] == str(events[-1].sync_id) == (await store.read("demo"))["sync_id"]


async def test_what_the_change_raises_passes_through_and_changes_nothing(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    before = await store.read("demo")

    def refuse(document: dict[str, Any]) -> tuple[dict[str, Any], Told]:
        document["n"] = 7
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        await store.change("demo", refuse)
    assert await store.read("demo") == before


async def test_a_change_of_nothing_writes_nothing(server: EmbeddedServer, store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    async with Redis.from_url(server.url) as client:
        await store.change("demo", lambda document: (document, []))
        assert await client.hget("costream:room:{demo}", "version") == b"1"
        await store.change("demo", lambda document: ({**document, "n": 5}, []))
        assert await client.hget("costream:room:{demo}", "version") == b"2"
    assert (await store.read("demo"))["n"] == 5


async def test_a_clock_that_is_behind_still_appends_in_order(server: EmbeddedServer) -> None:
    ahead = RedisStore(server.url, wall=lambda: 2_000_000_000.0)
    behind = RedisStore(server.url, wall=lambda: 1_000_000_000.0)
    await ahead.create("demo", {"n": 0})
    ids = []
    for each in (behind, ahead, behind, behind, ahead):
        _, events = await each.change("demo", count_up)
        ids.append(events[0].sync_id)
        ids += [event.sync_id for event in await each.append("demo", [("app.a", {}), ("app.b", {})])]
    assert ids == sorted(set(ids))
    await ahead.close()
    await behind.close()


async def test_a_full_counter_carries_into_the_milliseconds(server: EmbeddedServer, store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    async with Redis.from_url(server.url) as client:
        await client.xadd("costream:events:{demo}", {"type": "app.x", "data": "{}"}, id="9000000000000-65535")
    events = await store.append("demo", [("app.a", {}), ("app.b", {})])
    assert [event.sync_id for event in events] == [
        make_sync_id(9_000_000_000_001, 0),
        make_sync_id(9_000_000_000_001, 1),
    ]


async def test_following_resumes_without_a_hole_when_connections_are_cut(
    server: EmbeddedServer, store: RedisStore
) -> None:
    await store.create("demo", {"n": 0})
    start = int((await store.read("demo"))["sync_id"])
    collecting = asyncio.create_task(take(store.events("demo", after=start), 300))
    async with Redis.from_url(server.url) as client:
        for n in range(300):
            await store.append("demo", [("app.x", {"n": n})])
            if n % 50 == 25:
                for each in await client.client_list():
                    if each["cmd"].startswith("xread"):
                        await client.client_kill_filter(_id=each["id"])
    assert [event.data["n"] for event in await collecting] == list(range(300))


async def test_last_event_id_resumes_where_it_was(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    made = await store.append("demo", [("app.x", {"n": n}) for n in range(50)])
    assert await take(store.events("demo", after=made[19].sync_id), 30) == made[20:]
    first = int((await store.read("demo"))["sync_id"])
    assert first == made[-1].sync_id


async def test_events_that_are_no_longer_kept_or_never_were_are_refused(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    first = await store.append("demo", [("app.x", {})])
    for _ in range(5):
        await store.append("demo", [("app.x", {"n": n}) for n in range(400)])
    for after in (first[0].sync_id, 0, make_sync_id(9_000_000_000_000, 0)):
        with pytest.raises(Conflict) as caught:
            await anext(store.events("demo", after=after))
        assert caught.value.code == "events-gone"
    with pytest.raises(NotFound):
        await anext(store.events("nowhere"))


async def test_a_follower_behind_the_readers_memory_reads_on_from_the_store(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.cluster.follow.RING", 10)
    await store.create("demo", {"n": 0})
    start = int((await store.read("demo"))["sync_id"])
    slow, quick = store.events("demo", after=start), store.events("demo", after=start)
    made = await store.append("demo", [("app.x", {"n": -1})])
    assert await anext(slow) == await anext(quick) == made[0]
    made = await store.append("demo", [("app.x", {"n": n}) for n in range(100)])
    assert [await anext(quick) for _ in range(100)] == made
    assert [await anext(slow) for _ in range(100)] == made
    await slow.aclose()  # type: ignore[attr-defined]
    await quick.aclose()  # type: ignore[attr-defined]


async def test_many_followers_share_one_reader_that_ends_with_the_last(
    server: EmbeddedServer, store: RedisStore
) -> None:
    await store.create("demo", {"n": 0})
    start = int((await store.read("demo"))["sync_id"])
    tasks = [asyncio.create_task(take(store.events("demo", after=start), 5)) for _ in range(50)]
    made = await store.append("demo", [("app.x", {"n": n}) for n in range(4)])
    async with Redis.from_url(server.url) as client:
        while True:
            readers = [each for each in await client.client_list() if each["cmd"].startswith("xread")]
            if readers and len(store._readers._readers) == 1:
                break
            await asyncio.sleep(0.01)
    assert len(readers) == 1
    made += await store.append("demo", [("app.x", {"n": 4})])
    assert await asyncio.gather(*tasks) == [made] * 50
    await asyncio.sleep(0)
    assert not store._readers._readers


async def test_followers_see_how_a_room_ended_even_late(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    start = int((await store.read("demo"))["sync_id"])
    following = store.events("demo", after=start)
    collecting = asyncio.create_task(take(following, 100))
    await store.append("demo", [("app.x", {})])
    await store.delete("demo", ("room.ended", {"by": "alice"}))
    assert [event.type for event in await collecting] == ["app.x", "room.ended"]
    late = [event.type async for event in store.events("demo", after=start)]
    assert late == ["app.x", "room.ended"]
    with pytest.raises(NotFound):
        await anext(store.events("demo"))


async def test_a_room_made_again_goes_on_with_greater_ids(store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    before = int((await store.read("demo"))["sync_id"])
    await store.delete("demo", ("room.ended", {}))
    await store.create("demo", {"n": 9})
    document = await store.read("demo")
    assert document["n"] == 9
    assert int(document["sync_id"]) > before
    assert await store.rooms() == ["demo"]
    made = await store.append("demo", [("app.x", {})])
    assert await take(store.events("demo", after=int(document["sync_id"])), 1) == made


async def test_a_stream_that_vanishes_ends_its_followers(
    server: EmbeddedServer, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.cluster.follow.BLOCK_MS", 50)
    await store.create("demo", {"n": 0})
    following = asyncio.create_task(anext(store.events("demo")))  # type: ignore[arg-type]
    while not store._readers._readers:
        await asyncio.sleep(0.01)
    async with Redis.from_url(server.url) as client:
        await client.flushall()
    with pytest.raises(NotFound):
        await asyncio.wait_for(following, 10)


async def test_closing_the_store_ends_followers(server: EmbeddedServer) -> None:
    store = RedisStore(server.url)
    await store.create("demo", {"n": 0})
    collecting = asyncio.create_task(take(store.events("demo"), 1))
    while not store._readers._readers:
        await asyncio.sleep(0.01)
    await store.close()
    assert await asyncio.wait_for(collecting, 5) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
async def test_a_document_that_cannot_be_read_is_named(server: EmbeddedServer, store: RedisStore, text: str) -> None:
    await store.create("demo", {"n": 0})
    async with Redis.from_url(server.url) as client:
        await client.hset("costream:room:{demo}", "document", text)
    for call in (store.read("demo"), store.change("demo", count_up)):
        with pytest.raises(CorruptDocument, match="room demo"):
            await call
    await store.create("other", {"n": 0})
    assert (await store.read("other"))["n"] == 0


async def test_a_key_of_another_type_and_a_strange_event_are_named(server: EmbeddedServer, store: RedisStore) -> None:
    await store.create("demo", {"n": 0})
    start = int((await store.read("demo"))["sync_id"])
    async with Redis.from_url(server.url) as client:
        await client.set("costream:room:{bad}", "x")
        await client.xadd("costream:events:{demo}", {"type": "app.x", "data": "{"})
    with pytest.raises(CorruptDocument):
        await store.read("bad")
    with pytest.raises(CorruptDocument, match="event"):
        await asyncio.wait_for(anext(store.events("demo", after=start)), 10)  # type: ignore[arg-type]


async def test_viewers_come_stay_and_go(server: EmbeddedServer) -> None:
    store = RedisStore(server.url, viewer_ttl=30.0)
    await store.create("demo", {"n": 0})
    for name in ("ann", "bob", "cid"):
        await store.put_viewer("demo", name, {"node": "a"})
    assert await store.viewers("demo") == {name: {"node": "a"} for name in ("ann", "bob", "cid")}
    assert len(await store.viewers("demo", limit=2)) == 2
    await store.drop_viewer("demo", "bob")
    assert await store.count_viewers("demo") == 2
    async with Redis.from_url(server.url) as client:  # as if cid's last heartbeat were long ago
        await client.zadd("costream:heartbeats:{demo}", {"cid": 1.0})
    assert list(await store.viewers("demo")) == ["ann"]
    assert await store.count_viewers("demo") == 1
    with pytest.raises(NotFound):
        await store.put_viewer("nowhere", "ann", {})
    await store.delete("demo", ("room.ended", {}))
    assert await store.viewers("demo") == {}
    await store.close()


def test_keys_of_a_room_share_a_hash_slot() -> None:
    from redis.cluster import key_slot

    assert (
        len({key_slot(key.encode()) for key in subject._keys("demo", "room", "events", "heartbeats", "viewers")}) == 1
    )


async def test_rooms_that_ended_leave_few_connections_and_those_that_go_on_keep_theirs(server: EmbeddedServer) -> None:
    store = RedisStore(server.url, socket_timeout_s=10, connect_timeout_s=10)
    counts = Redis.from_url(server.url, decode_responses=True)
    rooms = [f"r{number}" for number in range(24)]
    for room in rooms:
        await store.create(room, {"n": 0})
    following = [asyncio.create_task(take(store.events(room), 2)) for room in rooms]
    await eventually(lambda: _waiting(counts, len(rooms)), "all of them wait in the server")
    opened = int((await counts.info("stats"))["total_connections_received"])
    for room in rooms:
        await store.append(room, [("app.x", {})])
    await eventually(lambda: _waiting(counts, len(rooms)), "all of them wait again")
    assert int((await counts.info("stats"))["total_connections_received"]) - opened <= CONNECTIONS
    for room in rooms:
        await store.delete(room, ("room.ended", {}))
    assert [[event.type for event in events] for events in await asyncio.gather(*following)] == [
        ["app.x", "room.ended"]
    ] * len(rooms)
    await eventually(lambda: _waiting(counts, 0), "nobody waits any more")
    assert len(await counts.client_list()) <= CONNECTIONS + subject.IDLE_READERS + 1
    await counts.aclose()
    await store.close()


async def _waiting(counts: Redis, wanted: int) -> bool:
    """Whether so many wait for news in the server. One that does has the flag b."""
    return sum("b" in one["flags"] for one in await counts.client_list()) == wanted

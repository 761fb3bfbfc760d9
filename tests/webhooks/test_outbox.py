"""The outbox on a real store: nothing left out, nothing queued twice, bounded, and taken over from the dead."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from relay.cluster import EmbeddedServer, RedisStore, redis_store
from relay.cluster.outbox import RedisOutbox
from relay.errors import Conflict, StoreUnavailable
from relay.outbox import NODES, Delivery, Endpoint, Message, Secret

LIMIT = 100


def endpoint(name: str, url: str = "https://example.com/") -> Endpoint:
    return Endpoint(name, url, (Secret("whsec_x"), Secret("whsec_y", until=5.0)), ("room.*",), "demo")


def messages(*names: str) -> list[Message]:
    return [Message(name, "room.created", f'{{"id":"{name}"}}') for name in names]


async def queue(outbox: RedisOutbox, store: RedisStore, to: dict[str, list[Message]], limit: int = LIMIT) -> None:
    """Something happens in the room, and is forwarded as these messages."""
    await store.append("demo", [("app.x", {})])
    events = (await outbox.news(50))["demo"]
    assert await outbox.forward("demo", events, to, limit)


@pytest.fixture
async def room(store: RedisStore, outbox: RedisOutbox) -> None:
    await store.create("demo", {})
    for name in ("a", "b"):
        await outbox.put_endpoint(endpoint(name), 8)
    await queue(outbox, store, {})


async def test_endpoints_are_kept_with_their_beginning(outbox: RedisOutbox) -> None:
    await outbox.put_endpoint(endpoint("a"), 2)
    (made,) = await outbox.endpoints()
    assert made.since > 1_700_000_000_000
    assert (made.secrets, made.events, made.room) == (endpoint("a").secrets, ("room.*",), "demo")
    await asyncio.sleep(0.01)
    await outbox.put_endpoint(endpoint("a", "https://example.org/"), 2)
    (changed,) = await outbox.endpoints()
    assert (changed.since, changed.url) == (made.since, "https://example.org/")
    await outbox.put_endpoint(endpoint("b"), 2)
    with pytest.raises(Conflict) as full:
        await outbox.put_endpoint(endpoint("c"), 2)
    assert full.value.code == "too-many-webhooks"
    assert await outbox.drop_endpoint("a")
    assert not await outbox.drop_endpoint("a")
    assert [each.id for each in await outbox.endpoints()] == ["b"]


async def test_events_are_forwarded_once_whoever_does(
    store: RedisStore, outbox: RedisOutbox, server: EmbeddedServer, room: None
) -> None:
    other = RedisOutbox(server.url, socket_timeout_s=5.0)
    await store.append("demo", [("app.one", {"n": 1}), ("app.two", {})])
    seen, same = (await outbox.news(50))["demo"], (await other.news(50))["demo"]
    assert [each.type for each in seen] == ["app.one", "app.two"]
    assert seen == same
    done = await asyncio.gather(
        outbox.forward("demo", seen, {"a": messages("m1", "m2")}, LIMIT),
        other.forward("demo", same, {"a": messages("m1", "m2")}, LIMIT),
    )
    assert sorted(done) == [False, True]
    assert (await outbox.backlog("a")).waiting == 2
    assert await outbox.news(50) == {}
    await other.close()


async def test_a_room_that_lived_briefly_is_told_to_its_end(
    store: RedisStore, outbox: RedisOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "TOMBSTONE_S", 1)
    await store.create("brief", {})
    await store.delete("brief", ("room.ended", {}))
    found = await outbox.news(50)
    assert [each.type for each in found["brief"]] == ["room.created", "room.ended"]
    assert await outbox.forward("brief", found["brief"], {}, LIMIT)
    async with asyncio.timeout(20):
        while "brief" in (await outbox._places())[0]:  # until the stream has gone, and the place with it
            await asyncio.sleep(0.1)
            await outbox.news(50)


async def test_many_events_come_in_order_and_in_parts(store: RedisStore, outbox: RedisOutbox, room: None) -> None:
    await store.append("demo", [("app.x", {"n": number}) for number in range(250)])
    numbers: list[int] = []
    while found := await outbox.news(100):
        numbers += [each.data["n"] for each in found["demo"]]
        await outbox.forward("demo", found["demo"], {}, LIMIT)
    assert numbers == list(range(250))


async def test_what_nodes_tell_is_forwarded_too(outbox: RedisOutbox) -> None:
    await outbox.tell([("link.moved", {"peer": "n2"}), ("link.moved", {"peer": "n3"})])
    found = await outbox.news(50)
    assert [each.data["peer"] for each in found[NODES]] == ["n2", "n3"]
    assert await outbox.forward(NODES, found[NODES], {}, LIMIT)
    assert await outbox.news(50) == {}


async def test_an_event_that_cannot_be_read_is_passed_over(store: RedisStore, outbox: RedisOutbox, room: None) -> None:
    await outbox._client.xadd("costream:events:{demo}", {"type": "x", "data": "{"})
    await store.append("demo", [("app.good", {})])
    found = (await outbox.news(50))["demo"]
    assert [each.type for each in found] == ["", "app.good"]
    assert await outbox.forward("demo", found, {}, LIMIT)


async def test_a_full_queue_keeps_dead_letters(store: RedisStore, outbox: RedisOutbox, room: None) -> None:
    await queue(outbox, store, {"a": messages(*"1234"), "b": messages("1")}, limit=3)
    backlog = await outbox.backlog("a")
    assert (backlog.waiting, backlog.dead, backlog.lost) == (3, 1, 1)
    (lost,) = await outbox.dead("a", 10)
    assert (lost.message, lost.reason) == (messages("4")[0], "queue-full")
    assert (await outbox.backlog("b")).lost == 0


async def take(outbox: RedisOutbox, name: str, **endpoints: int) -> list[Delivery]:
    return await outbox.take(name, endpoints, 0.05)


async def test_each_message_is_one_takers(store: RedisStore, outbox: RedisOutbox, room: None) -> None:
    await queue(outbox, store, {"a": messages("1", "2", "3"), "b": messages("1")})
    first, second = await take(outbox, "p1", a=2), await take(outbox, "p2", a=2, b=2)
    assert [each.message.id for each in first] == ["1", "2"]
    assert [(each.endpoint, each.message.id) for each in second] == [("a", "3"), ("b", "1")]
    assert await take(outbox, "p3", a=2, b=2) == []
    for each in (*first, *second):
        await outbox.delivered(each)
        await outbox.delivered(each)  # an answer that was lost: no harm
    backlog = await outbox.backlog("a")
    assert (backlog.waiting, backlog.delivered) == (0, 3)


async def test_what_the_dead_took_is_adopted(store: RedisStore, outbox: RedisOutbox, room: None) -> None:
    await queue(outbox, store, {"a": messages("1", "2")})
    taken = await take(outbox, "dead", a=2)
    assert await outbox.adopt("heir", "a", 60, 10) == []
    adopted = await outbox.adopt("heir", "a", 0, 10)
    assert [each.message for each in adopted] == [each.message for each in taken]
    await outbox.delivered(adopted[0])
    await outbox.again(taken[0], 0)  # the dead one was only slow: what is done stays done
    assert (await outbox.backlog("a")).retrying == 0


async def test_another_try_comes_when_it_is_due(store: RedisStore, outbox: RedisOutbox, room: None) -> None:
    await queue(outbox, store, {"a": messages("1", "2")})
    now, later = await take(outbox, "p1", a=2)
    await outbox.again(now, 0.0)
    await outbox.again(later, 60)
    assert (await outbox.backlog("a")).retrying == 2
    (due,) = await take(outbox, "p1", a=2)
    assert (due.message, due.tries, due.at) == (now.message, 1, now.at)
    await outbox.bury(due, "http-500")
    (dead,) = await outbox.dead("a", 5)
    assert (dead.message, dead.tries, dead.reason) == (now.message, 2, "http-500")
    assert await outbox.revive("a") == 1
    (again,) = await take(outbox, "p1", a=2)
    assert (again.message, again.tries) == (now.message, 0)
    assert (await outbox.backlog("a")).given_up == 1


async def test_one_forwards_at_a_time(outbox: RedisOutbox) -> None:
    assert await outbox.lead("p1", 0.3)
    assert await outbox.lead("p1", 0.3)
    assert not await outbox.lead("p2", 0.3)
    async with asyncio.timeout(10):
        while not await outbox.lead("p2", 60):
            await asyncio.sleep(0.02)
    assert not await outbox.lead("p1", 0.3)


async def test_a_store_that_forgot_everything(outbox: RedisOutbox, store: RedisStore, room: None) -> None:
    await outbox._client.flushall()
    assert await take(outbox, "p1", a=1) == []
    assert await outbox.adopt("p1", "b", 0, 5) == []
    await outbox.put_endpoint(endpoint("a"), 8)
    await store.create("demo", {})
    await queue(outbox, store, {"a": messages("1")})
    assert [each.message.id for each in await take(outbox, "p1", a=1)] == ["1"]


async def test_a_store_that_hangs(server: EmbeddedServer, room: None) -> None:
    hasty = RedisOutbox(server.url, socket_timeout_s=0.2)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await hasty.endpoints()
    finally:
        os.kill(server.pid, signal.SIGCONT)
        await hasty.close()

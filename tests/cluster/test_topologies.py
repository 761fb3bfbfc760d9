"""The store behind Sentinel and on a cluster: the same calls, and a failover that nobody has to help with."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cluster import RedisStore
from relay.cluster.connect import Topology, parse_topology, server_time
from relay.cluster.directory import RedisDirectory
from relay.errors import NotFound, SettingsError, StoreUnavailable
from relay.ports import NodeRecord
from tests.cluster.servers import clustered, eventually, watched

N1 = NodeRecord("n1", "https://a:7443", "eu", "1")


async def _every_call(url: str) -> None:
    """Use every kind of call once, over rooms in many slots."""
    store, directory = (
        RedisStore(url, socket_timeout_s=10, connect_timeout_s=10),
        RedisDirectory(url, socket_timeout_s=10),
    )
    rooms = [f"r{number}" for number in range(8)]
    for room in rooms:
        await store.create(room, {"n": 0})
        following = asyncio.ensure_future(anext(store.events(room, after=0)))  # type: ignore[arg-type]
        await store.change(room, lambda document: ({**document, "n": 1}, [("app.x", {})]))
        assert (await following).type == "room.created"
        await store.put_viewer(room, "ann", {"role": "viewer"})
        assert await store.viewers(room) == {"ann": {"role": "viewer"}}
        await store.drop_viewer(room, "ann")
        assert await store.count_viewers(room) == 0
        assert await directory.place(room, "n1") == "n1"
    assert await store.rooms() == rooms
    assert [(await store.read(room))["n"] for room in rooms] == [1] * 8
    await directory.announce(N1, 60)
    await directory.changed(1)
    assert await directory.nodes() == [N1]
    await directory.changed(0.01)
    await store.delete("r0", ("room.ended", {}))
    with pytest.raises(NotFound):
        await store.read("r0")
    assert await store.ping()
    assert abs(await server_time(url, socket_timeout_s=10, connect_timeout_s=10) - time.time()) < 60
    await store.close()
    await directory.close()


async def test_the_store_on_a_cluster() -> None:
    async with clustered() as (_, url):
        await _every_call(url)


async def test_a_cluster_that_lost_a_node_serves_the_rest_and_recovers() -> None:
    async with clustered() as (servers, url):
        for server in servers:
            await server.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        store = RedisStore(url)
        rooms = [f"r{number}" for number in range(8)]
        for room in rooms:
            await store.create(room, {"n": 0})
        servers[1].hang()
        answers: list[str] = []
        try:
            for _ in range(3):
                for room in rooms:
                    try:
                        await store.read(room)
                        answers.append(room)
                    except StoreUnavailable:
                        await asyncio.sleep(0.25)
        finally:
            servers[1].wake()
        assert answers

        async def all_there() -> bool:
            try:
                return [(await store.read(room))["n"] for room in rooms] == [0] * 8
            except StoreUnavailable:
                return False

        await eventually(all_there, "every room can be read again")
        await store.close()


@pytest.mark.parametrize("how", ["kill", "hang"])
async def test_the_masters_failover_needs_nobody(how: str) -> None:
    async with watched() as (master, replica, url):
        store, directory = RedisStore(url), RedisDirectory(url)
        await store.create("demo", {"n": 0})
        await directory.announce(N1, 60)
        events = store.events("demo")
        following = asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
        # What was not yet copied when the master dies is lost: that is Sentinel's price, not what is tested here.
        await master.ask("WAIT", 1, 5000)

        async def copied() -> bool:
            return bool(await replica.ask("EXISTS", "costream:room:{demo}"))

        await eventually(copied, "the replica has the room")
        (master.kill if how == "kill" else master.hang)()

        async def written() -> bool:
            try:
                await store.change("demo", lambda document: ({**document, "n": 1}, [("app.x", {})]))
                return True
            except StoreUnavailable:
                return False

        async def listed() -> bool:
            try:
                await directory.announce(N1, 60)
                return await directory.nodes() == [N1]
            except StoreUnavailable:
                return False

        await eventually(written, "the room can be changed on the new master")
        await eventually(listed, "the directory can be written on the new master")
        assert str(replica.port) in str(await replica.ask("ROLE")) or (await replica.ask("ROLE"))[0] == "master"
        async with asyncio.timeout(60):
            assert (await following).type == "app.x"
        await events.aclose()  # type: ignore[attr-defined]
        if how == "hang":  # the old master wakes and believes itself the master for a moment
            master.wake()
        assert (await store.read("demo"))["n"] == 1
        await store.close()
        await directory.close()


async def test_the_store_behind_sentinels() -> None:
    async with watched() as (_, _, url):
        await _every_call(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/0", None),
        ("embedded", None),
        ("http+sentinel://h", None),
        ("redis+sentinel://h/s", Topology("sentinel", False, (("h", 26379),), service="s")),
        (
            "rediss+sentinel://u:p%40@a:1,[::1]:2/my%20s/3?sentinel_password=x",
            Topology("sentinel", True, (("a", 1), ("::1", 2)), "u", "p@", "my s", 3, None, "x"),
        ),
        ("redis+cluster://:p@a:1,b", Topology("cluster", False, (("a", 1), ("b", 6379)), None, "p")),
    ],
)
def test_urls(url: str, expected: Topology | None) -> None:
    assert parse_topology(url) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://h:1", "name of the service"),
        ("redis+sentinel://h:1/s/x", "no number"),
        ("redis+sentinel://h:1/s/²", "no number"),
        ("redis+sentinel://h:70000/s", "range 0-65535"),
        ("redis+sentinel://h:1/s?db=1", "'db' is no option"),
        ("redis+cluster://h:1,/0", "host is missing"),
        ("redis+cluster://h:1/3", "no numbered databases"),
        ("redis+cluster://", "host is missing"),
    ],
)
def test_malformed_urls_say_what_is_wrong(url: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        parse_topology(url)


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:1/s", "redis+cluster://127.0.0.1:1"])
async def test_nobody_there_is_said_in_words(url: str) -> None:
    with pytest.raises(StoreUnavailable):
        await server_time(url, socket_timeout_s=1, connect_timeout_s=1)
    store = RedisStore(url)
    with pytest.raises(StoreUnavailable):
        await store.read("demo")
    await store.close()


@given(st.sampled_from(["redis+sentinel://", "rediss+cluster://"]), st.text())
def test_any_text_is_a_url_or_refused(scheme: str, rest: str) -> None:
    try:
        assert parse_topology(scheme + rest) is not None
    except SettingsError:
        pass

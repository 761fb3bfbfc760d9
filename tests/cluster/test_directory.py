"""The directory of nodes on a real server: who is listed, who no longer is, and what an outage leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from relay.cluster import EmbeddedServer
from relay.cluster.directory import RedisDirectory, Registration, parse_record
from relay.errors import StoreUnavailable
from relay.ports import NodeRecord

N1 = NodeRecord("n1", "https://a:7443", "eu", "1", "-----BEGIN…", sessions=3, max_sessions=4)
N2 = NodeRecord("n2", "http://b:7080", "us", "1", max_sessions=4, sessions=4, draining=True)


@pytest.fixture
async def directory(server: EmbeddedServer) -> AsyncIterator[RedisDirectory]:
    opened = RedisDirectory(server.url, socket_timeout_s=10)
    yield opened
    await opened.close()


async def until(directory: RedisDirectory, wanted: list[NodeRecord]) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                if await directory.nodes() == wanted:
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.02)


async def test_records_are_listed_until_withdrawn(directory: RedisDirectory) -> None:
    await directory.announce(N2, 60)
    await directory.announce(N1, 60)
    assert await directory.nodes() == [N1, N2]
    assert [record.full for record in (N1, N2)] == [False, True]
    await directory.withdraw("n1")
    await directory.withdraw("n1")
    assert await directory.nodes() == [N2]


async def test_a_record_that_is_not_renewed_ends(directory: RedisDirectory, server: EmbeddedServer) -> None:
    await directory.announce(N1, 6)
    async with Redis.from_url(server.url) as client:
        assert 5000 < await client.pttl("costream:node:n1") <= 6000
    await directory.announce(N1, 0.05)
    await until(directory, [])


async def test_names_of_long_ago_are_forgotten(server: EmbeddedServer) -> None:
    now = 1_000_000.0
    directory = RedisDirectory(server.url, wall=lambda: now)
    await directory.announce(N1, 60)
    now += 3601
    await directory.announce(N2, 60)
    async with Redis.from_url(server.url) as client:
        assert await client.zrange("costream:nodes", 0, -1) == [b"n2"]
    await directory.close()


async def test_a_broken_record_does_not_hide_the_others(directory: RedisDirectory, server: EmbeddedServer) -> None:
    await directory.announce(N1, 60)
    async with Redis.from_url(server.url) as client:
        await client.set("costream:node:n0", b'{"id": 3}')
        await client.zadd("costream:nodes", {"n0": 1})
    assert await directory.nodes() == [N1]


@given(st.text() | st.dictionaries(st.sampled_from(["id", "control_url", "sessions"]), st.integers()).map(str))
def test_any_text_is_a_record_or_nothing(body: str) -> None:
    assert parse_record(body) is None


async def test_a_room_stays_where_it_was_placed(directory: RedisDirectory) -> None:
    assert await directory.place("demo", "n1") == "n1"
    assert await directory.place("demo", "n2") == "n1"
    assert await directory.place("demo", "n3", instead_of="n2") == "n1"
    assert await directory.place("demo", "n2", instead_of="n1") == "n2"
    assert await asyncio.gather(*(directory.place("new", f"n{i}") for i in range(4))) == ["n0"] * 4


async def test_heartbeats_resume_after_an_outage(directory: RedisDirectory, server: EmbeddedServer) -> None:
    registration = Registration(RedisDirectory(server.url), lambda: N1, heartbeat_s=0.05, expiry_s=0.5)
    registration.start()
    await until(directory, [N1])
    async with Redis.from_url(server.url) as client:
        await client.flushall()
    await until(directory, [N1])
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)  # its supervisor starts it again, with what it held
    await until(directory, [N1])
    await directory.withdraw("n1")
    await until(directory, [N1])
    await registration.stop()
    await until(directory, [])


async def test_what_changed_is_told_at_once(directory: RedisDirectory) -> None:
    record = N1
    registration = Registration(directory, lambda: record, heartbeat_s=3600, expiry_s=7200)
    registration.start()
    await until(directory, [N1])
    record = N2
    registration.renew()
    await until(directory, [N1, N2])
    await registration.stop()


async def test_leaving_does_not_wait_for_a_store_that_is_gone(server: EmbeddedServer) -> None:
    registration = Registration(RedisDirectory(server.url), lambda: N1, heartbeat_s=0.01, expiry_s=1)
    registration.start()
    await server.stop()
    async with asyncio.timeout(5):
        await registration.stop()

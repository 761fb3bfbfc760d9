"""The directory of nodes on a real server: who is listed, who no longer is, and what an outage leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog
from redis.asyncio import Redis

from relay.cluster import EmbeddedServer
from relay.cluster.directory import RedisDirectory, Registration
from relay.cluster.records import write_record
from relay.errors import StoreUnavailable
from relay.ports import NodeRecord

RECORDS, ALIVE, CHANGES = (f"costream:nodes:{{nodes}}:{what}" for what in ("records", "alive", "changes"))

N1 = NodeRecord("n1", "https://a:7443", "eu", "1", "-----BEGIN…", sessions=3, max_sessions=4)
N2 = NodeRecord("n2", "http://b:7080", "us", "1", max_sessions=4, sessions=4, draining=True)


@pytest.fixture
async def directory(server: EmbeddedServer) -> AsyncIterator[RedisDirectory]:
    opened = RedisDirectory(server.url, socket_timeout_s=10, connect_timeout_s=10)
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
        seconds, microseconds = await client.time()
        left = await client.zscore(ALIVE, "n1") - (seconds * 1000 + microseconds / 1000)
        assert 5000 < left <= 6000
        await directory.announce(N1, 0.05)
        await until(directory, [])
        assert await client.hlen(RECORDS) == await client.zcard(ALIVE) == 0


async def test_a_server_whose_clock_went_back_keeps_nobody_for_ever(
    directory: RedisDirectory, server: EmbeddedServer
) -> None:
    await directory.announce(N1, 60)
    async with Redis.from_url(server.url) as client:
        await client.zincrby(ALIVE, 3_600_000, "n1")  # as after an hour back
        await directory.nodes()
        seconds, _ = await client.time()
        assert await client.zscore(ALIVE, "n1") < (seconds + 12) * 1000


async def test_only_what_changed_is_read_again(directory: RedisDirectory, server: EmbeddedServer) -> None:
    other = RedisDirectory(server.url, socket_timeout_s=10, connect_timeout_s=10)
    many = [replace(N1, id=f"n{number:03}") for number in range(50)]
    for record in many:
        await directory.announce(record, 60)
    assert await other.nodes() == many
    reader = other._look
    replies: list[list[str]] = []

    async def counted(**arguments: object) -> list[str]:
        replies.append(await reader(**arguments))  # type: ignore[arg-type]
        return replies[-1]

    other._look = counted  # type: ignore[assignment]
    assert await other.nodes() == many
    assert len(replies[-1]) == 2
    for record in many:  # heartbeats without news
        await directory.announce(record, 60)
    assert await other.nodes() == many
    assert len(replies[-1]) == 2
    many[7] = replace(many[7], sessions=9, max_sessions=10)
    await directory.announce(many[7], 60)
    await directory.withdraw(many.pop(3).id)
    assert await other.nodes() == many
    assert replies[-1][1:] == ["some", "n007", write_record(many[6]), "n003", ""]
    async with Redis.from_url(server.url) as client:  # what was missed is no longer told: all is read
        await client.xtrim(CHANGES, maxlen=0, approximate=False)
    await directory.announce(N2, 60)
    assert await other.nodes() == sorted([*many, N2], key=lambda record: record.id)
    assert replies[-1][1] == "all"
    async with Redis.from_url(server.url) as client:
        await client.flushall()
    assert await other.nodes() == []
    await other.close()


async def test_who_waits_for_a_change_is_woken(directory: RedisDirectory, server: EmbeddedServer) -> None:
    other = RedisDirectory(server.url, socket_timeout_s=10, connect_timeout_s=10)
    await directory.announce(N1, 60)
    await other.nodes()
    waiting = asyncio.ensure_future(other.changed(2))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await directory.announce(N2, 60)
    async with asyncio.timeout(1.5):
        await waiting
    await other.changed(60)  # not seen yet, so there is nothing to wait for
    assert await other.nodes() == [N1, N2]
    await other.changed(0.01)
    await other.close()


@pytest.mark.parametrize(
    "body",
    [
        '{"id": 3}',
        write_record(replace(N1, id="n0", load=float("nan"))),
        write_record(replace(N1, id="n0", load=-0.1)),
        write_record(replace(N1, id="other")),
    ],
)
async def test_a_bad_record_does_not_hide_the_others_and_is_told_once(
    directory: RedisDirectory, server: EmbeddedServer, body: str
) -> None:
    await directory.announce(N1, 60)
    with structlog.testing.capture_logs() as log:
        async with Redis.from_url(server.url) as client:
            for _ in range(3):
                await client.hset(RECORDS, "n0", body)
                await client.xadd(CHANGES, {"id": "n0"})
                assert await directory.nodes() == [N1]
    assert [line["node"] for line in log] == ["n0"]
    good = replace(N1, id="n0")
    await directory.announce(good, 60)
    assert await directory.nodes() == [good, N1]


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

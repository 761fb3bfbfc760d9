"""The copy of the directory: who is believed to be there while the store comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.simulation.loop import run
from relay.cluster.directory import RedisDirectory, Registration
from relay.cluster.known import NodeCache, NodeTable
from relay.ports import NodeRecord
from tests.cluster.servers import single

N1 = NodeRecord("n1", "https://a:7443", "eu", "1")
N2, N3 = replace(N1, id="n2"), replace(N1, id="n3")
GRACE = 2.0


def names(table: NodeTable) -> list[str]:
    return [record.id for record in table.records]


def test_a_node_that_is_missing_among_others_is_gone() -> None:
    table = NodeTable(GRACE)
    assert table.took([N1, N2], 0.0)
    assert not table.took([N2, N1], 0.5)
    assert table.took([N2], 1.0)
    assert names(table) == ["n2"]
    assert table.get("n1") is None
    ids = table.ids
    assert ids == {"n2"}
    assert table.took([replace(N2, sessions=1, max_sessions=2)], 1.5)
    assert table.ids is ids
    assert [record.sessions for record in table.records] == [1]


def test_after_an_outage_there_is_time_to_come_back() -> None:
    table = NodeTable(GRACE)
    table.took([N1, N2], 0.0)
    assert [table.failed(), table.failed()] == [True, False]
    assert names(table) == ["n1", "n2"]
    table.took([], 60.0)
    table.took([N1], 60.5)
    assert names(table) == ["n1", "n2"]
    table.took([N1], 60.0 + GRACE)
    assert names(table) == ["n1"]
    assert table.failed()


def test_a_store_that_forgot_everybody_is_not_believed_at_once_nor_for_ever() -> None:
    table = NodeTable(GRACE)
    table.took([N1, N2], 0.0)
    for now in (1.0, 1.0 + GRACE / 2):
        table.took([], now)
        assert names(table) == ["n1", "n2"]
    table.took([], 1.0 + GRACE)
    assert names(table) == []


STEPS = st.one_of(st.none(), st.sets(st.sampled_from([N1, N2, N3])))


@given(st.lists(STEPS, max_size=30))
def test_nobody_who_is_listed_is_hidden_and_nobody_stays_for_ever(steps: list[set[NodeRecord] | None]) -> None:
    table = NodeTable(GRACE)
    now = 0.0
    for step in steps:
        now += 0.5
        if step is None:
            before = table.records
            table.failed()
            assert table.records == before
        else:
            table.took(step, now)
            assert step <= set(table.records)
    for _ in range(round(GRACE / 0.5) + 1):
        now += 0.5
        table.took([N1], now)
    assert names(table) == ["n1"]


async def until(holds: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)
    assert holds(), what


@pytest.mark.parametrize("how", ["hang", "kill"])
async def test_the_copy_outlives_the_store_and_everybody_re_registers(how: str) -> None:
    async with single() as (server, url):
        registrations = [
            Registration(RedisDirectory(url), lambda record=record: record, heartbeat_s=0.1, expiry_s=0.4)  # type: ignore[misc]
            for record in (N1, N2)
        ]
        for registration in registrations:
            registration.start()
        cache = NodeCache(RedisDirectory(url), look_s=0.1, grace_s=5.0)
        await cache.start()
        await until(lambda: len(cache.records()) == 2, "both are there")
        (server.hang if how == "hang" else server.kill)()
        for _ in range(20):  # several expiries
            assert [record.id for record in cache.records()] == ["n1", "n2"]
            await asyncio.sleep(0.1)
        (server.wake if how == "hang" else server.start)()
        reader = RedisDirectory(url, socket_timeout_s=10, connect_timeout_s=10)
        await server.ready()

        async def listed() -> list[NodeRecord]:
            return await reader.nodes()

        async with asyncio.timeout(20):
            while await listed() != [N1, N2]:
                assert [record.id for record in cache.records()] == ["n1", "n2"]
                await asyncio.sleep(0.02)
        await registrations[0].stop()
        await until(lambda: [record.id for record in cache.records()] == ["n2"], "who leaves is gone")
        await cache.close()
        await registrations[1].stop()
        await reader.close()


async def test_changes_are_told_and_a_failing_listener_ends_nothing() -> None:
    async with single() as (_, url):
        told: list[int] = []

        async def listener() -> None:
            told.append(len(cache.records()))
            if len(told) == 2:
                raise RuntimeError("a bug")

        directory = RedisDirectory(url, socket_timeout_s=10, connect_timeout_s=10)
        cache = NodeCache(
            RedisDirectory(url, socket_timeout_s=10, connect_timeout_s=10), look_s=0.05, grace_s=0.1, on_change=listener
        )
        await cache.start()
        for number, record in enumerate((N1, N2, N3), 1):
            await directory.announce(record, 60)
            await until(lambda number=number: len(told) == number, "it is told")  # type: ignore[misc]
        assert told == [1, 2, 3]
        await cache.close()
        await directory.close()


class Restless:
    """A directory in which something has changed whenever it is asked."""

    def __init__(self) -> None:
        self.looks = 0

    async def nodes(self) -> list[NodeRecord]:
        self.looks += 1
        return [replace(N1, sessions=self.looks % 2)]

    async def changed(self, timeout_s: float) -> None:
        await asyncio.sleep(0.001)

    async def close(self) -> None:
        pass


def test_a_directory_that_changes_all_the_time_is_not_asked_all_the_time() -> None:
    async def follow() -> tuple[int, float]:
        directory = Restless()
        first = loop_time()
        cache = NodeCache(directory, look_s=0.25, grace_s=GRACE)  # type: ignore[arg-type]
        await cache.start()
        await asyncio.sleep(0.01)
        after_idleness = directory.looks
        await asyncio.sleep(10.0)
        await cache.close()
        assert after_idleness == 2
        return directory.looks, loop_time() - first

    def loop_time() -> float:
        return asyncio.get_running_loop().time()

    looks, took = run(follow())
    assert 38 <= looks <= took / 0.25 + 2

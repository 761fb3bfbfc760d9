"""Shared look-ups: a crowd costs two, and nobody gets an answer that is older than the question."""

from __future__ import annotations

import asyncio

import pytest

from relay.cluster import RedisStore
from relay.cluster.flight import SharedFlights
from relay.errors import NotFound


class Source:
    """A thing that is written and, slowly, read."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.gate = asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        value = self.value
        await self.gate.wait()
        return value


async def test_a_crowd_costs_two_reads() -> None:
    source, flights = Source(), SharedFlights[int]()
    crowd = [asyncio.create_task(flights.read("a", source.read)) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert source.reads == 1
    source.value = 1
    late = [asyncio.create_task(flights.read("a", source.read)) for _ in range(50)]
    other = asyncio.create_task(flights.read("b", source.read))
    await asyncio.sleep(0.01)
    assert source.reads == 2  # the late ones wait for the next flight, other things fly at once
    source.gate.set()
    assert await asyncio.gather(*crowd) == [0] * 50
    assert await asyncio.gather(*late, other) == [1] * 51  # asked after the write, so they see it
    assert source.reads == 3
    assert await flights.read("a", source.read) == 1
    assert not flights._flying
    assert not flights._boarding


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    source, flights = Source(), SharedFlights[int]()
    first, second = (asyncio.create_task(flights.read("a", source.read)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    source.gate.set()
    assert await second == 0
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_is_everybodys_and_the_next_flight_is_a_new_one() -> None:
    flights = SharedFlights[int]()
    fails = True

    async def read() -> int:
        await asyncio.sleep(0)
        if fails:
            raise NotFound("gone")
        return 7

    answers = await asyncio.gather(*(flights.read("a", read) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [NotFound] * 3
    fails = False
    assert await flights.read("a", read) == 7


async def test_a_hot_room_is_read_twice_and_not_by_everybody(store: RedisStore) -> None:
    await store.create("hot", {"n": 0})
    reads = 0
    reply = store._reply

    async def counted(room: str) -> object:
        nonlocal reads
        reads += 1
        return await reply(room)

    store._reply = counted  # type: ignore[method-assign]
    documents = await asyncio.gather(*(store.read("hot") for _ in range(200)))
    assert reads <= 2
    documents[0]["n"] = 9  # each has its own
    assert documents[1]["n"] == 0
    await store.change("hot", lambda document: ({**document, "n": 1}, [("x", {})]))
    assert (await store.read("hot"))["n"] == 1

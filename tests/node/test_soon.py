"""What is asked for often in one turn of the loop is done once in the next."""

from __future__ import annotations

import asyncio

from relay.node.soon import Soon


async def test_once_in_the_next_turn() -> None:
    done: list[int] = []
    soon = Soon(lambda: done.append(1))
    soon()
    soon()
    assert done == []
    await asyncio.sleep(0)
    assert done == [1]
    await asyncio.sleep(0)
    assert done == [1]


async def test_asked_for_by_what_it_causes() -> None:
    turns: list[int] = []

    def act() -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            soon()
            assert turns == [0], "not within itself"

    soon = Soon(act)
    soon()
    for _ in range(4):
        await asyncio.sleep(0)
    assert turns == [0, 1]


async def test_cancelled() -> None:
    done: list[int] = []
    soon = Soon(lambda: done.append(1))
    soon.cancel()
    soon()
    soon.cancel()
    await asyncio.sleep(0)
    assert done == []
    soon()
    await asyncio.sleep(0)
    assert done == [1]

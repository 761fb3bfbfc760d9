"""Tasks that are ended for certain, also where a library swallows a cancellation."""

from __future__ import annotations

import asyncio

from relay.ending import end


async def swallows(times: int) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not times:
                raise
            times -= 1


async def test_a_swallowed_cancellation_is_repeated() -> None:
    tasks = [asyncio.create_task(swallows(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    await end(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_ended_already_and_what_fails_is_no_matter() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while it ended")

    async def ends() -> None:
        pass

    tasks = [asyncio.create_task(fails()), asyncio.create_task(ends())]
    await asyncio.sleep(0)
    await end(tasks)
    await end([])
    assert all(task.done() for task in tasks)

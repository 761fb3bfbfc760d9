"""The end of tasks that wait for the store or for another library."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

INSIST_S = 0.1


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended, whatever they raise.

    Once is not enough for one that goes on after a failure: wait_for of Python 3.11, with which the store's client
    sends, may swallow a cancellation (cpython issue 86296).
    """
    every = list(tasks)
    left = {task for task in every if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=INSIST_S)
    await asyncio.gather(*every, return_exceptions=True)

"""The tasks of one end of a link: kept while they run, and heard of when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class LinkTasks:
    """Call `spawn` on the running loop, and `cancel` at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something; an exception goes to the loop's handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def __len__(self) -> int:
        """Return how many run."""
        return len(self._tasks)

    async def cancel(self) -> None:
        """End all and wait for it."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "a link's task failed", "exception": error})

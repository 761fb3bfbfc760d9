"""Something to do once in the next turn of the loop, however often it is asked for in this one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Soon:
    """Call it to have `action` called. What is asked for while `action` runs is done in the turn after."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._run)

    def cancel(self) -> None:
        """What was asked for is not done."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        self._action()

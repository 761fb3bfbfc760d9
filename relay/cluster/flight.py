"""One look-up for many who ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedFlights(Generic[T]):
    """Shares reads of the same thing without making any of them stale.

    Whoever asks while a read is under way waits for the next one, together with all others who do: every answer was
    read after its question was asked, so a caller finds what it wrote before. A crowd costs two reads, not one each.
    """

    def __init__(self) -> None:
        self._flying: dict[str, asyncio.Task[T]] = {}
        self._boarding: dict[str, asyncio.Task[T]] = {}

    async def read(self, key: str, read: Callable[[], Awaitable[T]]) -> T:
        """Return what `read` returns or raise what it raises. The result is shared: do not change it."""
        flight = self._boarding.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key, self._flying.get(key), read))
            self._boarding[key] = flight
            flight.add_done_callback(_heard)
        # Shielded: one who gives up must not take the answer from the others.
        return await asyncio.shield(flight)

    async def _fly(self, key: str, before: asyncio.Task[T] | None, read: Callable[[], Awaitable[T]]) -> T:
        if before is not None:
            await asyncio.wait({before})
        self._flying[key] = self._boarding.pop(key)
        try:
            return await read()
        finally:
            del self._flying[key]


def _heard(task: asyncio.Task[T]) -> None:
    """Nobody may be left to hear of a failure; that is no news for the loop's log."""
    if not task.cancelled():
        task.exception()

"""The gate before the store: a deadline for every call, one kind of error, and a short rest after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError, ResponseError

from relay.errors import CorruptDocument, StoreUnavailable

T = TypeVar("T")

REST_S = 0.2
"""For so long after a failure calls fail at once: a queue of callers must not wait for one time-out after another."""


class StoreGate:
    """Runs calls to the store. `timeout` in seconds bounds each."""

    def __init__(self, timeout: float, rest: float = REST_S) -> None:
        self._timeout = timeout
        self._rest = rest
        self._resting_until = float("-inf")
        self._reason = ""

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `call`. Raises StoreUnavailable; CorruptDocument when a key has another type.

        A call that timed out may still have been carried out.
        """
        if time.monotonic() < self._resting_until:
            raise StoreUnavailable(self._reason, retry_after=1)
        try:
            async with asyncio.timeout(self._timeout):
                result = await call()
        except TimeoutError as error:
            raise self._failed(f"the room store did not answer within {self._timeout:g} s") from error
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise CorruptDocument(f"the room store holds something else under a room's key: {error}") from error
            raise self._failed(f"the room store refused: {error}") from error
        except (RedisError, OSError) as error:
            raise self._failed(f"the room store cannot be reached: {error}") from error
        return result

    def _failed(self, reason: str) -> StoreUnavailable:
        self._reason = reason
        self._resting_until = time.monotonic() + self._rest
        return StoreUnavailable(reason, retry_after=1)

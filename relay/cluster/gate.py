"""The gate before the store: a deadline for every call, one kind of error, and a short rest after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from relay.errors import CorruptDocument, StoreUnavailable
from relay.guards import CallBreaker, Guard, NotAnswered

T = TypeVar("T")

REST_S = 0.2
"""For so long after a failure calls fail at once: a queue of callers must not wait for one time-out after another."""
CONNECTIONS = 16


class StoreGate:
    """Runs calls to the store. `timeout` in seconds bounds each, waiting for one of `connections` included."""

    def __init__(self, timeout: float, rest: float = REST_S, connections: int = CONNECTIONS) -> None:
        self._timeout = timeout
        self._guard = Guard(self._refuse, breaker=CallBreaker(failures=2, open_s=rest), attempts=2)
        self._reason = ""
        self._answered_at = time.monotonic()
        # The pools of Sentinel and Cluster raise when they are empty; waiting is the same for all kinds here.
        self._turns = asyncio.Semaphore(connections)

    async def run(self, call: Callable[[], Awaitable[T]], *, repeatable: bool = False) -> T:
        """Return the result of `call`. Raises StoreUnavailable; CorruptDocument when a key has another type.

        A `repeatable` call, which changes nothing or may be made twice, is made again when its connection breaks: the
        first call after a server's restart finds a dead one. A call that timed out may still have been carried out.
        """
        found = await self._guard.run(lambda: self._turn(call), self._timeout, repeatable=repeatable)
        self.answered()
        return found

    def answered(self) -> None:
        """The store answered, here or on a connection that has no gate."""
        self._answered_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the store last answered."""
        return time.monotonic() - self._answered_at

    async def _turn(self, call: Callable[[], Awaitable[T]]) -> T:
        async with self._turns:
            try:
                return await call()
            except ResponseError as error:
                if "WRONGTYPE" in str(error):
                    raise CorruptDocument(f"the room store holds something else under a room's key: {error}") from error
                raise NotAnswered(f"it refused: {error}", down=True) from error
            except RedisConnectionError as error:
                raise NotAnswered(str(error)) from error
            except (RedisError, RedisClusterException, OSError) as error:
                raise NotAnswered(str(error), down=True) from error

    def _refuse(self, reason: str) -> StoreUnavailable:
        if "of late" not in reason:
            self._reason = reason
        return StoreUnavailable(f"the room store {self._reason}", retry_after=1)

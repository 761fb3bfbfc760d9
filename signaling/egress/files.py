"""The newest bytes of many names, within a bound, as long as somebody asks for them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

CACHE_BYTES = 64 << 20
"""Of files that many viewers fetch at the same moment; read once."""
KEEP_S = 30.0
"""After the last use: a player is some segments behind at most, and without this a single stream would fill it all."""


class ByteCache:
    """What a name means never changes, so nothing in it goes stale. What nobody used for `KEEP_S` is forgotten when
    something else is asked for."""

    def __init__(self, limit: int = CACHE_BYTES, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._monotonic = limit, monotonic
        self._files: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        """When it was used last, longest ago first, and what it is."""
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def get(self, name: str) -> bytes | None:
        """The bytes, if they are still here."""
        now = self._monotonic()
        self._forget(now)
        if name not in self._files:
            return None
        data = self._files[name][1]
        self._files[name] = now, data
        self._files.move_to_end(name)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes, unless they are too many."""
        if len(data) > self._limit // 4 or name in self._files:
            return
        now = self._monotonic()
        self._files[name] = now, data
        self._size += len(data)
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._files:
            used, data = next(iter(self._files.values()))
            if self._size <= self._limit and used + KEEP_S >= now:
                return
            self._files.popitem(last=False)
            self._size -= len(data)

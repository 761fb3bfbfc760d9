"""The newest bytes of many names, within a bound."""

from __future__ import annotations

from collections import OrderedDict

CACHE_BYTES = 64 << 20
"""Of files that many viewers fetch at the same moment; read once."""


class ByteCache:
    """What a name means never changes, so nothing in it goes stale."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, name: str) -> bytes | None:
        """The bytes, if they are still here."""
        if name not in self._files:
            return None
        self._files.move_to_end(name)
        return self._files[name]

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes, unless they are too many."""
        if len(data) > self._limit // 4 or name in self._files:
            return
        self._files[name] = data
        self._size += len(data)
        while self._size > self._limit:
            self._size -= len(self._files.popitem(last=False)[1])

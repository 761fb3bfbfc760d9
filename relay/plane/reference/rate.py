"""The bitrate of a stream over the last second."""

from __future__ import annotations

BITRATE_WINDOW_US = 1_000_000


class Rate:
    """Bits per second over the last full second."""

    __slots__ = ("_bytes", "_start", "_value")

    def __init__(self) -> None:
        self._start = -1
        self._bytes = 0
        self._value = 0

    def add(self, size: int, now: int) -> None:
        """Count `size` bytes at `now`."""
        if now - self._start >= BITRATE_WINDOW_US:
            self._roll(now)
        self._bytes += size

    def _roll(self, now: int) -> None:
        if self._start >= 0:
            elapsed = now - self._start
            self._value = self._bytes * 8_000_000 // elapsed if elapsed < 2 * BITRATE_WINDOW_US else 0
        self._start = now
        self._bytes = 0

    def value(self, now: int) -> int:
        """The rate as of `now`; 0 when nothing came for a second, the rate so far in the first second."""
        if self._start < 0:
            return 0
        elapsed = now - self._start
        if elapsed >= BITRATE_WINDOW_US:
            return self._bytes * 8_000_000 // elapsed if elapsed < 2 * BITRATE_WINDOW_US else 0
        return self._value or self._bytes * 8

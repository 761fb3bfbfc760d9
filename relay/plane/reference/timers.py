"""Deadlines by key, fired in an order that does not depend on when they were set.

Two deadlines of the same microsecond fire in the order of their keys, so that a twin in another language needs no
common insertion order to send the same bytes.
"""

from __future__ import annotations

from enum import IntEnum
from heapq import heapify, heappop, heappush


class Timer(IntEnum):
    """What is due. The numbers are the order within one microsecond."""

    TRANSPORT_FEEDBACK = 0
    NACK = 1
    KEYFRAME = 2
    SILENCE = 3
    RECEIVER_REPORT = 4
    SENDER_REPORT = 5
    PROBE = 6
    ESTIMATE = 7
    LOUDNESS = 8


Key = tuple[int, int, int]
"""(Timer, handle, index): the handle of a session, track or slot; a layer's index where there is one, else 0."""


class Timers:
    """At most one deadline per key. Times in microseconds."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key, when: int) -> None:
        """Set or move a deadline."""
        due = self._due
        if due.get(key) == when:
            return
        due[key] = when
        heap = self._heap
        if len(heap) > 64 + 4 * len(due):  # moved deadlines leave stale entries behind
            heap[:] = [(at, k) for k, at in due.items()]
            heapify(heap)
        else:
            heappush(heap, (when, key))

    def set_if_none(self, key: Key, when: int) -> None:
        """Set a deadline unless the key has one."""
        if key not in self._due:
            self.set(key, when)

    def cancel(self, key: Key) -> None:
        """Forget a deadline; nothing happens when there is none."""
        self._due.pop(key, None)

    def next(self) -> int | None:
        """When the first deadline is, or None."""
        heap, due = self._heap, self._due
        while heap:
            when, key = heap[0]
            if due.get(key) == when:
                return when
            heappop(heap)
        return None

    def pop(self, now: int) -> Key | None:
        """Take the first deadline that is at or before `now`."""
        when = self.next()
        if when is None or when > now:
            return None
        _, key = heappop(self._heap)
        del self._due[key]
        return key

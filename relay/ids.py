"""Sync ids: a 64-bit hybrid logical clock that orders frames and events alike, across nodes.

The upper 48 bits are milliseconds since the Unix epoch, the lower 16 a counter (Kulkarni et al., "Logical Physical
Clocks", 2014). The two halves are also a Redis stream id ("ms-counter"), so a room's stream is ordered by sync id.
"""

from __future__ import annotations

COUNTER_BITS = 16
_COUNTER_MASK = (1 << COUNTER_BITS) - 1


def make_sync_id(milliseconds: int, counter: int) -> int:
    """Return the sync id of a wall time in ms since the epoch and a counter (0..65535)."""
    return milliseconds << COUNTER_BITS | counter


def sync_id_milliseconds(sync_id: int) -> int:
    """Return the wall time of a sync id in ms since the epoch."""
    return sync_id >> COUNTER_BITS


def to_stream_id(sync_id: int) -> str:
    """Return the Redis stream id of a sync id, e.g. `1763697600000-3`."""
    return f"{sync_id >> COUNTER_BITS}-{sync_id & _COUNTER_MASK}"


def from_stream_id(stream_id: str) -> int:
    """Parse a Redis stream id. Raises ValueError when it is malformed or its counter exceeds 16 bits."""
    milliseconds, _, counter = stream_id.partition("-")
    value = int(counter or "0")
    if not 0 <= value <= _COUNTER_MASK:
        raise ValueError(f"counter of {stream_id!r} does not fit in {COUNTER_BITS} bits")
    return make_sync_id(int(milliseconds), value)


class HybridClock:
    """Hands out sync ids that never go backwards, whatever the wall clock does.

    Of a node with several clocks each gives out only the ids that are `lane` modulo `lanes`: none is given twice. They
    observe each other; what one gives out after that is greater.
    """

    def __init__(self, last: int = 0, *, lane: int = 0, lanes: int = 1) -> None:
        self._last = last
        self._lane, self._lanes = lane, lanes

    @property
    def last(self) -> int:
        """The greatest sync id handed out or observed."""
        return self._last

    def next(self, wall_ms: int) -> int:
        """Return a sync id greater than all before. `wall_ms` is the wall clock in ms since the epoch.

        A full counter carries into the milliseconds: the clock then runs ahead by 1 ms rather than repeat.
        """
        least = max(self._last + 1, make_sync_id(wall_ms, 0))
        self._last = least + (self._lane - least) % self._lanes
        return self._last

    def observe(self, sync_id: int) -> None:
        """Take note of a sync id seen elsewhere, so that the next one handed out is greater."""
        self._last = max(self._last, sync_id)

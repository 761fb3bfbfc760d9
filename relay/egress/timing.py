"""RTP timestamps of several streams on one time axis: the monotonic clock of this machine, in microseconds. Sans-IO.

The packets that came through fastest tell which moment a timestamp is: their arrival less their timestamp is the axis'
offset. A base once taken is kept within `TOLERANCE_US`, so that pictures are evenly spaced however unevenly they came.
What the sender's clock says of two streams is another matter (`lip_sync`).
"""

from __future__ import annotations

from relay.errors import UsageError
from relay.plane.reference.rtp import timestamp_delta

TOLERANCE_US = 15_000
"""Below what people see of lip sync (20 ms); above the jitter of a local network."""
WINDOW_US = 5_000_000
STRANGE_US = 3_000_000
"""A timestamp so far from its arrival belongs to a source that started anew."""


class RtpClock:
    """One stream's. `jumps` counts changes of the base after the first."""

    def __init__(self, rate: int) -> None:
        if rate <= 0:
            raise UsageError("an RTP clock needs a rate above 0")
        self.jumps = 0
        self._rate = rate
        self._last: int | None = None
        self._unwrapped = 0
        self._base: int | None = None
        self._window_ends = 0
        self._lowest = [1 << 62, 1 << 62]

    def time(self, timestamp: int, arrival: int) -> int:
        """The moment of a timestamp. Call it in order of sequence numbers."""
        media = self._media(timestamp)
        offset = arrival - media
        if self._base is None:
            self._base = offset
            self._window_ends = arrival + WINDOW_US
        elif abs(offset - self._base) > STRANGE_US:
            self._lowest = [offset, offset]
            self._move(offset)
        self._learn(offset, arrival)
        return self._base + media

    def _media(self, timestamp: int) -> int:
        if self._last is not None:
            self._unwrapped += timestamp_delta(timestamp, self._last)
        self._last = timestamp
        return self._unwrapped * 1_000_000 // self._rate

    def _learn(self, offset: int, arrival: int) -> None:
        assert self._base is not None
        self._lowest[1] = min(self._lowest[1], offset)
        if offset < self._base - TOLERANCE_US:
            self._move(offset)
        elif arrival >= self._window_ends:
            lowest = min(self._lowest)
            self._lowest = [self._lowest[1], offset]
            self._window_ends = arrival + WINDOW_US
            if abs(lowest - self._base) > TOLERANCE_US:
                self._move(lowest)

    def _move(self, base: int) -> None:
        self._base = base
        self.jumps += 1

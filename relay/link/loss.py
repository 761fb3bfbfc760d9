"""How much one path lost lately: windows counted in packets, over buckets of time.

The newest *n* packets are what a rate is judged by, so the window is short when much is sent and long when little is.
Packets are not remembered one by one: counts are kept per 50 ms, a window is made of whole buckets, as few of the
newest as hold enough packets and span enough time. Buckets older than the age limit are forgotten, so after an idle
spell a window has to fill anew before it says anything.

Each window counts its losses twice: all of them, and *spread*, where a bucket counts a few at most. A burst is one
accident, however many packets it takes along; so the spread count of a short window says of a path what the whole
count says of a long one only.
"""

from __future__ import annotations

from dataclasses import dataclass

BUCKET_US = 50_000
NEAR_SPAN_US = 250_000  # so that on a fast link one burst of some milliseconds is not a window of its own
LONG_SPAN_US = 1_000_000
_TRIM = 1024  # forgotten buckets are deleted so many at a time


@dataclass(frozen=True, slots=True)
class Window:
    """What one window holds. `lost` may have shrunk: a packet declared lost can be acknowledged after all."""

    settled: int
    lost: int
    spread: int
    """Lost, counting no more than so many per bucket; not more than `lost`."""

    def above(self, percent: float) -> bool:
        """Say whether more than `percent` was lost; exactly as much is not above."""
        return self.lost * 100 > percent * self.settled

    def spread_above(self, percent: float) -> bool:
        """Say whether more than `percent` was lost even by the spread count."""
        return self.spread * 100 > percent * self.settled


class LossWindows:
    """A long window, a middle one, and two short ones, of which one ends now and the other where the first begins.

    Each is None while too few packets are known. Every start only ever moves on, as data only comes at the end: adding
    and reading cost the same however long the window is.
    """

    __slots__ = (
        "_age",
        "_burst",
        "_first",
        "_long_packets",
        "_lost",
        "_lost_before",
        "_lost_in_newest",
        "_middle_packets",
        "_near_packets",
        "_settled",
        "_settled_before",
        "_spread",
        "_spread_before",
        "_starts",
        "_where",
    )

    def __init__(self, long_packets: int, middle_packets: int, near_packets: int, burst: int, age_us: int) -> None:
        self._long_packets = long_packets
        self._middle_packets = middle_packets
        self._near_packets = near_packets
        self._burst = burst  # most losses of a bucket in the spread count
        self._age = age_us
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._starts: list[int] = []  # when each bucket begins, and what had been counted before it
        self._settled_before: list[int] = []
        self._lost_before: list[int] = []
        self._spread_before: list[int] = []
        self._settled = self._lost = self._spread = self._lost_in_newest = self._first = 0
        # first bucket of: long window, near one, the one before that, middle one; -1: too few packets
        self._where = [-1, -1, -1, -1]

    def add(self, now: int, settled: int, lost: int) -> None:
        """Count packets whose fate became known. `now` never goes back; `lost` is negative when some came after all."""
        if not settled and not lost:
            return
        start = now - now % BUCKET_US
        if not self._starts or self._starts[-1] != start:
            self._forget(start)
            self._starts.append(start)
            self._settled_before.append(self._settled)
            self._lost_before.append(self._lost)
            self._spread_before.append(self._spread)
            self._lost_in_newest = 0
        self._settled += settled
        self._lost += lost
        self._lost_in_newest += lost
        self._spread = self._spread_before[-1] + min(self._lost_in_newest, self._burst)

    def long(self, now: int) -> Window | None:
        """Return the long window as of `now`."""
        return self._window(0, now, len(self._starts), self._long_packets, LONG_SPAN_US)

    def middle(self, now: int) -> Window | None:
        """Return the middle window as of `now`."""
        return self._window(3, now, len(self._starts), self._middle_packets, LONG_SPAN_US)

    def near(self, now: int) -> Window | None:
        """Return the short window that ends now."""
        return self._window(1, now, len(self._starts), self._near_packets, NEAR_SPAN_US)

    def before(self, now: int) -> Window | None:
        """Return the short window that ends where `near` begins."""
        if self.near(now) is None:
            return None
        return self._window(2, now, self._where[1], self._near_packets, NEAR_SPAN_US)

    def expiry(self) -> int | None:
        """Return when the next of the windows that were full when last read loses its oldest bucket."""
        full = [where for where in self._where if where >= self._first]
        return self._starts[min(full)] + BUCKET_US + self._age if full else None

    def _window(self, which: int, now: int, end: int, packets: int, span: int) -> Window | None:
        """Move one window's start as far as it may go and return what lies between it and bucket `end`."""
        self._forget(now)
        where = max(self._where[which], self._first)
        if not self._holds(where, end, packets, span):
            self._where[which] = -1
            return None
        while self._holds(where + 1, end, packets, span):
            where += 1
        self._where[which] = where
        settled, lost, spread = self._totals(end)
        return Window(
            settled - self._settled_before[where],
            max(0, lost - self._lost_before[where]),
            max(0, spread - self._spread_before[where]),
        )

    def _holds(self, where: int, end: int, packets: int, span: int) -> bool:
        if where >= end:
            return False
        newest = self._starts[end] if end < len(self._starts) else self._starts[-1] + BUCKET_US
        return newest - self._starts[where] >= span and self._totals(end)[0] - self._settled_before[where] >= packets

    def _totals(self, end: int) -> tuple[int, int, int]:
        if end < len(self._starts):
            return self._settled_before[end], self._lost_before[end], self._spread_before[end]
        return self._settled, self._lost, self._spread

    def _forget(self, now: int) -> None:
        starts, limit = self._starts, now - self._age - BUCKET_US
        while self._first < len(starts) and starts[self._first] <= limit:
            self._first += 1
        if self._first >= _TRIM:
            for kept in (starts, self._settled_before, self._lost_before, self._spread_before):
                del kept[: self._first]
            self._where = [max(-1, where - self._first) for where in self._where]
            self._first = 0

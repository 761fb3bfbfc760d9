"""Whether the plane's slab of packets has room for newcomers: shut at once when it runs full, opened again gradually.

    OPEN ── less than 5 % free ──► SHUT ── more than 10 % free ──► OPENING ── 10 s ──► OPEN
                                    ▲                                 │
                                    └──────── less than 5 % free ─────┘

Those who were refused come back together. So while it is opening there is a rate of admissions that grows from 1 to 50
a second, and what a quiet second leaves unused is not saved up for a crowd.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

SHUTS_BELOW = 0.05
OPENS_ABOVE = 0.10
OPENING_S = 10.0
FIRST_PER_S = 1.0
LAST_PER_S = 50.0
_SLOPE = (LAST_PER_S - FIRST_PER_S) / OPENING_S


class GateState(Enum):
    """See the table above."""

    OPEN = "open"
    SHUT = "shut"
    OPENING = "opening"


def tightest(slabs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Free and all places of the shard with the smallest share of free ones, of all shards'.

    Together they may have room while one has none, and whoever comes in may be placed there or watch who is.
    """
    return min(slabs, key=lambda slab: slab[0] / slab[1])


class SlabGate:
    """Time is in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self.state = GateState.OPEN
        self._since = 0.0  # when it began to open
        self._at = 0.0
        self._budget = 0.0  # admissions that are due by now

    def observe(self, free: int, total: int, now: float) -> None:
        """Take note of the slab. Call it now and then, so that opening begins when there is room and not when asked."""
        share = free / total
        if share < SHUTS_BELOW:
            self.state = GateState.SHUT
        elif self.state is GateState.SHUT and share > OPENS_ABOVE:
            self.state = GateState.OPENING
            self._since = self._at = now
            self._budget = 1.0  # somebody may come at once
        elif self.state is GateState.OPENING:
            if now - self._since >= OPENING_S:
                self.state = GateState.OPEN
            else:
                self._fill(now)

    def allows(self) -> bool:
        """Whether one more may come in, as of the latest `observe`."""
        return self.state is GateState.OPEN or (self.state is GateState.OPENING and self._budget >= 1.0)

    def came_in(self) -> None:
        """Somebody did."""
        if self.state is GateState.OPENING:
            self._budget -= 1.0

    def _fill(self, now: float) -> None:
        rate_before, rate = (FIRST_PER_S + _SLOPE * (at - self._since) for at in (self._at, now))
        self._budget += (rate_before + rate) / 2 * (now - self._at)
        self._budget = min(self._budget, max(rate, 1.0))
        self._at = now

"""Rate limits: the generic cell rate algorithm (ITU-T I.371) over a bounded, least-recently-used table, which forgets a
key as soon as it says nothing any more.

Own rather than the `limits` package: its in-memory storage grows with the number of keys and sweeps them by a timer,
while an attacker chooses the addresses; here the oldest key makes room.
"""

from __future__ import annotations

import math
from collections import OrderedDict

MAX_KEYS = 20_000  # some 3 MiB


class RateLimiter:
    """Allows `per_minute` requests a minute and key, in bursts of up to ten seconds worth."""

    def __init__(self, per_minute: int, max_keys: int = MAX_KEYS) -> None:
        self._interval = 60.0 / per_minute
        self._tolerance = self._interval * max(1, per_minute // 6)
        self._max_keys = max_keys
        self._due: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due)

    def take(self, key: str, now: float) -> int:
        """Count one request. Returns 0 when it may pass, else the whole seconds to wait; a refused one costs nothing.

        `now` is a monotonic time in seconds.
        """
        due = max(self._due.get(key, now), now)
        wait = due + self._interval - self._tolerance - now
        if wait > 1e-9:
            return max(1, math.ceil(wait))
        self._due[key] = due + self._interval
        self._due.move_to_end(key)
        while self._due and (len(self._due) > self._max_keys or next(iter(self._due.values())) <= now):
            self._due.popitem(last=False)
        return 0

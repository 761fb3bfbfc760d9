"""Search for the largest packet that a path carries (DPLPMTUD, RFC 8899), without I/O.

The ceiling is tried first: inside a data centre it mostly holds. Then the search halves the distance between the
largest size that got through and the smallest that did not, until it is worth less than a few bytes. Times are seconds.
"""

from __future__ import annotations

BASE = 1200  # bytes of UDP payload that every QUIC path carries (RFC 9000 section 14)
TRIES = 3  # MAX_PROBES, RFC 8899 section 5.1.2
NEAR = 24  # bytes: a finer search is not worth its probes
AGAIN_S = 600.0  # PMTU_RAISE_TIMER, RFC 8899 section 5.1.1
BLACK_HOLE = 10  # large packets lost in a row while acknowledgements come; at 12 % loss that is no chance


class MtuSearch:
    """`size` is what packets may have now. One probe is out at a time."""

    def __init__(self, ceiling: int) -> None:
        self.size = BASE
        self._ceiling = ceiling
        self._failed = ceiling + 1  # the smallest size known not to pass
        self._probing: int | None = None
        self._tries = 0
        self._again_at: float | None = None

    def next_probe(self, now: float) -> int | None:
        """The size to probe now, if any; its outcome has to be told before the next."""
        if self._again_at is not None:
            if now < self._again_at:
                return None
            self._again_at, self._failed = None, self._ceiling + 1
        if self._probing is not None:
            return None
        if self._failed - self.size <= (1 if self._failed > self._ceiling else NEAR):
            if self.size < self._ceiling:
                self._again_at = now + AGAIN_S
            return None
        first = self._failed > self._ceiling
        self._probing = self._ceiling if first else (self.size + self._failed) // 2
        return self._probing

    def passed(self, size: int) -> bool:
        """A probe of `size` was acknowledged. Says whether packets may be larger now."""
        self._probing, self._tries = None, 0
        larger = size > self.size
        self.size = max(self.size, size)
        return larger

    def lost(self, size: int) -> None:
        """A probe of `size` was lost."""
        self._probing = None
        self._tries += 1
        if self._tries >= TRIES:
            self._tries, self._failed = 0, min(self._failed, size)

    def black_hole(self, now: float) -> bool:
        """Large packets get lost: go back to what must pass. Says whether packets have to be smaller now."""
        smaller = self.size > BASE
        self._failed, self.size = self.size, BASE
        self._probing, self._tries, self._again_at = None, 0, now + AGAIN_S
        return smaller

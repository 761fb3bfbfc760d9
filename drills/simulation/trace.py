"""What happened in a simulation, line by line: two runs with one seed have the same hash, or one of them is not it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import TextIO

KEPT = 80
"""Lines that a violation shows."""


class Violation(AssertionError):
    """An invariant does not hold. `at` is virtual seconds, `rule` the invariant's name."""

    def __init__(self, rule: str, at: float, text: str) -> None:
        super().__init__(f"{rule}, at {at:.6f} s: {text}")
        self.rule, self.at, self.text = rule, at, text


class Trace:
    """Hashes all lines, keeps the newest, and writes them all to `out` if that is given."""

    def __init__(self, clock: Callable[[], float], out: TextIO | None = None) -> None:
        self._clock = clock
        self._out = out
        self._hash = hashlib.blake2b(digest_size=16)
        self._newest: deque[str] = deque(maxlen=KEPT)
        self.lines = 0

    def tell(self, text: str) -> None:
        """Note what happened now."""
        line = f"{self._clock():.6f} {text}"
        self._hash.update(line.encode() + b"\n")
        self._newest.append(line)
        self.lines += 1
        if self._out is not None:
            self._out.write(line + "\n")

    @property
    def hash(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()

    def newest(self) -> list[str]:
        """The last lines, oldest first."""
        return list(self._newest)

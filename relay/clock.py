"""The clock of everything that counts in microseconds: monotonic, and the same in every process of a machine."""

from __future__ import annotations

import time


def now_us() -> int:
    """Return monotonic microseconds."""
    return time.monotonic_ns() // 1000

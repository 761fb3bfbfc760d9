"""Tell a thread that hangs from one that the machine gives no processor: both have stood still for some time.

The kernel knows (proc(5), /proc/self/task/…/stat): a thread that waits for a processor is runnable and has used none.
One that sleeps although it is due waits for something that does not come, unless it waits for the interpreter's lock,
whose holder may be the one without a processor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

PATIENCE_S = 0.02
MOST_PATIENCE_S = 0.32
CALM_S = 60.0
_TICK = os.sysconf("SC_CLK_TCK")


def is_runnable(thread: int) -> bool:
    """Whether a thread of this process runs or waits for a processor; False when it has ended."""
    try:
        return _fields(thread)[0] == "R"
    except (OSError, IndexError):
        return False


def processor_s(thread: int) -> float:
    """Processor time of a thread of this process so far, to 10 ms; 0 when it has ended."""
    try:
        fields = _fields(thread)
        return (int(fields[11]) + int(fields[12])) / _TICK
    except (OSError, IndexError):
        return 0.0


def _fields(thread: int) -> list[str]:
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()


class Suspicion:
    """What is known about one thread that should move. `moved` is when it last did, in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self._moved = float("nan")
        self._used_s = 0.0
        self._looks = 0

    def hangs(self, thread: int, moved: float, patience_s: float, others: Sequence[int]) -> bool:
        """Look once more. True at the second look in a row at which it stands still for a reason of its own.

        `others` are the threads that should have moved as well and may hold the interpreter's lock.
        """
        if time.monotonic() - moved <= patience_s:
            self._looks = 0
            return False
        if moved != self._moved:
            self._moved, self._used_s, self._looks = moved, processor_s(thread), 0
        if is_runnable(thread):
            busy = processor_s(thread) - self._used_s >= 5 * patience_s  # it computes for ever
            self._looks = self._looks + 1 if busy else 0
        else:
            self._looks = 0 if any(map(is_runnable, others)) else self._looks + 1
        return self._looks >= 2


class Patience:
    """How long a thread may stand still: `PATIENCE_S`, and longer after suspicions that proved wrong."""

    def __init__(self) -> None:
        self.seconds = PATIENCE_S
        self._wrong = float("-inf")

    def was_wrong(self, now: float) -> None:
        """A thread that had been replaced came back by itself."""
        self.seconds = min(2 * self.seconds, MOST_PATIENCE_S)
        self._wrong = now

    def pass_time(self, now: float) -> None:
        if now - self._wrong > CALM_S:
            self.seconds = PATIENCE_S

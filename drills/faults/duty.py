"""Stops processes for a share of each period: `python -m drills.faults.duty SHARE PERIOD PID…`. Ends with them.

At SIGTERM it lets them run again; after a SIGKILL whoever started it has to.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType


def main() -> None:
    """Until a signal, or until none of the processes is left."""
    share, period, *pids = sys.argv[1:]
    alive = [int(pid) for pid in pids]

    def end(_number: int, _frame: FrameType | None) -> None:
        send(alive, signal.SIGCONT)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    stopped = float(share) * float(period)
    while alive:
        alive = send(alive, signal.SIGSTOP)
        time.sleep(stopped)
        alive = send(alive, signal.SIGCONT)
        time.sleep(float(period) - stopped)


def send(pids: list[int], number: signal.Signals) -> list[int]:
    """Signal processes; returns those that are there."""
    there = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        there.append(pid)
    return there


if __name__ == "__main__":
    main()

"""Let the calling thread run before the rest: SCHED_FIFO where allowed, else nice -10 where allowed.

Not pinned to a core: measured, that makes it wait for whoever else has that core. Where sessions are scheduled as
groups (sched(7), autogroup), niceness counts among the threads of one session only: the relay and all its workers share
one (`relay.process.child`).
"""

from __future__ import annotations

import contextlib
import resource

from relay.plane.urgency import Got, Priority, urge

FIFO_PRIORITY = 10
NICE = -10
SPIN_US = 500_000
"""A real-time thread that computes so long without a sleep is killed with its process: it would stop the machine."""


def make_urgent(wish: Priority) -> Got:
    """Return what was got; never an error."""
    if wish in {"auto", "fifo"}:
        with contextlib.suppress(OSError):
            _, most = resource.getrlimit(resource.RLIMIT_RTTIME)
            limit = SPIN_US if most == resource.RLIM_INFINITY else min(SPIN_US, most)
            resource.setrlimit(resource.RLIMIT_RTTIME, (limit, most))
    return urge(0, wish, FIFO_PRIORITY, NICE)

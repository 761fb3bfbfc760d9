"""Who goes first when the processor is short: the threads that forward, before all else of the relay but sound.

What waits for a plane's thread is late in every viewer's picture. The thread needs little, a hundred times a second or
more; a fair scheduler gives it that, but not at once.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Literal

from relay.plane.topology import Limits

Priority = Literal["auto", "fifo", "nice", "none"]
Got = Literal["fifo", "nice", "none"]

FIFO_PRIORITY = 5
"""Below that of sound (`relay.mix.audio.urgency`), which ticks 50 times a second and must not be late."""
NICE = -10
_NAME = "plane-"
"""Of the native plane's threads (`rust/src/handle.rs`)."""


def urge(thread: int, wish: Priority, fifo: int, nice: int) -> Got:
    """Let a thread of this process (0: the calling one) run before the rest: SCHED_FIFO with that priority where it is
    wished for and allowed, else niceness. Returns what was got; never an error."""
    if wish in {"auto", "fifo"}:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(fifo))
            return "fifo"
    if wish in {"auto", "nice"}:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, nice)
            return "nice"
    return "none"


def plane_threads() -> set[int]:
    """The ids of the threads of all native planes of this process. One that is just starting may be missing."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (task / "comm").read_text().startswith(_NAME):
                found.add(int(task.name))
    return found


def fitting(wish: Priority, threads: int, limits: Limits) -> Priority:
    """What is good for a machine: "auto" is no SCHED_FIFO where these threads, all busy, would leave no CPU to Python.

    Nor is anything where the kernel kills real-time threads that work for long without a sleep, as a plane's may.
    """
    if resource.getrlimit(resource.RLIMIT_RTTIME)[0] != resource.RLIM_INFINITY and wish in {"auto", "fifo"}:
        return "nice" if wish == "auto" else "none"
    usable = min(len(limits.usable), limits.quota or len(limits.usable))
    return "nice" if wish == "auto" and usable < threads + 1 else wish

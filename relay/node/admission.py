"""Who may still come in. At a limit newcomers are refused at once; those inside keep playing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from relay.errors import Overloaded
from relay.node.gate import SlabGate
from relay.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class Load:
    """What is in use now. Rates in bits per second, memory in bytes."""

    sessions: int
    publishers: int
    bitrate_out: int
    memory: int
    slab: tuple[int, int]
    """Free and all places for packets of the plane's shard that has the least room."""


class Admission:
    """Compares the load with the limits. Its state is whether the node is draining, and the slab's gate."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self.gate = SlabGate()
        self.draining = False
        self.refused_for = ""
        """Of the latest refusal: draining, limit or slab."""

    def admit(self, load: Load, now: float, *, publisher: bool) -> None:
        """Return when one more session fits. Raises Overloaded with the limit that it would break. `now` is monotonic
        seconds."""
        self.gate.observe(*load.slab, now)
        limits, self.refused_for = self._limits, "limit"
        if self.draining:
            self.refused_for = "draining"
            reason = "this node is draining"
        elif load.sessions >= limits.max_sessions:
            reason = f"all {limits.max_sessions} sessions of this node are taken"
        elif publisher and load.publishers >= limits.max_publishers:
            reason = f"all {limits.max_publishers} publishers of this node are taken"
        elif load.bitrate_out >= limits.max_bitrate_bps:
            reason = f"this node sends {load.bitrate_out} bit/s of {limits.max_bitrate_bps}"
        elif load.memory >= limits.max_memory_bytes:
            reason = f"this node uses {load.memory} bytes of {limits.max_memory_bytes}"
        elif not self.gate.allows():
            self.refused_for = "slab"
            free, total = load.slab
            reason = f"a shard keeps {total - free} packets of {total}; newcomers may come when there is room again"
        else:
            return
        raise Overloaded(reason, limits.retry_after_s)


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_memory() -> int:
    """Bytes of memory that this process holds now (Linux: /proc/self/statm), 0 where that cannot be read."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0

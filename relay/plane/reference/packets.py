"""The slab of ingress packets: how many may be kept at once.

Whoever may have to repeat a packet keeps the `Packet`, which keeps its `Place`. A place is free again when the last of
them lets go, which CPython does at once: the twin in `rust/src/core/packets.rs` counts references by hand, and both
have to agree on when a place is free. So nothing that is kept may be part of a cycle: clear it, do not wait for the
collector.

When no place is free a packet is forwarded and tapped without one, and nobody keeps it.
"""

from __future__ import annotations

MOST = 1 << 22  # packets of one plane: 6 GiB in the native one


class Slab:
    """Counts places."""

    __slots__ = ("free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total

    def take(self) -> Place | None:
        """A place, or None when none is free."""
        if not self.free:
            return None
        self.free -= 1
        return Place(self)


class Place:
    """Room for one packet, for as long as somebody refers to it."""

    __slots__ = ("_slab",)

    def __init__(self, slab: Slab) -> None:
        self._slab = slab

    def __del__(self) -> None:
        self._slab.free += 1

"""How far each mix's output has come, in memory that outlives the process which writes it.

A memfd of 64-bit words: word 0 is the last tick that any mixer began; then come two for each mix, its packets so far
and the tick of the last one. They are raised before the packet is written, so that after a kill neither a sequence
number nor a timestamp is used twice.
"""

from __future__ import annotations

import mmap
import os

from relay.errors import Overloaded, UsageError

SLOTS = 4096
_SIZE = 8 * (2 * SLOTS + 1)


class Positions:
    """The relay creates it, each audio process in turn attaches it."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor. UsageError when it is not such memory."""
        self.descriptor = descriptor
        if os.fstat(descriptor).st_size != _SIZE:
            raise UsageError("not the memory of positions")
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._free = list(range(2 * SLOTS - 1, 0, -2))

    @classmethod
    def create(cls) -> Positions:
        descriptor = os.memfd_create("costream-positions", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor)

    def take(self) -> int:
        """Return a free slot, set to 0. Raises Overloaded when there is none."""
        if not self._free:
            raise Overloaded(f"{SLOTS} mixes are open")
        slot = self._free.pop()
        self._words[slot] = self._words[slot + 1] = 0
        return slot

    def give_back(self, slot: int) -> None:
        self._free.append(slot)

    def next(self, slot: int, tick: int) -> int | None:
        """Count the packet of a tick and return how many there were before; None for a tick that had its packet.

        UsageError for a slot that is none.
        """
        if not (0 < slot < 2 * SLOTS and slot % 2):
            raise UsageError(f"no slot {slot}")
        if tick <= self._words[slot + 1]:
            return None
        before: int = self._words[slot]
        self._words[slot], self._words[slot + 1] = before + 1, tick
        return before

    @property
    def tick(self) -> int:
        beat: int = self._words[0]
        return beat

    @tick.setter
    def tick(self, number: int) -> None:
        self._words[0] = number

    def close(self) -> None:
        self._words.release()
        self._memory.close()
        os.close(self.descriptor)

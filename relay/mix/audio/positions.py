"""How far each mix's output has come, in memory that outlives the process which writes it.

A memfd of 64-bit words: word 0 is the last tick that any mixer began, the others count the packets of one mix each. A
count is raised before its packet is written, so that after a kill no sequence number is used twice.
"""

from __future__ import annotations

import mmap
import os

from relay.errors import Overloaded, UsageError

SLOTS = 4096
_SIZE = 8 * (SLOTS + 1)


class Positions:
    """The relay creates it, each audio process in turn attaches it."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor. UsageError when it is not such memory."""
        self.descriptor = descriptor
        if os.fstat(descriptor).st_size != _SIZE:
            raise UsageError("not the memory of positions")
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._free = list(range(SLOTS, 0, -1))

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
        self._words[slot] = 0
        return slot

    def give_back(self, slot: int) -> None:
        self._free.append(slot)

    def next(self, slot: int) -> int:
        """Count one packet; return how many there were before."""
        before: int = self._words[slot]
        self._words[slot] = before + 1
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

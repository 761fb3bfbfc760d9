"""The words in the header of a shared-memory ring: their places, and how they are read and written.

Where the native extension is installed its atomic loads and stores order all this. Without it, plain Python relies on
aligned 64-bit words being copied whole, and on pairs of lock operations, which order memory on x86 and ARM as CPython
does them, in place of fences. Should that fail on some machine, a sleeping consumer that waits here still looks again
every 100 ms, and what arrives out of order shows by its sequence.
"""

from __future__ import annotations

import mmap
import threading
from typing import Protocol

try:
    from relay.plane._native import RingWords as _NativeWords
except ImportError:
    _NativeWords = None  # type: ignore[assignment,misc]

HEADER = 4096  # bytes
(MAGIC_WORD, VERSION_WORD, SLOT_SIZE_WORD, SLOTS_WORD) = range(4)
HEAD, DROPPED, PRODUCER_CLOSED = 8, 9, 10
TAIL, SLEEPING, CONSUMER_CLOSED = 16, 17, 18


class Words(Protocol):
    """The header's words. Loads and stores are seen in their order by the other side."""

    def load(self, place: int) -> int: ...

    def store(self, place: int, value: int) -> None: ...


class PlainWords:
    """The words without the native extension: see the module's text for what this relies on."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._words = memoryview(memory)[:HEADER].cast("Q")
        self._lock = threading.Lock()

    def load(self, place: int) -> int:
        self._fence()
        value: int = self._words[place]
        self._fence()
        return value

    def store(self, place: int, value: int) -> None:
        self._fence()
        self._words[place] = value
        self._fence()

    def release(self) -> None:
        self._words.release()

    def _fence(self) -> None:
        # A release that an acquire follows: what came before the first is seen before what comes after the second.
        lock = self._lock
        with lock:
            pass
        with lock:
            pass


def best_words(memory: int, plain: PlainWords, native: bool | None) -> Words:
    """The native words of a memfd, or `plain` where the extension is not installed or not wanted."""
    if _NativeWords is None or native is False:
        return plain
    return _NativeWords(memory)

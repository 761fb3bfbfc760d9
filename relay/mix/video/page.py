"""A page of memory that a worker writes and its relay reads: what has to be known of one that was killed.

64-bit words, each written in one piece: word 0 is the worker's heartbeat (monotonic µs); stage place `n` has the eight
words from `8 * (n + 1)`: the next sequence number, the next VP8 picture id, frames sent, and the time of the last one.
The sequence number is raised before the packets that use it are sent, so that a successor never repeats one.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

PAGE = 4096
PLACES = PAGE // 64 - 1
_STAGE_WORDS = 8


class StageWords(NamedTuple):
    """What a stage's worker wrote last; `frames` 0 when it sent none."""

    sequence: int
    picture_id: int
    frames: int
    last: int


class Page:
    """Either side's view."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor of a page."""
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, PAGE)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> Page:
        descriptor = os.memfd_create("costream-page", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, PAGE)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def beat(self) -> int:
        return self._words[0]

    @beat.setter
    def beat(self, now: int) -> None:
        self._words[0] = now

    def read(self, place: int) -> StageWords:
        start = _STAGE_WORDS * (place + 1)
        return StageWords(*self._words[start : start + 4])

    def write(self, place: int, words: StageWords) -> None:
        start = _STAGE_WORDS * (place + 1)
        for index, word in enumerate(words):
            self._words[start + index] = word

    def close(self) -> None:
        """Repeatable."""
        if self.descriptor >= 0:
            self._words.release()
            self._map.close()
            os.close(self.descriptor)
            self.descriptor = -1

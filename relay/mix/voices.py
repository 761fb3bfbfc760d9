"""Gains that never jump, and how loud everybody is.

Blocks are float32 arrays of shape (samples, channels) at 48 kHz. Every change of gain goes along half a cosine: its
slope has no corner, so nothing is heard of it but the change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from relay.errors import UsageError
from relay.stage.speaker import SpeakerDetector

Block = NDArray[np.float32]

RATE = 48_000
FADE = 720  # samples: 15 ms
MEASURE_TICKS = 5  # loudness is told every 100 ms
FULL_SCALE = 127  # a level; each step is 1 dB (RFC 6464 turned around)


def rising(samples: int) -> Block:
    """Half a cosine from 0 to 1, as a column."""
    steps = (np.arange(samples, dtype=np.float64) + 0.5) * (math.pi / max(samples, 1))
    column: Block = (0.5 - 0.5 * np.cos(steps)).astype(np.float32)[:, None]
    return column


_CROSS = rising(480)


def cross_fade(old: Block, new: Block) -> Block:
    """Go from `old` to `new` within their first 10 ms, or the shorter one's length; then it is `new`."""
    count = min(len(old), len(new), len(_CROSS))
    curve = _CROSS if count == len(_CROSS) else rising(count)
    faded = new.copy()
    faded[:count] = old[:count] * (1 - curve) + new[:count] * curve
    return faded


class Ramp:
    """A gain that moves to where it is told within a given time."""

    def __init__(self, gain: float = 0.0) -> None:
        self._from = self._to = gain
        self._length = self._done = 0

    @property
    def gain(self) -> float:
        """The gain of the next sample."""
        if self._done >= self._length:
            return self._to
        share = 0.5 - 0.5 * math.cos(math.pi * self._done / self._length)
        return self._from + (self._to - self._from) * share

    @property
    def target(self) -> float:
        return self._to

    @property
    def silent(self) -> bool:
        """Zero, and to stay so."""
        return self._to == 0 and self._done >= self._length

    def move(self, gain: float, seconds: float = FADE / RATE) -> None:
        """Go to `gain` from wherever it is now, in at least 15 ms. UsageError for what is no gain or no time."""
        if not (0 <= gain <= 16 and 0 <= seconds <= 600):
            raise UsageError("a gain is 0 to 16 and takes 0 to 600 s to reach")
        if gain == self._to:
            return
        self._from, self._to = self.gain, gain
        self._length, self._done = max(round(seconds * RATE), FADE), 0

    def apply(self, block: Block) -> Block:
        """Return the block with the gain on it; the same block where the gain is 1."""
        if self._done >= self._length:
            if self._to == 1:
                return block
            return block * np.float32(self._to)
        steps = np.minimum(np.arange(self._done, self._done + len(block)), self._length)
        curve = self._from + (self._to - self._from) * (0.5 - 0.5 * np.cos(steps * (math.pi / self._length)))
        self._done += len(block)
        moved: Block = block * curve.astype(np.float32)[:, None]
        return moved


def energy(block: Block) -> float:
    """Mean square of a block."""
    flat = block.ravel()
    return float(np.dot(flat, flat)) / max(len(flat), 1)


def level(mean_square: float) -> float:
    """0 (silence) to 127 (full scale, as a square wave has it)."""
    if mean_square <= 0:
        return 0.0
    return min(max(FULL_SCALE + 10 * math.log10(mean_square), 0.0), float(FULL_SCALE))


class Voices:
    """The loudness of a room's inputs, and its active speaker by the same rules as on the stage."""

    def __init__(self) -> None:
        self._detector = SpeakerDetector()
        self._sums: dict[str, float] = {}
        self._ticks = 0
        self.levels: dict[str, float] = {}
        """Of the last 100 ms."""

    @property
    def speaker(self) -> str | None:
        return self._detector.speaker

    def heard(self, energies: Mapping[str, float], now: float) -> bool:
        """Take the mean squares of one tick, `now` in seconds. True every 100 ms: `levels` are new then."""
        for name, amount in energies.items():
            self._sums[name] = self._sums.get(name, 0.0) + amount
        self._ticks += 1
        if self._ticks < MEASURE_TICKS:
            return False
        self.levels = {name: level(amount / self._ticks) for name, amount in self._sums.items()}
        self._detector.keep(self.levels)
        self._detector.heard(self.levels, now)
        self._sums.clear()
        self._ticks = 0
        return True

"""Keep a mix below full scale without a click: a soft limiter that looks 5 ms ahead.

Blocks are float32 arrays of shape (`FRAME`, channels), 1.0 being full scale. Up to `KNEE` nothing changes; from there
on peaks are pressed together so that none reaches `CEILING`, however loud the mix. Channels share one gain, so that
nobody moves between left and right. What comes out is `DELAY` samples later than what went in.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]

FRAME = 960
KNEE = 0.7
CEILING = 0.94  # -0.5 dB: an encoder adds some of its own to peaks
PIECE = 60  # samples: 1.25 ms, the resolution of the gain
AHEAD = 4  # pieces
DELAY = AHEAD * PIECE
RELEASE_S = 0.08

_PIECES = FRAME // PIECE
_WIDTH = CEILING - KNEE
_RECOVERY = 1 - math.exp(-PIECE / 48_000 / RELEASE_S)
_RISE = np.arange(PIECE, dtype=np.float32) / PIECE
_EASED = np.arange(AHEAD) / AHEAD


class Limiter:
    """The limiter of one mix. Not for several threads."""

    def __init__(self, channels: int) -> None:
        self._waiting: Block = np.zeros((DELAY, channels), np.float32)
        self._wanted = np.ones(AHEAD)
        self._gain = 1.0

    def process(self, block: Block) -> Block:
        """Return as many samples as came in, `DELAY` later. The block itself is not changed."""
        sound = np.concatenate((self._waiting, block))
        self._waiting = sound[FRAME:].copy()
        peaks = np.abs(block).reshape(_PIECES, -1).max(axis=1)
        wanted = np.concatenate((self._wanted, _gains(peaks)))
        self._wanted = wanted[_PIECES:]
        out = sound[:FRAME]
        if self._gain == 1.0 and wanted.min() == 1.0:
            return out
        gains = self._path(wanted)
        curve = gains[:-1, None] + (gains[1:] - gains[:-1])[:, None] * _RISE
        limited: Block = out * curve.astype(np.float32).reshape(FRAME, 1)
        return limited

    def _path(self, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """The gain at the borders of the pieces that go out: below what both neighbours want.

        It falls in a straight line that begins `AHEAD` pieces before the peak, and recovers by an exponential.
        """
        borders = np.minimum(wanted[:_PIECES], wanted[1 : _PIECES + 1])
        for ahead in range(1, AHEAD):
            peak = wanted[1 + ahead : _PIECES + 1 + ahead]
            borders[: len(peak)] = np.minimum(borders[: len(peak)], peak + (1 - peak) * _EASED[ahead])
        path = np.empty(_PIECES + 1)
        path[0] = gain = self._gain
        for index, most in enumerate(borders.tolist(), 1):
            gain = min(most, gain + (1 - gain) * _RECOVERY)
            path[index] = gain
        self._gain = 1.0 if gain > 0.9999 else gain
        path[-1] = self._gain
        return path


def _gains(peaks: NDArray[np.float32]) -> NDArray[np.float64]:
    """What to multiply pieces with these peaks by: 1 up to the knee, then an exponential approach to the ceiling."""
    over = np.maximum(peaks.astype(np.float64) - KNEE, 0.0)
    return np.where(over > 0, (KNEE + _WIDTH * -np.expm1(-over / _WIDTH)) / np.maximum(peaks, KNEE), 1.0)

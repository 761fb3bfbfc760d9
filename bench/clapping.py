"""Flash and beep: a host with one bright and loud instant in every second, and how far apart they come out."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack

from relay.ids import sync_id_microseconds

RATE, CHUNK = 48_000, 960
PERIOD_S = 1.0
"""Between two claps."""


class Clapper:
    """One instant in every second is white in the picture and loud in the sound."""

    def __init__(self, fps: int) -> None:
        self.start = time.monotonic() + 0.2
        self.tracks = (_Beep(self), _Flash(self, fps))


class _Beep(MediaStreamTrack):
    kind = "audio"

    def __init__(self, clapper: Clapper) -> None:
        super().__init__()
        self._clapper, self._sample = clapper, 0

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(max(0.0, self._clapper.start + self._sample / RATE - time.monotonic()))
        at = self._sample % RATE + np.arange(CHUNK)
        loud = 16_000 * np.sin(2 * np.pi * 1000 * at / RATE) * (at < RATE // 10)
        frame = av.AudioFrame.from_ndarray(loud.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sample, Fraction(1, RATE)
        self._sample += CHUNK
        return frame


class _Flash(MediaStreamTrack):
    kind = "video"

    def __init__(self, clapper: Clapper, fps: int) -> None:
        super().__init__()
        self._clapper, self._fps, self._number = clapper, fps, 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(max(0.0, self._clapper.start + self._number / self._fps - time.monotonic()))
        picture = np.full((180 * 3 // 2, 320), 128, np.uint8)
        picture[:180] = 235 if self._number % self._fps < self._fps // 10 else 16
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self._number * 90_000 // self._fps, Fraction(1, 90_000)
        self._number += 1
        return frame


class Line:
    """What the relay said of one slot: which sync id an RTP timestamp is."""

    def __init__(self) -> None:
        self._known: tuple[int, int, int] | None = None

    def told(self, data: dict[str, object]) -> None:
        """Take a `slot.timeline`, as the session's events have it."""
        self._known = int(str(data["rtp_timestamp"])), int(str(data["sync_id"])), int(str(data["clock_hz"]))

    def microseconds(self, timestamp: int) -> float:
        """Wall time. Raises RuntimeError before anything was told."""
        if self._known is None:
            raise RuntimeError("nothing was told of this slot")
        at, sync_id, clock_hz = self._known
        ticks = (timestamp - at + (1 << 31)) % (1 << 32) - (1 << 31)
        return sync_id_microseconds(sync_id) + ticks * 1_000_000 / clock_hz


def flashes(pictures: Sequence[tuple[int, npt.NDArray[np.uint8]]]) -> list[int]:
    """Times of the pictures that are the first white ones."""
    white = [(pts, luma.mean() > 128) for pts, luma in pictures]
    return [pts for (_, before), (pts, now) in itertools.pairwise(white) if now and not before]


def beeps(sound: npt.NDArray[np.float64], end: int) -> list[int]:
    """Times of the samples at which it gets loud; `end` is that of the sample after the last."""
    block = RATE // 1000
    loud = np.abs(sound[: len(sound) // block * block]).reshape(-1, block).max(axis=1) > 0.1
    start = end - len(sound)
    return [
        start + number * block
        for number in range(100, len(loud))
        if loud[number] and not loud[number - 100 : number].any()
    ]


def apart_ms(seen_at: Sequence[float], heard_at: Sequence[float]) -> list[float]:
    """How long after its beep each flash is seen, ms. Times are µs of one clock; a flash without a beep is left out."""
    nearest = [min((seen - heard for heard in heard_at), key=abs, default=float("inf")) / 1000 for seen in seen_at]
    return [each for each in nearest if abs(each) < PERIOD_S * 500]

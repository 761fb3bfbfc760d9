"""Hosts who paint counters and sound a tone each, and viewers who decode, by aiortc."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Self

import av
import numpy as np
from aiortc import MediaStreamTrack

from bench import aiortc_peer
from bench.aiortc_peer import Watched
from bench.clapping import CHUNK, RATE
from costream.painting import TestPicture

__all__ = ["FPS", "Painter", "Peer", "Tone", "Watched"]

FPS = 12


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self, hz: float) -> None:
        super().__init__()
        self._hz, self._sample, self._start = hz, 0, time.monotonic()

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(max(0.0, self._start + self._sample / RATE - time.monotonic()))
        times = (np.arange(CHUNK) + self._sample) / RATE
        samples = (6000 * np.sin(2 * np.pi * self._hz * times)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sample, Fraction(1, RATE)
        self._sample += CHUNK
        return frame


class Painter(MediaStreamTrack):
    kind = "video"

    def __init__(self, publisher: int) -> None:
        super().__init__()
        self._picture = TestPicture(320, 180, publisher)
        self._number, self._start = 0, time.monotonic()

    async def recv(self) -> av.VideoFrame:
        # Like a camera: what nobody took in time is not there any more, and a busy machine has no queue to work off.
        self._number = max(self._number, int((time.monotonic() - self._start) * FPS))
        await asyncio.sleep(max(0.0, self._start + self._number / FPS - time.monotonic()))
        painted = self._picture.frame(self._number, int(time.monotonic() * 1000))
        frame = av.VideoFrame.from_ndarray(painted, format="yuv420p")
        frame.pts, frame.time_base = self._number * 90_000 // FPS, Fraction(1, 90_000)
        self._number += 1
        return frame


class Peer(aiortc_peer.Peer):
    """One connection to a node, or a host of it."""

    async def publish(self, publisher: int, hz: float, *, video: bool = True) -> Self:
        return await self.publish_tracks(Tone(hz), *([Painter(publisher)] if video else []))

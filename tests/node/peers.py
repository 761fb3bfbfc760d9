"""Peers of a node: aiortc's own WebRTC stack with a tone, for tests that need a session but no picture."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Self

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)

from relay.node import Node
from relay.ports import Answer, Offer

RATE, CHUNK = 48_000, 960
PATIENCE_S = 15.0


class Tone(MediaStreamTrack):
    """440 Hz in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._sample = 0
        self._start = time.monotonic()

    async def recv(self) -> av.AudioFrame:
        due = self._start + self._sample / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        times = (np.arange(CHUNK) + self._sample) / RATE
        samples = (8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sample, Fraction(1, RATE)
        self._sample += CHUNK
        return frame


class Peer:
    """One aiortc connection to a node."""

    def __init__(self, node: Node, identity: str, role: str, room: str = "demo") -> None:
        self.node, self.identity, self.role, self.room = node, identity, role, room
        # Otherwise aiortc takes the candidates of the last m-line, and an answer has them in the first.
        self.pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_COMPAT))
        self.answer: Answer | None = None
        self.received: MediaStreamTrack | None = None
        self.tracks: list[MediaStreamTrack] = []
        self.pc.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self.received = track
        self.tracks.append(track)

    @property
    def session(self) -> str:
        assert self.answer is not None
        return self.answer.session

    async def publish(self) -> Self:
        """Publish a tone."""
        self.pc.addTrack(Tone())
        return await self._offer(self.node.publish)

    async def watch(self, slots: int = 1) -> Self:
        """Watch with so many audio slots."""
        for _ in range(slots):
            self.pc.addTransceiver("audio", direction="recvonly")
        return await self._offer(self.node.watch)

    async def _offer(self, ask: Callable) -> Self:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self.answer = await ask(Offer(self.room, self.identity, self.role, self.pc.localDescription.sdp))
        await self.pc.setRemoteDescription(RTCSessionDescription(self.answer.sdp, "answer"))
        return self

    async def hears(self) -> float:
        """The next frame's loudest sample."""
        assert self.received is not None
        frame = await asyncio.wait_for(self.received.recv(), PATIENCE_S)
        return float(np.abs(frame.to_ndarray()).max())

    async def close(self) -> None:
        await self.pc.close()


async def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until something holds. Fails when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.02)

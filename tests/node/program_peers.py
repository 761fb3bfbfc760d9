"""Hosts who paint counters and sound a tone each, and viewers who decode, by aiortc."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

from costream.painting import Painted, TestPicture, read
from relay.mix.layout import Box
from relay.node import Node
from relay.ports import Answer, Offer

RATE, CHUNK = 48_000, 960
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
        await asyncio.sleep(max(0.0, self._start + self._number / FPS - time.monotonic()))
        painted = self._picture.frame(self._number, int(time.monotonic() * 1000))
        frame = av.VideoFrame.from_ndarray(painted, format="yuv420p")
        frame.pts, frame.time_base = self._number * 90_000 // FPS, Fraction(1, 90_000)
        self._number += 1
        return frame


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


class Watched:
    """What a viewer of the program has decoded."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, npt.NDArray[np.uint8]]] = []
        self.sound: npt.NDArray[np.float64] = np.zeros(0)
        self.sound_end = 0
        """Time of the sample after the last, counted from the first."""

    def mark(self, box: Box, number: int = -1) -> Painted | None:
        """What is painted in a cell of a picture."""
        luma = self.pictures[number][1]
        height, width = luma.shape
        return read(luma, (box.x / width, box.y / height, box.width / width, box.height / height))

    def counters(self, box: Box, publisher: int, since: int = 0) -> list[int]:
        marks = (self.mark(box, number) for number in range(since, len(self.pictures)))
        return [mark.counter for mark in marks if mark is not None and mark.publisher == publisher]

    def hears(self, hz: float, seconds: float = 0.4) -> float:
        """Amplitude of a tone in the last sound, 0 to 1."""
        tail = self.sound[-int(seconds * RATE) :]
        if len(tail) < seconds * RATE:
            return 0.0
        window = np.hanning(len(tail))
        wave = np.exp(-2j * np.pi * hz * np.arange(len(tail)) / RATE)
        return float(2 * np.abs(np.sum(tail * window * wave)) / window.sum())


class Peer:
    """One connection to a node."""

    def __init__(self, node: Node, identity: str, role: str, room: str = "demo") -> None:
        self._node, self._identity, self._role, self._room = node, identity, role, room
        self.pc = RTCPeerConnection()
        self.watched = Watched()
        self.answer: Answer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.pc.on("track", self._on_track)

    @property
    def session(self) -> str:
        assert self.answer is not None
        return self.answer.session

    async def publish(self, publisher: int, hz: float, *, video: bool = True) -> Peer:
        return await self.publish_tracks(Tone(hz), *([Painter(publisher)] if video else []))

    async def publish_tracks(self, *tracks: MediaStreamTrack) -> Peer:
        for track in tracks:
            self.pc.addTrack(track)
        await self._offer(self._node.publish, False)
        return self

    async def watch(self, codec: str = "H264", *, program: bool = True, one_sound: bool = False) -> Peer:
        """One slot for sound and one for pictures, which play the program, or the stage; `one_sound`: a mix."""
        self.pc.addTransceiver("audio", direction="recvonly")
        video = self.pc.addTransceiver("video", direction="recvonly")
        known = RTCRtpReceiver.getCapabilities("video").codecs
        video.setCodecPreferences([each for each in known if each.name == codec])
        await self._offer(self._node.watch, program, one_sound)
        return self

    async def listen(self) -> Peer:
        """One slot, for one sound."""
        self.pc.addTransceiver("audio", direction="recvonly")
        await self._offer(self._node.watch, False, True)
        return self

    def origin(self, kind: str = "video") -> int:
        """The RTP timestamp that times are counted from: aiortc begins at 0 and tells nobody."""
        receivers = [each.receiver for each in self.pc.getTransceivers() if each.kind == kind]
        mapper = receivers[0]._RTCRtpReceiver__timestamp_mapper
        assert mapper._origin is not None
        return int(mapper._origin)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pc.close()

    async def _offer(self, ask: Any, program: bool, one_sound: bool = False) -> None:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        sdp = self.pc.localDescription.sdp
        wish = {"program": program, "one_sound": one_sound}
        self.answer = answer = await ask(Offer(self._room, self._identity, self._role, sdp, **wish))
        await self.pc.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._look(track) if track.kind == "video" else self._listen(track)))

    async def _look(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.VideoFrame)
            assert frame.pts is not None
            luma = frame.to_ndarray(format="yuv420p")[: frame.height].copy()
            self.watched.pictures.append((frame.pts, luma))

    async def _listen(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.AudioFrame)
            left = frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.float64) / 32768
            self.watched.sound = np.concatenate([self.watched.sound, left])[-4 * RATE :]
            assert frame.pts is not None
            self.watched.sound_end = frame.pts + len(left)

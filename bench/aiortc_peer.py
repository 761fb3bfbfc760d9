"""A connection to a relay by aiortc, which decodes what it watches: pictures and sound with their RTP times."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

from bench.clapping import RATE
from costream.painting import Painted, read
from relay.mix.layout import Box
from relay.ports import Answer, Offer


class Doors(Protocol):
    """Who answers offers: a node, or one in another process."""

    async def publish(self, offer: Offer) -> Answer: ...
    async def watch(self, offer: Offer) -> Answer: ...


class Watched:
    """What a viewer of the program has decoded."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, npt.NDArray[np.uint8]]] = []
        self.sound: npt.NDArray[np.float64] = np.zeros(0)
        self.sound_end = 0
        """Time of the sample after the last, counted from the first."""
        self._marks: dict[tuple[int, Box], Painted | None] = {}

    def mark(self, box: Box, number: int = -1) -> Painted | None:
        """What is painted in a cell of a picture. It is read once, so that who looks for something again and again does
        not take the time of what he waits for."""
        pts, luma = self.pictures[number]
        if (pts, box) not in self._marks:
            height, width = luma.shape
            region = box.x / width, box.y / height, box.width / width, box.height / height
            self._marks[pts, box] = read(luma, region)
        return self._marks[pts, box]

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

    def __init__(self, node: Doors, identity: str, role: str, room: str = "demo") -> None:
        self._node, self._identity, self._role, self._room = node, identity, role, room
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # gathering would wait for STUN
        self.watched = Watched()
        self.answer: Answer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._late: set[asyncio.Task[None]] = set()
        self.pc.on("track", self._on_track)

    @property
    def session(self) -> str:
        assert self.answer is not None
        return self.answer.session

    async def publish_tracks(self, *tracks: MediaStreamTrack) -> Self:
        for track in tracks:
            self.pc.addTrack(track)
        await self._offer(self._node.publish, False)
        return self

    def delay_pictures(self, seconds: float) -> None:
        """Have the RTP packets of pictures leave so much later than aiortc thinks they do. Its sender reports go out at
        once and say what they would have said. Call it after `publish_tracks`."""
        sender = next(each for each in self.pc.getSenders() if each.kind == "video")
        transport, ssrc = sender.transport, sender._ssrc.to_bytes(4, "big")
        send = transport._send_rtp

        async def late(data: bytes) -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(ConnectionError):  # the connection was closed meanwhile
                await send(data)

        async def either(data: bytes) -> None:
            if data[8:12] == ssrc and not 192 <= data[1] <= 223:  # RTP, by RFC 5761 4
                task = asyncio.create_task(late(data))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            else:
                await send(data)

        if seconds:
            transport._send_rtp = either

    async def watch(self, codec: str = "H264", *, program: bool = True, one_sound: bool = False) -> Self:
        """One slot for sound and one for pictures, which play the program, or the stage; `one_sound`: a mix."""
        self.pc.addTransceiver("audio", direction="recvonly")
        video = self.pc.addTransceiver("video", direction="recvonly")
        known = RTCRtpReceiver.getCapabilities("video").codecs
        video.setCodecPreferences([each for each in known if each.name == codec])
        await self._offer(self._node.watch, program, one_sound)
        return self

    async def listen(self) -> Self:
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
        tasks = [*self._tasks, *self._late]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.pc.close()

    async def _offer(self, ask: Callable[[Offer], Awaitable[Answer]], program: bool, one_sound: bool = False) -> None:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        sdp = self.pc.localDescription.sdp
        wanted = Offer(self._room, self._identity, self._role, sdp, program=program, one_sound=one_sound)
        self.answer = answer = await ask(wanted)
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

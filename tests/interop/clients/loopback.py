"""A WHIP and WHEP endpoint of a few lines that ends in a real peer: what clients are tried against without a relay.

POST /whip/{room} receives with aiortc (decoding VP8 and H264); POST /whep/{room} sends a test picture and a tone.
`engine="wrtc"` answers WHIP with libwebrtc instead, which accepts simulcast and offers without candidates.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import itertools
import time
from dataclasses import dataclass, field
from typing import Any, Self

import av
import numpy as np
import uvicorn
import webrtc
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from costream.synthetic import allow_loopback, gathered
from tests.interop.clients.painting import CLOCK_MODULUS, Painted, TestPicture, read_i420
from tests.interop.clients.tones import RATE, Heard, Tone, detect
from tests.interop.clients.wrtc_client import Slot


@dataclass
class Received:
    """One session as the endpoint saw it."""

    offer: str
    token: str
    user_agent: str
    pc: Any
    painted: list[Painted] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    frames: int = 0
    sound: list[np.ndarray] = field(default_factory=list)
    patches: list[str] = field(default_factory=list)
    deleted: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def heard(self) -> Heard | None:
        sound = np.concatenate(self.sound[-25:]) if self.sound else np.zeros(0, np.int16)
        return detect(sound) if len(sound) >= RATE // 4 else None


class Loopback:
    """Runs the endpoint on a loopback port of its own. `delete_status` is what DELETE answers."""

    def __init__(self, *, engine: str = "aiortc", certificate: tuple[str, str] | None = None) -> None:
        self.sessions: list[Received] = []
        self._engine = engine
        extra = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]} if certificate else {}
        routes = [
            Route("/whip/{room}", self._whip, methods=["POST"]),
            Route("/whep/{room}", self._whep, methods=["POST"]),
            Route("/session/{number:int}", self._session, methods=["PATCH", "DELETE"]),
            Route("/{rest:path}", self._cors, methods=["OPTIONS"]),
            Route("/", lambda _: Response("<!doctype html><title>loopback</title>", media_type="text/html")),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", lifespan="off", **extra)
        self._server = uvicorn.Server(config)
        self._scheme = "https" if certificate else "http"
        self._serving: asyncio.Task[None] | None = None

    @property
    def origin(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    @property
    def whip(self) -> str:
        return f"{self.origin}/whip/demo"

    @property
    def whep(self) -> str:
        return f"{self.origin}/whep/demo"

    async def __aenter__(self) -> Self:
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self.sessions:
            await self._end(session)
        self._server.should_exit = True
        self._server.force_exit = True
        assert self._serving
        await self._serving

    async def _whip(self, request: Request) -> Response:
        offer = (await request.body()).decode()
        answer = self._wrtc_whip if self._engine == "wrtc" else self._aiortc_whip
        session = Received(offer, _bearer(request), request.headers.get("user-agent", ""), None)
        return self._created(session, await answer(session))

    async def _aiortc_whip(self, session: Received) -> str:
        session.pc = pc = RTCPeerConnection()

        @pc.on("track")
        def on_track(track: Any) -> None:
            session.tasks.append(asyncio.create_task(_take_aiortc(session, track)))

        await pc.setRemoteDescription(RTCSessionDescription(session.offer, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        return str(pc.localDescription.sdp)

    async def _wrtc_whip(self, session: Received) -> str:
        allow_loopback()
        session.pc = pc = webrtc.RTCPeerConnection()
        pc.on("track", lambda event: session.tasks.append(asyncio.create_task(_take_wrtc(session, event.track))))
        await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="offer", sdp=session.offer))
        await pc.set_local_description(await pc.create_answer())
        return await gathered(pc)

    async def _whep(self, request: Request) -> Response:
        offer = (await request.body()).decode()
        pc = RTCPeerConnection()
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        number = itertools.count(1)
        for transceiver in pc.getTransceivers():
            track = _PictureTrack(next(number)) if transceiver.kind == "video" else _ToneTrack(440.0)
            transceiver.sender.replaceTrack(track)
            transceiver.direction = "sendonly"
        await pc.setLocalDescription(await pc.createAnswer())
        session = Received(offer, _bearer(request), request.headers.get("user-agent", ""), pc)
        return self._created(session, str(pc.localDescription.sdp))

    def _created(self, session: Received, answer: str) -> Response:
        self.sessions.append(session)
        headers = {
            "Location": f"/session/{len(self.sessions) - 1}",
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": "Location",
        }
        return Response(answer, 201, headers, "application/sdp")

    async def _session(self, request: Request) -> Response:
        session = self.sessions[request.path_params["number"]]
        if request.method == "DELETE":
            session.deleted = True
            await self._end(session)
            return Response(status_code=200, headers={"Access-Control-Allow-Origin": "*"})
        fragment = (await request.body()).decode()
        session.patches.append(fragment)
        for line in fragment.splitlines():
            if line.startswith("a=candidate:") and self._engine == "aiortc":
                candidate = candidate_from_sdp(line.removeprefix("a=candidate:"))
                candidate.sdpMLineIndex = 0
                await session.pc.addIceCandidate(candidate)
        return Response(status_code=204)

    async def _cors(self, _: Request) -> Response:
        allow = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
        return Response(status_code=204, headers=allow | {"Access-Control-Allow-Methods": "*"})

    async def _end(self, session: Received) -> None:
        tasks, session.tasks = session.tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if (closing := session.pc.close()) is not None:
            await closing


async def _take_aiortc(session: Received, track: Any) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            if track.kind == "video":
                plane = frame.planes[0]
                session.frames += 1
                session.sizes.add((frame.width, frame.height))
                if painted := read_i420(memoryview(plane), frame.width, frame.height, plane.line_size):
                    session.painted.append(painted)
            else:
                samples = frame.to_ndarray().reshape(-1)[:: len(frame.layout.channels)]
                session.sound.append(samples.astype(np.int16))


async def _take_wrtc(session: Received, track: Any) -> None:
    processor = webrtc.MediaStreamTrackProcessor(webrtc.MediaStreamTrackProcessorInit(track=track, max_buffer_size=4))
    slot = Slot(0, str(track.kind))
    async for media in processor.readable:
        with media:
            if slot.kind == "video":
                data = bytearray(media.allocation_size())
                media.copy_to(data).result()
                session.frames += 1
                session.sizes.add((media.coded_width, media.coded_height))
                if painted := read_i420(data, media.coded_width, media.coded_height):
                    session.painted.append(painted)


class _PictureTrack(MediaStreamTrack):
    kind = "video"

    def __init__(self, publisher: int, fps: int = 30) -> None:
        super().__init__()
        self._picture = TestPicture(640, 360, publisher)
        self._counter, self._fps, self._begin = 0, fps, time.monotonic()

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(max(0.0, self._begin + self._counter / self._fps - time.monotonic()))
        picture = self._picture.frame(self._counter, int(time.time() * 1000) % CLOCK_MODULUS)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self._counter, fractions.Fraction(1, self._fps)
        self._counter += 1
        return frame


class _ToneTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self._tone, self._chunks, self._begin = Tone(frequency), 0, time.monotonic()

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(max(0.0, self._begin + self._chunks / 50 - time.monotonic()))
        frame = av.AudioFrame.from_ndarray(self._tone.samples(960).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._chunks * 960, fractions.Fraction(1, RATE)
        self._chunks += 1
        return frame


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")

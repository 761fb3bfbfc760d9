"""A WHIP and WHEP endpoint of a few lines that ends in a real peer: what clients are tried against without a relay.

POST /whip/{room} receives with aiortc, which decodes VP8 and H264; `engine="wrtc"` receives with libwebrtc instead,
which accepts simulcast and offers without candidates. POST /whep/{room} sends, with libwebrtc, a picture of publisher N
into the N-th m-line (from 1) if it is video, else a tone of 400 + 100 N Hz.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import uvicorn
import webrtc
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from costream.synthetic import Painter, Show, allow_loopback, gathered, sing
from tests.interop.clients.painting import Painted, read_i420
from tests.interop.clients.tones import RATE, Heard, detect
from tests.interop.clients.wrtc_client import Slot


@dataclass
class Received:
    """One session as the endpoint saw it."""

    offer: str
    token: str
    user_agent: str
    pc: Any
    painted: list[Painted] = field(default_factory=list)
    times: list[int] = field(default_factory=list)  # of each in `painted` if aiortc receives: 1/90000 s since the first
    sizes: set[tuple[int, int]] = field(default_factory=set)
    frames: int = 0
    sound: list[np.ndarray] = field(default_factory=list)
    patches: list[str] = field(default_factory=list)
    deleted: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def summary(self) -> str:
        """What came so far, for a test that waited in vain."""
        return f"{self.pc.connectionState}: {self.frames} frames, {len(self.painted)} read, {len(self.sound)} sounds"

    def heard(self) -> Heard | None:
        sound = np.concatenate(self.sound[-25:]) if self.sound else np.zeros(0, np.int16)
        return detect(sound) if len(sound) >= RATE // 4 else None


class Loopback:
    """Runs the endpoint on a loopback port of its own; `certificate` (files of certificate and key) makes it HTTPS."""

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

        # aiortc refuses profiles that its decoder takes all the same: it is shown Baseline, the client its own.
        profile = re.search(r"profile-level-id=(\w+)", session.offer)
        offer = re.sub(r"profile-level-id=\w+", "profile-level-id=42e01f", session.offer)
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        if (
            "a=setup:actpass" in offer
        ):  # as a relay does: aiortc as DTLS client would refuse whip-client's RSA certificate
            for transceiver in pc.getTransceivers():
                transceiver.receiver.transport._set_role("server")
        await pc.setLocalDescription(await pc.createAnswer())
        answer = str(pc.localDescription.sdp)
        return answer.replace("42e01f", profile[1]) if profile else answer

    async def _wrtc_whip(self, session: Received) -> str:
        allow_loopback()
        session.pc = pc = webrtc.RTCPeerConnection()
        pc.on("track", lambda event: session.tasks.append(asyncio.create_task(_take_wrtc(session, event.track))))
        await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="offer", sdp=session.offer))
        await pc.set_local_description(await pc.create_answer())
        return _accept_layers(session.offer, await gathered(pc))

    async def _whep(self, request: Request) -> Response:
        allow_loopback()
        pc = webrtc.RTCPeerConnection()
        session = Received((await request.body()).decode(), _bearer(request), request.headers.get("user-agent", ""), pc)
        await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="offer", sdp=session.offer))
        for number, transceiver in enumerate(pc.get_transceivers(), start=1):
            if transceiver.receiver.track.kind == "video":
                pictures = webrtc.VideoTrackGenerator()
                track, work = pictures.track, Painter(Show(publisher=number)).run(pictures)
            else:
                track = webrtc.MediaStreamTrackGenerator("audio")
                work = sing(track, 400.0 + 100 * number)
            transceiver.direction = "sendonly"
            await transceiver.sender.replace_track(track)
            session.tasks.append(asyncio.create_task(work))
        await pc.set_local_description(await pc.create_answer())
        return self._created(session, await gathered(pc))

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
                    session.times.append(frame.pts)
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


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _accept_layers(offer: str, answer: str) -> str:
    """Add what libwebrtc leaves out of an answer: that it takes all simulcast layers (RFC 8853). Video must be last."""
    rids = [line.split()[0].removeprefix("a=rid:") for line in offer.splitlines() if line.startswith("a=rid:")]
    if not rids:
        return answer
    lines = [f"a=rid:{rid} recv" for rid in rids] + [f"a=simulcast:recv {';'.join(rids)}"]
    return answer + "".join(f"{line}\r\n" for line in lines)

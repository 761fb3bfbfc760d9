"""A libwebrtc viewer that reads the clock in the pictures it is given: how old they are when they could be shown.

It offers to a WHEP address, or answers a publisher's own offer as a WHIP endpoint would, with nothing in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import uvicorn
import webrtc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.processes import free_port
from costream.painting import CLOCK_MODULUS, read
from costream.synthetic import allow_loopback, gathered
from costream.whip import Endpoint, Resource
from relay.mix.layout import cells
from relay.stage.layout import Layout

PATIENCE_S = 30.0
_HOST = "host"


class GlassViewer:
    """One slot for sound, one for pictures. `ages` are the milliseconds from painting to showing, picture by picture;
    with `mixed` the host is looked for where a program of one has him."""

    def __init__(self, *, mixed: bool = False) -> None:
        allow_loopback()
        self.ages: list[float] = []
        self.width = 0
        self._mixed = mixed
        self._pc: Any = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(bundle_policy="max-bundle"))
        self._readers: list[asyncio.Task[None]] = []
        self._endpoint: Endpoint | None = None
        self._resource: Resource | None = None

    async def watch(self, whep: str, token: str) -> None:
        """Offer to a WHEP address."""
        receive = webrtc.RTCRtpTransceiverInit(direction="recvonly")
        tracks = [self._pc.add_transceiver(kind, receive).receiver.track for kind in ("audio", "video")]
        await self._pc.set_local_description(await self._pc.create_offer())
        self._endpoint = Endpoint(whep, token)
        self._resource = await self._endpoint.offer(await gathered(self._pc))
        await self._take("answer", self._resource.answer)
        self._read(tracks)

    async def answer(self, offer: str) -> str:
        """Be a publisher's WHIP endpoint."""
        await self._take("offer", offer)
        await self._pc.set_local_description(await self._pc.create_answer())
        self._read([each.receiver.track for each in self._pc.get_transceivers()])
        return await gathered(self._pc)

    async def begun(self) -> None:
        """Wait for the first picture. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.ages:
                self._alive()
                await asyncio.sleep(0.02)

    async def measured(self, seconds: float) -> list[float]:
        """The ages over some seconds. Raises RuntimeError when hardly any pictures come."""
        since = len(self.ages)
        await asyncio.sleep(seconds)
        self._alive()
        found = self.ages[since:]
        if len(found) < seconds * 10:
            raise RuntimeError(f"only {len(found)} pictures could be read in {seconds:g} s")
        return found

    async def waits(self) -> tuple[float, float]:
        """Mean milliseconds of a picture in this viewer's jitter buffer and in its decoder, since the beginning."""
        for entry in (await self._pc.get_stats()).values():
            told = vars(entry)
            if str(told.get("type")) == "inbound-rtp" and told.get("kind") == "video" and told.get("frames_decoded"):
                buffered = float(told["jitter_buffer_delay"]) / int(told["jitter_buffer_emitted_count"])
                return buffered * 1e3, float(told["total_decode_time"]) / int(told["frames_decoded"]) * 1e3
        raise RuntimeError("no pictures were decoded")

    async def close(self) -> None:
        """Leave. Once."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._endpoint is not None:
            if self._resource is not None:
                await self._endpoint.delete(self._resource)
            await self._endpoint.close()
        self._pc.close()

    def _alive(self) -> None:
        for reader in self._readers:
            if reader.done():
                reader.result()
                raise RuntimeError("a track has ended")

    async def _take(self, kind: str, sdp: str) -> None:
        await self._pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type=kind, sdp=sdp))

    def _read(self, tracks: list[Any]) -> None:
        self._readers = [asyncio.create_task(self._follow(track)) for track in tracks]

    async def _follow(self, track: Any) -> None:
        """Sound is taken, too: pictures wait for it, as for anybody who watches."""
        init = webrtc.MediaStreamTrackProcessorInit(track=track, max_buffer_size=4)
        async for media in webrtc.MediaStreamTrackProcessor(init).readable:
            with media:
                if str(track.kind) == "video":
                    self._picture(media)

    def _picture(self, frame: Any) -> None:
        now_ms = time.monotonic_ns() / 1e6
        width, height = frame.coded_width, frame.coded_height
        data = bytearray(frame.allocation_size())
        frame.copy_to(data).result()
        luma = np.frombuffer(data, np.uint8, width * height).reshape(height, width)
        told = read(luma, place(width, height) if self._mixed else (0.0, 0.0, 1.0, 1.0))
        if told is not None:
            self.width = width
            self.ages.append((now_ms - told.clock_ms) % CLOCK_MODULUS)


@contextlib.asynccontextmanager
async def answering(viewer: GlassViewer) -> AsyncIterator[str]:
    """Give the address at which the viewer answers a publisher."""
    port = free_port()

    async def whip(request: Request) -> Response:
        answer = await viewer.answer((await request.body()).decode())
        return Response(answer, 201, {"Location": "/session"}, "application/sdp")

    app = Starlette(routes=[Route("/whip", whip, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        yield f"http://127.0.0.1:{port}/whip"
    finally:
        server.should_exit = True
        await task


def place(width: int, height: int) -> tuple[float, float, float, float]:
    """Where a program has its only input, in shares of the picture."""
    (cell,) = cells(Layout(), (_HOST,), width, height)
    box = cell.box
    return box.x / width, box.y / height, box.width / width, box.height / height

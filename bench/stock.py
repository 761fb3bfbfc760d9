"""The peer that the relay is measured beside: a WHIP and WHEP endpoint of stock aiortc parts and `MediaRelay`.

`python -m bench.stock PORT [--idle]` serves `/whip/{room}`, `/whep/{room}` and `/` (ready) on loopback. A viewer's
m-lines are filled with the tracks of the publisher who came last; with `--idle` by tracks that never give a frame.
"""

from __future__ import annotations

import argparse
import asyncio

import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Silent(MediaStreamTrack):  # type: ignore[misc]
    """A track that never gives a frame."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> None:
        await asyncio.Event().wait()


class Stock:
    """All sessions of the endpoint."""

    def __init__(self, *, idle: bool) -> None:
        self._idle = idle
        self._relay = MediaRelay()
        self._live: dict[str, MediaStreamTrack] = {}
        self._drains: set[asyncio.Task[None]] = set()
        self._sessions: set[RTCPeerConnection] = set()

    async def whip(self, request: Request) -> Response:
        """Receive what is offered; a subscriber of our own keeps it flowing while nobody watches."""
        connection = self._connection()

        @connection.on("track")  # type: ignore[untyped-decorator]
        def on_track(track: MediaStreamTrack) -> None:
            self._live[track.kind] = track
            task = asyncio.create_task(_drain(self._relay.subscribe(track)))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)

        return await self._answer(connection, request)

    async def whep(self, request: Request) -> Response:
        """Send into every m-line."""
        connection = self._connection()
        offer = (await request.body()).decode()
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for transceiver in connection.getTransceivers():
            live = self._live.get(transceiver.kind)
            track = Silent(transceiver.kind) if self._idle or live is None else self._relay.subscribe(live)
            transceiver.sender.replaceTrack(track)
            transceiver.direction = "sendonly"
        return await self._answer(connection, request, described=True)

    def _connection(self) -> RTCPeerConnection:
        # no STUN servers: gathering would wait for them
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._sessions.add(connection)

        @connection.on("connectionstatechange")  # type: ignore[untyped-decorator]
        async def on_change() -> None:
            if connection.connectionState in ("failed", "closed"):
                self._sessions.discard(connection)
                await connection.close()

        return connection

    async def _answer(self, connection: RTCPeerConnection, request: Request, *, described: bool = False) -> Response:
        if not described:
            await connection.setRemoteDescription(RTCSessionDescription((await request.body()).decode(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        headers = {"Location": f"/session/{id(connection)}"}
        return Response(connection.localDescription.sdp, 201, headers, "application/sdp")


async def _drain(track: MediaStreamTrack) -> None:
    try:
        while True:
            await track.recv()
    except MediaStreamError:
        return


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m bench.stock", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--idle", action="store_true")
    options = parser.parse_args()
    endpoint = Stock(idle=options.idle)

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready")

    async def deleted(_: Request) -> Response:
        return Response(status_code=200)  # sessions end with their DTLS

    routes = [
        Route("/whip/{room}", endpoint.whip, methods=["POST"]),
        Route("/whep/{room}", endpoint.whep, methods=["POST"]),
        Route("/session/{number:int}", deleted, methods=["DELETE"]),
        Route("/", ready),
    ]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="error", lifespan="off", loop="uvloop")


if __name__ == "__main__":
    main()

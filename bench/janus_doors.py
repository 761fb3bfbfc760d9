"""How the same clients get into our relay (WHIP, WHEP) and into Janus (its REST API), and out again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

import httpx2
import webrtc

from bench.janus_client import Session
from bench.janus_server import janus, own_address, whip_door
from bench.join import Join, Viewer, entered_relay, join_relay
from bench.lossy import LossyPath
from bench.peer import Peer
from bench.processes import Server, publisher, publishing, relay
from relay.edge.dtls import Certificate

OFFERED, DECIDED = "Janus's offer", "the client's answer"
"""Parts of joining Janus. Between them lies work of the client, which WHEP's does before its first request."""
_TRACK_S = 10.0


class Doors(Protocol):
    """A server and how to get in. Peers that it made are closed, and their sessions ended, by `leave`."""

    server: Server

    async def publish(self) -> Peer:
        """A light peer that publishes sound (m-line 0) and pictures (1)."""

    async def watch(self) -> Peer:
        """A light peer that gets both."""

    async def leave(self) -> None: ...

    def host(self, core: int) -> contextlib.AbstractAsyncContextManager[object]:
        """A libwebrtc publisher of a picture and a tone, in a process of its own."""

    async def picture(self) -> Join:
        """A libwebrtc viewer, from its first request to its first picture, and out again."""

    def entered(self, viewer: Viewer, path: LossyPath | None = None) -> contextlib.AbstractAsyncContextManager[Any]:
        """A libwebrtc viewer who is in, perhaps by a path of its own; gives the track of its pictures."""


class RelayDoors:
    """Ours, as `costream dev` starts it, with the native plane."""

    def __init__(self, server: Server, client: httpx2.AsyncClient) -> None:
        self.server = server
        self._client, self._certificate = client, Certificate.make()
        self._peers: list[Peer] = []
        self._count = 0

    async def publish(self) -> Peer:
        peer = self._peer(publish=True)
        await peer.connect(self._client, self.server.whip, "host", "guest")
        return peer

    async def watch(self) -> Peer:
        peer = self._peer()
        await peer.connect(self._client, self.server.whep, self._name())
        return peer

    async def leave(self) -> None:
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.close()

    def host(self, core: int) -> contextlib.AbstractAsyncContextManager[object]:
        return publisher(self.server, core)

    async def picture(self) -> Join:
        return await join_relay(self.server, self._name())

    def entered(self, viewer: Viewer, path: LossyPath | None = None) -> contextlib.AbstractAsyncContextManager[Any]:
        return entered_relay(self.server, self._name(), viewer, path.through if path else str)

    def _peer(self, *, publish: bool = False) -> Peer:
        self._peers.append(Peer(self._certificate, "av", publish=publish, address=own_address()))
        return self._peers[-1]

    def _name(self) -> str:
        self._count += 1
        return f"viewer{self._count}"


class JanusDoors:
    """Janus's videoroom plugin. A viewer's first request is that for a session; the third gives it an offer."""

    def __init__(self, server: Server, client: httpx2.AsyncClient) -> None:
        self.server = server
        self._client, self._certificate = client, Certificate.make()
        self._peers: list[Peer] = []
        self._sessions: list[Session] = []

    async def publish(self) -> Peer:
        peer, begin = self._peer(publish=True), time.perf_counter()
        session = await self._session()
        answer = await session.publish(peer.offer())
        peer.times["answer"] = time.perf_counter() - begin
        await peer.establish(answer, begin)
        return peer

    async def watch(self) -> Peer:
        peer, begin = self._peer(), time.perf_counter()
        session = await self._session()
        offer = await session.watch()
        await session.start(peer.answer(offer))
        peer.times["answer"] = time.perf_counter() - begin
        await peer.establish(offer, begin)
        return peer

    async def leave(self) -> None:
        peers, self._peers = self._peers, []
        sessions, self._sessions = self._sessions, []
        for session in reversed(sessions):  # the publisher last: it would tell all viewers
            await session.close()
        for peer in peers:
            peer.close()

    @contextlib.asynccontextmanager
    async def host(self, core: int) -> AsyncIterator[object]:
        async with whip_door(self.server, core) as door, publishing(door.whip, "", core) as child:
            yield child

    async def picture(self) -> Join:
        viewer = Viewer()
        async with self.entered(viewer) as track:
            return await viewer.picture(track)

    @contextlib.asynccontextmanager
    async def entered(self, viewer: Viewer, path: LossyPath | None = None) -> AsyncIterator[Any]:
        track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        viewer.pc.on("track", lambda event: track.set_result(event.track) if event.track.kind == "video" else None)
        trickled: list[asyncio.Task[None]] = []
        viewer.begin()
        session = await Session.open(self._client, self.server.base)

        def trickle(event: Any) -> None:
            candidate = event.candidate.to_json() if event.candidate else None
            if path is not None and candidate is not None:
                candidate = {"candidate": path.candidate, "sdpMid": "0", "sdpMLineIndex": 0}
            trickled.append(asyncio.create_task(session.trickle(candidate)))

        viewer.pc.on("icecandidate", trickle)
        try:
            sdp = await session.watch()
            viewer.over(OFFERED)
            offer = webrtc.RTCSessionDescriptionInit(type="offer", sdp=path.through(sdp) if path else sdp)
            await viewer.pc.set_remote_description(offer)
            await viewer.pc.set_local_description(await viewer.pc.create_answer())
            viewer.over(DECIDED)
            await session.start(str(viewer.pc.local_description.sdp), trickle=True)
            viewer.over("POST answered")
            yield await asyncio.wait_for(track, _TRACK_S)
        finally:
            await asyncio.gather(*trickled, return_exceptions=True)
            await session.close()
            viewer.pc.close()

    async def _session(self) -> Session:
        self._sessions.append(await Session.open(self._client, self.server.base))
        return self._sessions[-1]

    def _peer(self, *, publish: bool = False) -> Peer:
        self._peers.append(Peer(self._certificate, "av", publish=publish, address=own_address()))
        return self._peers[-1]


@contextlib.asynccontextmanager
async def relay_doors(core: int) -> AsyncIterator[Doors]:
    async with relay(core, plane="native") as server, _client() as client:
        doors = RelayDoors(server, client)
        try:
            yield doors
        finally:
            await doors.leave()


@contextlib.asynccontextmanager
async def janus_doors(core: int, event_loops: int = 0) -> AsyncIterator[Doors]:
    async with janus(core, event_loops=event_loops) as server, _client() as client:
        doors = JanusDoors(server, client)
        try:
            yield doors
        finally:
            with contextlib.suppress(httpx2.HTTPError, RuntimeError):  # it may be why we end
                await doors.leave()


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(trust_env=False, timeout=20)

"""Lip sync through the program: how far apart a host's flash and beep of one instant come out.

Host and viewer are aiortc. When something is seen or heard is told by the sync ids that the relay says of the viewer's
slots, and the RTP timestamps of what he decodes. A flash waits for the program's next picture, and sound for half a
picture's time: so much to either side is in the nature of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
from collections.abc import AsyncIterator

import httpx2

from bench.aiortc_peer import Peer
from bench.clapping import PERIOD_S, Clapper, Line, apart_ms, beeps, flashes
from bench.plan import Plan
from bench.processes import Server, hurried
from bench.report import Figure, figure
from bench.rooms import PATIENCE_S, Room
from costream.whip import Endpoint
from drills.session_events import session_of
from relay.ports import Answer, Offer
from signaling.tokens import Role

COMMAND = "make bench-mix"
SETTLE_S = 4.0
"""The sound's jitter buffer forgets within it how packets came in the beginning."""
LATE_S = 0.12
"""Pictures that leave the host so much later than his sound of the same instant: only his sender reports tell."""
FOLLOW_S = 8.0
"""Reports come within a second and a half, and 120 ms are made up for in three."""
PIECE_S = 3.0
PIECES = 2
FPS = 30
SMALL = {"width": 320, "height": 180}


class HttpDoors:
    """A room's WHIP and WHEP addresses, for `aiortc_peer.Peer`."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def publish(self, offer: Offer) -> Answer:
        return await self._ask(self._room.whip, offer, "guest")

    async def watch(self, offer: Offer) -> Answer:
        return await self._ask(f"{self._room.whep}?play=program", offer, "viewer")

    async def _ask(self, url: str, offer: Offer, role: Role) -> Answer:
        async with Endpoint(url, self._room.token(offer.identity, role)) as endpoint:
            resource = await endpoint.offer(offer.sdp)
        return Answer(session_of(resource), resource.answer, resource.etag)


async def measure(plan: Plan, server: Server) -> list[Figure]:
    """Each run is a room of its own, with another phase between the host's pictures and the program's."""
    runs = [await _run(server) for _ in range(plan.runs)]
    late = [[abs(each) for each in await _run(server, LATE_S)] for _ in range(plan.runs)]
    found = [[abs(each) for each in run] for run in runs]
    name = "lip sync through the program"
    reported = f"{name}, pictures {LATE_S * 1000:.0f} ms late by sender reports alone"
    return [
        figure(f"{name}, picture after sound, p50", [statistics.median(run) for run in runs], "ms", command=COMMAND),
        figure(f"{name}, apart, p50", [statistics.median(run) for run in found], "ms", goal="<= 20", command=COMMAND),
        figure(f"{name}, apart, max", [max(run) for run in found], "ms", goal="<= 20", command=COMMAND),
        figure(f"{reported}, p50", [statistics.median(run) for run in late], "ms", goal="<= 20", command=COMMAND),
    ]


async def _run(server: Server, late_s: float = 0.0) -> list[float]:
    async with Room.opened(server) as room:
        doors = HttpDoors(room)
        host, viewer = Peer(doors, "host", "guest", room.id), Peer(doors, "viewer", "viewer", room.id)
        try:
            await host.publish_tracks(*Clapper(FPS).tracks)
            host.delay_pictures(late_s)
            await room.until("publications", lambda told: len(told["publications"]) >= 2)
            await room.program(**SMALL)
            await viewer.watch()
            async with _lines(room, viewer.session) as lines:
                with hurried(os.getpid(), server.pid):
                    await asyncio.sleep(FOLLOW_S if late_s else 0.0)
                    return await _apart(viewer, lines)
        finally:
            await viewer.close()
            await host.close()


async def _apart(viewer: Peer, lines: dict[int, Line]) -> list[float]:
    """Look piece by piece, as pictures are large. Raises RuntimeError when hardly any claps come."""
    seen, apart = viewer.watched, list[float]()
    await asyncio.sleep(SETTLE_S)
    seen.pictures.clear()
    for _ in range(PIECES):
        await asyncio.sleep(PIECE_S)
        pictures = list(seen.pictures)
        del seen.pictures[: len(pictures) - 1]
        seen_at = [lines[90_000].microseconds(pts + viewer.origin()) for pts in flashes(pictures)]
        heard = beeps(seen.sound, seen.sound_end)
        heard_at = [lines[48_000].microseconds(pts + viewer.origin("audio")) for pts in heard]
        apart += apart_ms(seen_at, heard_at)
    if len(apart) < PIECES * PIECE_S / PERIOD_S / 2:
        raise RuntimeError(f"only {len(apart)} flashes came with their beeps in {PIECES * PIECE_S:g} s")
    return apart


@contextlib.asynccontextmanager
async def _lines(room: Room, session: str) -> AsyncIterator[dict[int, Line]]:
    """What the relay says of the session's slots, by their clocks' rates."""
    lines = {90_000: Line(), 48_000: Line()}
    headers = {"Authorization": f"Bearer {room.token('viewer', 'viewer')}"}

    async def follow() -> None:
        url = f"{room.base}/v1/sessions/{session}/events"
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=PATIENCE_S, headers=headers) as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if event["type"] == "slot.timeline":
                        lines[event["data"]["clock_hz"]].told(event["data"])

    follower = asyncio.create_task(follow())
    try:
        yield lines
    finally:
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower

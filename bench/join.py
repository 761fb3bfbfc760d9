"""WHEP POST to first decoded frame with a real libwebrtc client, and where that time goes.

Viewers join one after the other at random distances, so that the coalescing of keyframe requests is met as in life.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import webrtc

from bench.plan import Plan
from bench.processes import Server, publisher, relay, stock, token
from bench.report import Figure, figure, percentile
from costream.synthetic import allow_loopback, gathered
from costream.whip import Endpoint, Resource
from relay.plane import native_missing

GAPS_S = (0.1, 0.9)
JOINS = 20
STOCK_JOINS = 12
QUICK_JOINS = 4
NATIVE_JOINS = 8
FIRST_FRAME_S = 10.0
PARTS = ("POST answered", "ICE connected", "DTLS connected", "first packet", "first frame decoded")


@dataclass
class Join:
    """Seconds since the POST at which each of PARTS was over."""

    at: dict[str, float] = field(default_factory=dict)

    def since_previous(self, part: str) -> float:
        index = PARTS.index(part)
        return self.at[part] - (self.at[PARTS[index - 1]] if index else 0.0)


async def measure(plan: Plan) -> list[Figure]:
    """Join the relay and stock aiortc, each with one publisher."""
    count, stock_count = (QUICK_JOINS, QUICK_JOINS) if plan.quick else (JOINS, STOCK_JOINS)
    allow_loopback()
    ours, theirs = [], []
    for run in range(plan.runs):
        async with relay(plan.test) as server, publisher(server, plan.load):
            ours.append(await _joins(server, count, run, plan.settle_s))
        async with stock(plan.test) as server, publisher(server, plan.load):
            theirs.append(await _joins(server, stock_count, run, plan.settle_s))
    rows = [("p50", 0.5, ""), ("p99", 0.99, "<= 300")]
    figures = [
        figure(
            f"WHEP POST to first decoded frame, {label}",
            [percentile([join.at[PARTS[-1]] for join in joins], share) * 1e3 for joins in ours],
            "ms",
            goal=goal,
            beside="stock aiortc WHEP endpoint",
            beside_values=[percentile([join.at[PARTS[-1]] for join in joins], share) * 1e3 for joins in theirs],
        )
        for label, share, goal in rows
    ]
    figures += [
        figure(
            f"of it, until {part} (median; p99 {_worst(ours, part):.0f})",
            [statistics.median(join.since_previous(part) for join in joins) * 1e3 for joins in ours],
            "ms",
            beside="stock aiortc WHEP endpoint",
            beside_values=[statistics.median(join.since_previous(part) for join in joins) * 1e3 for joins in theirs],
        )
        for part in PARTS
    ]
    return figures if native_missing() else [*figures, await _native(plan)]


async def _native(plan: Plan) -> Figure:
    """The same with the native plane: one short run, as joining is Python's work with either."""
    count = QUICK_JOINS if plan.quick else NATIVE_JOINS
    async with relay(plan.test, plane="native") as server, publisher(server, plan.load):
        joins = await _joins(server, count, 0, plan.settle_s)
    values = [join.at[PARTS[-1]] * 1e3 for join in joins]
    return figure(f"with the native plane, p50 of {count}", [percentile(values, 0.5)], "ms")


def _worst(runs: list[list[Join]], part: str) -> float:
    return percentile([join.since_previous(part) for joins in runs for join in joins], 0.99) * 1e3


async def _joins(server: Server, count: int, seed: int, settle_s: float) -> list[Join]:
    gaps = random.Random(seed)
    await asyncio.sleep(settle_s)
    # the first viewer of a process also pays for its imports and for what is made once
    await join_relay(server, f"first{seed}")
    joins = []
    for number in range(count):
        await asyncio.sleep(gaps.uniform(*GAPS_S))
        joins.append(await join_relay(server, f"viewer{seed}-{number}"))
        server.alive()
    return joins


async def join_relay(server: Server, identity: str) -> Join:
    """One viewer from its offer to its first picture, and out again."""
    viewer = Viewer()
    async with entered_relay(server, identity, viewer) as track:
        return await viewer.picture(track)


@contextlib.asynccontextmanager
async def entered_relay(
    server: Server, identity: str, viewer: Viewer, through: Callable[[str], str] = str
) -> AsyncIterator[Any]:
    """Yields the track of pictures that a viewer gets by WHEP until then; `through` may change the answer."""
    pc = viewer.pc
    resource: Resource | None = None
    async with Endpoint(server.whep, token(identity, "viewer")) as endpoint:
        try:
            receive = webrtc.RTCRtpTransceiverInit(direction="recvonly")
            pc.add_transceiver("audio", receive)
            track = pc.add_transceiver("video", receive).receiver.track
            await pc.set_local_description(await pc.create_offer())
            offer = await gathered(pc)
            viewer.begin()
            resource = await endpoint.offer(offer)
            viewer.over("POST answered")
            answer = webrtc.RTCSessionDescriptionInit(type="answer", sdp=through(resource.answer))
            await pc.set_remote_description(answer)
            yield track
        finally:
            if resource is not None:
                await endpoint.delete(resource)
            pc.close()


class Viewer:
    """A libwebrtc client on its way to its first picture. Its `pc` is the caller's to close."""

    def __init__(self) -> None:
        self.pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(bundle_policy="max-bundle"))
        self._join, self._begin = Join(), 0.0
        self._ice, self._dtls = asyncio.Event(), asyncio.Event()
        self.pc.on("iceconnectionstatechange", self._changed)
        self.pc.on("connectionstatechange", self._changed)

    def begin(self) -> None:
        """From now on times count."""
        self._begin = time.monotonic()

    def over(self, part: str) -> None:
        """Note when a part was over for the first time."""
        self._join.at.setdefault(part, time.monotonic() - self._begin)

    async def picture(self, track: Any) -> Join:
        """Wait for the first picture. Raises TimeoutError."""
        async with asyncio.timeout(FIRST_FRAME_S):
            await _first_frame(track)
            self.over(PARTS[-1])
            await self._ice.wait()
            await self._dtls.wait()
        at = self._join.at
        # a mean over few frames may reach back too far
        at["first packet"] = max(at[PARTS[-1]] - await _decoding(self.pc), at["DTLS connected"])
        return self._join

    def _changed(self, _: object) -> None:
        if str(self.pc.ice_connection_state) in ("connected", "completed"):
            self.over("ICE connected")
            self._ice.set()
        if str(self.pc.connection_state) == "connected":
            self.over("DTLS connected")
            self._dtls.set()


async def _first_frame(track: Any) -> None:
    init = webrtc.MediaStreamTrackProcessorInit(track=track, max_buffer_size=4)
    async for picture in webrtc.MediaStreamTrackProcessor(init).readable:
        with contextlib.closing(picture):
            return


async def _decoding(pc: Any) -> float:
    """Seconds from a frame's first packet to its decoded picture, mean of the few frames so far."""
    for entry in (await pc.get_stats()).values():
        values = vars(entry)
        if str(values.get("type")) == "inbound-rtp" and values.get("kind") == "video" and values.get("frames_decoded"):
            return float(values["total_processing_delay"]) / int(values["frames_decoded"])
    return 0.0

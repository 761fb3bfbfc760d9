"""How many packets libwebrtc's pacer gives at once at 720p: what a plane that sends with GSO could join per flush.

Measured at a viewer of the relay by the kernel's time of arrival. Information for the native plane; no goal.
"""

from __future__ import annotations

import asyncio
import statistics
from itertools import groupby

import httpx2

from bench.peer import Peer
from bench.plan import Plan
from bench.processes import publisher, relay
from bench.report import Figure, figure, percentile
from bench.stamps import Arrival
from relay.edge.dtls import Certificate

VIDEO_TYPE = 96  # what `peer` offers
FLUSH_NS = 1_000_000  # a native plane would flush every 1 to 2 ms under load
RAMP_S = 8.0  # libwebrtc starts at 300 kbit/s and ramps up on transport-cc


async def measure(plan: Plan) -> list[Figure]:
    """Watch one 720p publisher."""
    seconds = 2.0 if plan.quick else 6.0
    async with (
        relay(plan.test) as server,
        publisher(server, plan.load, 1280, 720) as host,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        viewer = Peer(Certificate.make(), "v")
        await viewer.connect(client, server.whep, "viewer")
        viewer.record()
        await asyncio.sleep(4.0 if plan.quick else RAMP_S)
        host.alive()
        viewer.arrivals.clear()
        await asyncio.sleep(seconds)
        packets = [each for each in viewer.arrivals if each.is_media and each.payload_type == VIDEO_TYPE]
        viewer.close()
    if not packets:
        raise RuntimeError(f"no video came\n{server.tail()}\n{host.tail()}")
    frames = [len(list(group)) for _, group in groupby(packets, lambda each: each.timestamp)]
    flushes = flush_sizes(packets, FLUSH_NS)
    rate = sum(len(each.datagram) for each in packets) * 8 / seconds / 1e6
    joined = sum(size for size in flushes if size >= 4) / len(packets)
    rows = [
        ("video bitrate", rate, "Mbit/s"),
        ("packets per frame, mean", statistics.fmean(frames), "packets"),
        ("packets per frame, p99", percentile(frames, 0.99), "packets"),
        ("packets per 1 ms flush, mean", statistics.fmean(flushes), "packets"),
        ("packets per 1 ms flush, p99", percentile(flushes, 0.99), "packets"),
        ("share of packets in flushes of 4 or more", joined * 100, "%"),
    ]
    return [figure(f"libwebrtc 1280x720: {name}", [value], unit) for name, value, unit in rows]


def flush_sizes(packets: list[Arrival], window_ns: int) -> list[int]:
    """How many packets each flush would carry if one happened `window_ns` after the first packet that waits."""
    sizes: list[int] = []
    opened = -window_ns
    for packet in packets:
        if packet.at - opened >= window_ns:
            sizes.append(0)
            opened = packet.at
        sizes[-1] += 1
    return sizes

"""How a Chromium publisher's 720p leaves the native relay for a viewer: packets per frame, and of what sizes.

Measured at one viewer by the kernel's time of arrival. What segmentation offload can join is counted by the plane's own
rule: one message takes packets of one size, and at its end a shorter one. Beside it is what that rule would give if all
packets of a frame but the last were padded to a multiple of 8 or 16 bytes. Needs playwright and a Chromium.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from itertools import groupby

import httpx2

from bench.burst import FLUSH_NS, VIDEO_TYPE, flush_sizes
from bench.peer import Peer
from bench.plan import Plan
from bench.processes import relay, token
from bench.report import Figure, figure, percentile
from bench.stamps import Arrival
from relay.edge.dtls import Certificate

SHAPE = {"width": 1280, "height": 720, "fps": 30}
RAMP_S = 12.0  # libwebrtc starts at 300 kbit/s and ramps up on transport-cc
STEPS = (8, 16)  # bytes
_MARKER = 0x80


async def measure(plan: Plan) -> list[Figure]:
    """Watch one publisher of VP8."""
    try:
        from tests.interop.clients.chromium import launched
    except ImportError as error:
        return [figure(f"no Chromium here ({error}): its figures are left out", [0], "")]
    seconds = 3.0 if plan.quick else 8.0
    async with (
        relay(plan.test, plane="auto") as server,
        launched() as browser,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        tab = await browser.tab(server.base, bypass_csp=True)
        await tab.publish(server.whip, token("h1", "guest"), publisher=1, codec="VP8", tone=440, **SHAPE)
        viewer = Peer(Certificate.make(), "v")
        await viewer.connect(client, server.whep, "viewer")
        viewer.record()
        for _ in range(round(6 if plan.quick else RAMP_S)):
            viewer.keep_alive()
            await asyncio.sleep(1)
        viewer.arrivals.clear()
        await asyncio.sleep(seconds)
        packets = [each for each in viewer.arrivals if each.is_media and each.payload_type == VIDEO_TYPE]
        viewer.close()
    if not packets:
        raise RuntimeError(f"no video came\n{server.tail()}")
    return figures(packets, seconds)


def figures(packets: Sequence[Arrival], seconds: float) -> list[Figure]:
    """What the packets say."""
    frames = [list(group) for _, group in groupby(packets, lambda each: each.timestamp)]
    sizes = [len(frame) for frame in frames]
    flushes = flush_sizes(list(packets), FLUSH_NS)
    rows = [
        ("video bitrate", sum(len(each.datagram) for each in packets) * 8 / seconds / 1e6, "Mbit/s"),
        ("packets per frame, mean", statistics.fmean(sizes), "packets"),
        ("packets per frame, p99", percentile(sizes, 0.99), "packets"),
        ("packets that come within 1 ms, mean", statistics.fmean(flushes), "packets"),
        ("packets per frame of one size", _same_size(frames), "%"),
        ("packets per message, as they are", _joined(packets, flushes, _as_it_is), "packets"),
    ]
    for step in STEPS:
        rows.append((f"packets per message, padded to {step}", _joined(packets, flushes, _padded(step)), "packets"))
        rows.append((f"bytes that takes, padded to {step}", _cost(packets, step), "%"))
    return [figure(f"Chromium 1280x720 VP8: {name}", [value], unit) for name, value, unit in rows]


def _same_size(frames: Sequence[Sequence[Arrival]]) -> float:
    """The share of packets whose size is that of most in their frame, of frames with several."""
    several = [[len(each.datagram) for each in frame] for frame in frames if len(frame) > 1]
    return 100 * sum(lengths.count(statistics.mode(lengths)) for lengths in several) / max(1, sum(map(len, several)))


def _as_it_is(packet: Arrival) -> int:
    return len(packet.datagram)


def _padded(step: int) -> Callable[[Arrival], int]:
    def size(packet: Arrival) -> int:
        length = len(packet.datagram)
        return length if packet.datagram[1] & _MARKER else -(-length // step) * step

    return size


def _cost(packets: Sequence[Arrival], step: int) -> float:
    before, after = sum(map(_as_it_is, packets)), sum(map(_padded(step), packets))
    return 100 * (after / before - 1)


def _joined(packets: Sequence[Arrival], flushes: Sequence[int], size_of: Callable[[Arrival], int]) -> float:
    """Packets per message when each flush is joined where sizes allow: see `rust/src/io/plan.rs`."""
    messages, at = 0, 0
    for count in flushes:
        size = 0  # of the message that is open, 0 when none is
        for packet in packets[at : at + count]:
            length = size_of(packet)
            if not size or length > size:
                messages, size = messages + 1, length
            elif length < size:
                size = 0  # the shorter one ends it
        at += count
    return len(packets) / messages

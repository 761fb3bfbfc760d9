"""Latency that the relay adds: one publisher, ten viewers, real SRTP, against a bare forwarding loop in asyncio.

The publisher stamps each packet's payload just before `sendto`; the viewers note the kernel's time of arrival. Both
are in one other process on the other core. All three run at real-time priority where that is allowed, and the last
row tells what waiting was left. The pattern is what `bench.burst` shows libwebrtc to send at 1.4 Mbit/s:
30 frames a second of about five packets, each frame at once, a keyframe in bursts; and 50 audio packets a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2
import uvloop

from bench.peer import VIDEO_SSRC, Peer
from bench.plan import Plan
from bench.processes import Child, free_port, going_first, relay, started
from bench.report import Figure, figure, percentile
from bench.stamps import Arrival, read_all, stamp
from relay.edge.dtls import Certificate
from relay.plane.reference import rtp

VIEWERS = 10
FPS = 30
PAYLOAD = 1050  # bytes: what libwebrtc leaves room for beside header extensions
FRAME_SIZES = (3, 4, 4, 5, 5, 5, 5, 6, 6, 10)  # packets
KEYFRAME_EVERY = 90  # frames
KEYFRAME_BURSTS = 3  # of ten packets, 10 ms apart
WARM_UP_S = 2.0
MAGIC = b"bench-stamp"
_KEY = b"\x10\x00\x00\x00\x9d\x01\x2a\x80\x02\x68\x01"  # VP8: start of a partition, keyframe of 640x360 (RFC 7741 4)
_DELTA = b"\x10\x01\x00\x00"
_MORE = b"\x00"


class Pattern:
    """Sends the pattern through `send`, which takes whole RTP packets with their stamp as the last bytes."""

    def __init__(self, send: Callable[[bytes], None], seed: int) -> None:
        self._send = send
        self._random = random.Random(seed)
        self._seq = [0, 0]
        self._begin = [0, 0]
        """RTP time at which the next run begins, of sound and pictures."""

    async def run(self, seconds: float) -> None:
        """Send for so long, in time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._video(round(seconds * FPS)))
            group.create_task(self._audio(round(seconds * 50)))
        self._begin = [self._begin[0] + round(seconds * 48_000), self._begin[1] + round(seconds * 90_000)]

    async def _video(self, frames: int) -> None:
        begin = time.monotonic()
        for frame in range(frames):
            await asyncio.sleep(begin + frame / FPS - time.monotonic())
            key = frame % KEYFRAME_EVERY == 0
            bursts = [10] * KEYFRAME_BURSTS if key else [self._random.choice(FRAME_SIZES)]
            left = sum(bursts)
            for number, burst in enumerate(bursts):
                if number:
                    await asyncio.sleep(0.01)
                for _ in range(burst):
                    left -= 1
                    head = _MORE if left < sum(bursts) - 1 else _KEY if key else _DELTA
                    self._packet(1, 96, left == 0, frame * 90_000 // FPS, head, PAYLOAD)

    async def _audio(self, packets: int) -> None:
        begin = time.monotonic()
        for number in range(packets):
            await asyncio.sleep(begin + number / 50 - time.monotonic())
            self._packet(0, 111, False, number * 960, b"\x78", 80)

    def _packet(self, mid: int, kind: int, marker: bool, timestamp: int, head: bytes, size: int) -> None:
        seq = self._seq[mid] = (self._seq[mid] + 1) & 0xFFFF
        timestamp = (self._begin[mid] + timestamp) & 0xFFFFFFFF
        header = rtp.build_header(kind, marker, seq, timestamp, VIDEO_SSRC + mid, ((1, str(mid).encode()),))
        body = head + bytes(size - len(head) - len(MAGIC) - 8) + MAGIC
        self._send(header + body + time.time_ns().to_bytes(8, "big"))


def delays(arrivals: Sequence[Arrival], opened: Callable[[bytes], bytes | None]) -> list[float]:
    """Milliseconds from stamp to arrival of each packet that `opened` lets through and that carries a stamp."""
    found = []
    for arrival in arrivals:
        packet = opened(arrival.datagram) if arrival.is_media else None
        if packet is not None and packet[0] & 0x20:  # the native plane pads, so that a frame's packets have one size
            packet = packet[: -packet[-1]]
        if packet is not None and packet[-8 - len(MAGIC) : -8] == MAGIC:
            found.append((arrival.at - int.from_bytes(packet[-8:], "big")) / 1e6)
    return found


async def measure(plan: Plan) -> list[Figure]:
    """Run relay and bare loop in turns."""
    seconds = 2.0 if plan.quick else 5.0
    through: list[list[float]] = []
    bare: list[list[float]] = []
    waits: list[list[float]] = [[], []]
    async with relay(plan.test, urgent=True) as server, _bare_loop(plan.test) as (loop_process, port):
        with going_first():
            for run in range(plan.runs):
                before = server.waited()
                through.append(await _relay_run(server.whip, server.whep, seconds, run))
                waits[0].append((server.waited() - before) / (seconds + WARM_UP_S) * 1000)
                before = loop_process.waited()
                bare.append(await _bare_run(port, seconds, run))
                waits[1].append((loop_process.waited() - before) / seconds * 1000)
    beside = "bare asyncio UDP forwarding loop"
    figures = [
        figure(
            f"added latency at 1x{VIEWERS}, {label}",
            [percentile(values, share) for values in through],
            "ms",
            goal=goal,
            beside=beside,
            beside_values=[percentile(values, share) for values in bare],
        )
        for label, share, goal in (("p50", 0.5, ""), ("p99", 0.99, "<= 5"), ("p99.9", 0.999, ""))
    ]
    name = "of it: waiting while others had the core"
    return [*figures, figure(name, waits[0], "ms per s", beside=beside, beside_values=waits[1])]


async def _relay_run(whip: str, whep: str, seconds: float, run: int) -> list[float]:
    certificate = Certificate.make()
    publisher = Peer(certificate, "av", publish=True)
    viewers = [Peer(certificate, "av") for _ in range(VIEWERS)]
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            await publisher.connect(client, whip, "host", "guest")
            for number, viewer in enumerate(viewers):
                await viewer.connect(client, whep, f"viewer{run}-{number}")
        pattern = Pattern(publisher.send_media, run)
        # the warm-up begins and ends with a whole number of keyframe distances, so every viewer has its picture
        await pattern.run(WARM_UP_S)
        for viewer in viewers:
            viewer.record()
        await pattern.run(seconds)
        await asyncio.sleep(0.3)
        found = [
            value for viewer in viewers if viewer.srtp for value in delays(viewer.arrivals, viewer.srtp.unprotect_rtp)
        ]
    finally:
        for peer in (publisher, *viewers):
            peer.close()
    return _complete(found, seconds)


async def _bare_run(port: int, seconds: float, run: int) -> list[float]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(VIEWERS)]
    arrivals: list[list[Arrival]] = [[] for _ in sockets]
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def send(packet: bytes) -> None:
            sender.send(packet)

        try:
            sender.connect(("127.0.0.1", port))
            sender.send(b"reset")
            for each, into in zip(sockets, arrivals, strict=True):
                each.setblocking(False)
                each.connect(("127.0.0.1", port))
                each.send(b"join")
                stamp(each)
                loop.add_reader(each.fileno(), read_all, each, into)
            await asyncio.sleep(0.2)
            await Pattern(send, run).run(seconds)
            await asyncio.sleep(0.3)
        finally:
            for each in sockets:
                loop.remove_reader(each.fileno())
                each.close()
    return _complete([value for into in arrivals for value in delays(into, lambda packet: packet)], seconds)


def _complete(found: list[float], seconds: float) -> list[float]:
    """Refuse a run in which packets went missing: percentiles of the survivors would flatter."""
    least = VIEWERS * seconds * (FPS * 5 + 50) * 0.95
    if len(found) < least:
        raise RuntimeError(f"only {len(found)} of at least {least:.0f} packets came through")
    return found


# --- the limit: a loop that only forwards ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _bare_loop(core: int) -> AsyncIterator[tuple[Child, int]]:
    """This module as a process that only forwards."""
    port = free_port()
    async with started(["-m", "bench.latency", str(port)], core, urgent=True) as child:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            probe.connect(("127.0.0.1", port))
            for _ in range(100):
                child.alive()
                with contextlib.suppress(OSError):  # refused until it listens
                    probe.send(b"ping")
                    await asyncio.sleep(0.05)
                    if probe.recv(16) == b"pong":
                        break
            else:
                raise RuntimeError(f"the bare loop does not answer\n{child.tail()}")
        yield child, port


class _Forward(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._viewers: list[tuple[str, int]] = []

    def connection_made(self, transport: Any) -> None:
        self._send = transport.sendto

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data == b"join":
            self._viewers.append(addr)
        elif data == b"reset":
            self._viewers.clear()
        elif data == b"ping":
            self._send(b"pong", addr)
        else:
            for viewer in self._viewers:
                self._send(data, viewer)


async def _forward(port: int) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Forward, ("127.0.0.1", port))
    try:
        await asyncio.Event().wait()
    finally:
        transport.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description="The bare loop.")
    parser.add_argument("port", type=int)
    uvloop.run(_forward(parser.parse_args().port))

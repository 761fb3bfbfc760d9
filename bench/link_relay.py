"""What links cost a relay's API: 5,200 packets/s through one link, from this process's plane to another process.

    python -m bench.link_relay relay local|process DIR PORT SECONDS CORE
    python -m bench.link_relay subscribe DIR PORT

The relay serves HTTP in its loop, as nodes do (uvicorn, FastAPI, `GET /v1/links`), and another process asks it fifty
times a second (`ask`). It prints how long the answers took, and the lag of its loop, as one line of JSON. Its packets
come by a ring from yet another one (`push`), so that the loop has no part in that. A link process runs on CORE, where
all but the relay is, too. All run at real-time priority where that is allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI

from bench.processes import free_port, go_first
from bench.report import percentile
from relay.ids import HybridClock
from relay.link import messages
from relay.link.hooks import LayerSource, LinkEvent
from relay.link.quic import identity_of
from relay.links.ends import LinkEnds, LocalEnds, ServingEnd
from relay.links.process import LinkProcess
from relay.links.sources import source_of
from relay.plane import open_plane
from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, PayloadType, PlaneConfig, RemoveTap
from relay.plane.reference import rtp
from relay.plane.shared_ring import SharedRing
from relay.ports import RoomEvent
from relay.settings import LinkSettings, LogSettings
from relay.stage.timeline import Reading, Timeline

TRACKS = 13
RATE = 400  # packets/s of each
SIZE = 1100
EACH_S = 0.0025
KEYFRAME = 2 * RATE  # packets between keyframes
SAMPLE_S = 0.002
ASK_S = 0.02
ASK_FIRST = 10  # before any counts
SETTLE_S = 1.0
PATIENCE_S = 40.0
VP8 = (PayloadType(96, "vp8", 90_000),)
CATALOG = tuple(
    messages.Publication(
        id=f"p{track}", epoch=1, room="r", kind="video", layers=(messages.Layer(),),
        codecs=(messages.Codec(number=96, codec="vp8", clock_hz=90_000),),
    )
    for track in range(1, TRACKS + 1)
)  # fmt: skip


def settings_of(directory: Path, name: str, port: int) -> LinkSettings:
    """A node's, on loopback."""
    host = "127.0.0.1"
    files = (str(directory / file) for file in (f"{name}.pem", f"{name}.key", "ca.pem"))
    certificate, key, authority = files
    return LinkSettings(
        certificate=certificate, key=key, ca=authority, host=host, port=port, primary_host=host, backup_host=host
    )


class Side:
    """A node that is nothing but its links: origin of the tracks, or subscriber to them."""

    server: ServingEnd

    def __init__(self, submit: Callable[..., None]) -> None:
        self.received = 0
        self.taps: dict[int, int] = {}
        self.offered = asyncio.Event()
        self.ring_for: Callable[[int, int], int | None] = lambda flow, tap: None
        self._submit = submit
        self._numbers = itertools.count(1)

    def tapped(self, packets: Sequence[tuple[int, bytes, int]]) -> list[tuple[int, bytes]]:
        flow_of = {tap: flow for flow, tap in self.taps.items()}
        return [(flow_of[tap], packet) for tap, packet, _ in packets if tap in flow_of]

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        tap = self.taps[flow] = next(self._numbers)
        self._submit(AddTap(tap, int(publication[1:]), layer, canonical=True, ring=self.ring_for(flow, tap)))
        return source_of(Kind.VIDEO, VP8, Timeline(VP8[0].clock_hz))

    def untap(self, flow: int) -> None:
        self._submit(RemoveTap(self.taps.pop(flow)))

    def readings(self, flows: Iterable[int] | None = None) -> Sequence[tuple[int, int, Reading]]:
        return ()

    def placed(self, track: int, layer: int, clock_hz: int, reading: Reading | None) -> None: ...

    def forget_taps(self) -> None:
        self.taps.clear()

    def handle_of(self, node: str, publication: str) -> int | None:
        return None

    def admit(self, node: str, publication: messages.Publication) -> str:
        return ""

    def catalog_changed(self, node: str, publications: dict[str, messages.Publication]) -> None:
        self.offered.set()

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        self.received += len(packets)

    def request_keyframe(self, publication: str, layer: int) -> None: ...

    def media_came(self, node: str) -> None: ...

    def watch_room(self, room: str, watched: bool) -> None: ...

    def link_changed(self, event: LinkEvent) -> None: ...

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None: ...

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None: ...

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None: ...

    def goodbye(self, node: str, reason: str, instead: str) -> None: ...


async def relay(mode: str, directory: Path, port: int, seconds: float, core: int) -> dict[str, float]:
    """Measure the loop's lag while the link runs here, or in a process."""
    settings = settings_of(directory, "a", port)
    plane = open_plane("native", PlaneConfig(), "127.0.0.1", 0)
    side = Side(plane.submit)
    ends: LinkEnds
    if mode == "process":
        process = LinkProcess(settings, LogSettings(level="error"), "a", plane, HybridClock(), side, side)
        ends = process
        await process.open()
        assert process.pid is not None
        os.sched_setaffinity(process.pid, {core})
        go_first(process.pid)
        process.set_catalog(CATALOG)
    else:
        identity = identity_of(settings)
        assert identity is not None
        local = LocalEnds(settings, identity, "a", HybridClock(), side)
        plane.on_taps = lambda packets: local.server.feed(side.tapped(packets))
        await local.open()
        ends = local
        local.server.set_catalog(CATALOG)
    plane.start()
    ring = plane.open_inject_ring(slots=8192)
    for track in range(1, TRACKS + 1):
        plane.submit(AddTrack(track, None, Kind.VIDEO, "", VP8, (LayerSpec(),)))
        ring.bind(track, track, 0)
    words = ["-m", "bench.link_relay", "push", ",".join(map(str, ring.fds))]
    pusher = subprocess.Popen([sys.executable, *words], pass_fds=ring.fds)  # noqa: ASYNC220
    ring.passed()
    try:
        os.sched_setaffinity(pusher.pid, {core})
        async with asyncio.timeout(PATIENCE_S):
            while len(side.taps) < TRACKS or ring.counts().packets < TRACKS * RATE:
                await asyncio.sleep(0.05)
        async with _api(ends) as http:
            await asyncio.sleep(SETTLE_S)
            return await _measure(http, seconds, core)
    finally:
        pusher.kill()
        pusher.wait()
        await ends.close()
        plane.close()


@asynccontextmanager
async def _api(ends: LinkEnds) -> AsyncIterator[int]:
    """Serve it in this loop; gives the port."""
    app = FastAPI()

    @app.get("/v1/links")
    async def links() -> dict[str, Any]:
        return {"links": ends.served()}

    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())  # `serve` takes the process's signals
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:
                await asyncio.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        await serving


async def _measure(port: int, seconds: float, core: int) -> dict[str, float]:
    words = ["-m", "bench.link_relay", "ask", str(port), str(seconds)]
    asker = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    os.sched_setaffinity(asker.pid, {core})
    answered = asyncio.create_task(asker.communicate())
    lags: list[float] = []
    try:
        cpu, began = time.process_time(), time.monotonic()
        while not answered.done():
            due = time.monotonic() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            lags.append((time.monotonic() - due) * 1000)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        told: list[float] = json.loads((await answered)[0])
    finally:
        if asker.returncode is None:
            asker.kill()
        await asyncio.gather(answered, return_exceptions=True)
    return {
        "api_p50_ms": percentile(told, 0.5),
        "api_p99_ms": percentile(told, 0.99),
        "p50_ms": percentile(lags, 0.5),
        "p99_ms": percentile(lags, 0.99),
        "cpu": share,
    }


def ask(port: int, seconds: float) -> None:
    """Ask on one connection, at fixed times, and print how many ms each answer took from then on, as JSON.

    From the time at which it was due, so that a late answer is not made up for by fewer questions.
    """
    go_first()
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    took: list[float] = []
    due = time.monotonic()
    for _ in range(ASK_FIRST + int(seconds / ASK_S)):
        connection.request("GET", "/v1/links")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the API answered {answer.status}")
        took.append((time.monotonic() - due) * 1000)
        due = max(due + ASK_S, time.monotonic() - seconds)
        time.sleep(max(0.0, due - time.monotonic()))
    print(json.dumps(took[ASK_FIRST:]))


def push(descriptors: Sequence[int]) -> None:
    """Put the packets of all tracks into a ring, frames of eight, until killed."""
    go_first()
    writer = SharedRing.attach(descriptors).writer()
    sent, due = 0, time.monotonic()
    body = bytes(SIZE - 14)  # after the header of 12 bytes and the descriptor
    while True:
        for _ in range(int(RATE * EACH_S)):
            first, last = sent % 8 == 0, sent % 8 == 7
            start = b"\x10" + (b"\x00" if sent % KEYFRAME == 0 else b"\x01") if first else b"\x00\x00"
            for track in range(1, TRACKS + 1):
                header = rtp.build_header(96, last, sent & 0xFFFF, sent // 8 * 720 & 0xFFFFFFFF, track)
                writer.put(track, time.monotonic_ns() // 1000, header + start + body, more=True)
            sent += 1
        writer.flush()
        due += EACH_S
        time.sleep(max(0.0, due - time.monotonic()))


async def subscribe(directory: Path, port: int) -> None:
    """Take all tracks, and print how many packets came, until killed."""
    settings = settings_of(directory, "b", 0)
    identity = identity_of(settings)
    assert identity is not None
    side = Side(lambda *commands: None)
    ends = LocalEnds(settings, identity, "b", HybridClock(), side)
    await ends.open()
    link = ends.dial("a", (f"127.0.0.1:{port}",), side)
    link.start()
    await side.offered.wait()
    for each in CATALOG:
        link.subscribe(each.id, each.epoch, (0,))
    while True:
        await asyncio.sleep(0.5)
        print(json.dumps({"at": time.monotonic(), "received": side.received}))


def main() -> None:
    """Be one of the four."""
    parser = argparse.ArgumentParser(prog="python -m bench.link_relay", description=__doc__)
    parser.add_argument("role", choices=("relay", "ask", "subscribe", "push"))
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    words: list[str] = asked.words
    if asked.role == "relay":
        mode, directory, port, seconds, core = words
        print(json.dumps(uvloop.run(relay(mode, Path(directory), int(port), float(seconds), int(core)))))
    elif asked.role == "ask":
        ask(int(words[0]), float(words[1]))
    elif asked.role == "subscribe":
        with suppress(KeyboardInterrupt):
            uvloop.run(subscribe(Path(words[0]), int(words[1])))
    else:
        push([int(word) for word in words[0].split(",")])


if __name__ == "__main__":
    main()

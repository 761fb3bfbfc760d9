"""Two nodes that are nothing but a plane and a link process each: what one is given, the other has."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.processes import free_port
from relay.ids import HybridClock
from relay.link.hooks import LayerSource, LinkEvent
from relay.link.messages import Publication
from relay.links.ends import ServingEnd
from relay.links.process import LinkProcess
from relay.links.sources import source_of
from relay.node.clocks import TrackClocks, wall_offset_us
from relay.plane import Plane, open_plane
from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, PayloadType, PlaneConfig, RemoveTap
from relay.plane.reference import rtp
from relay.ports import RoomEvent
from relay.settings import LinkSettings, LogSettings
from relay.stage.timeline import Reading, Timeline
from tests.link.link_world import publication
from tests.link.quic_world import PATIENCE_S, cluster

HZ = 90_000
VP8 = (PayloadType(96, "vp8", HZ),)
CAM = publication("cam", layers=1)
TRACK, TAP = 1, 1000
"""Of the plane: the publication's at its origin, the one into which it goes elsewhere, and a tap of that one."""


def link_settings(name: str, port: int) -> LinkSettings:
    directory, host = cluster(), "127.0.0.1"
    certificate, key, authority = (str(directory / file) for file in (f"{name}.pem", f"{name}.key", "ca.pem"))
    return LinkSettings(
        certificate=certificate, key=key, ca=authority, host=host, port=port, primary_host=host, backup_host=host,
        process=True,
    )  # fmt: skip


@dataclass
class Side:
    """What `LinkProcess` asks of its node, and what the node heard of it. The wall clock is off by `ahead_us`."""

    plane: Plane
    ahead_us: int = 0
    taps: dict[int, int] = field(default_factory=dict)
    lines: dict[int, Timeline] = field(default_factory=dict)
    offered: dict[str, Publication] = field(default_factory=dict)
    events: list[RoomEvent] = field(default_factory=list)
    has: bool = True
    untapped: list[int] = field(default_factory=list)
    came: int = 0
    subscribed_to: tuple[int, ...] = ()
    server: ServingEnd = field(init=False)

    def __post_init__(self) -> None:
        self.clocks = TrackClocks(lambda: self.plane.stats().tracks, lambda: wall_offset_us() + self.ahead_us)
        self.ring_for = lambda flow, tap: None
        self._numbers = itertools.count(1)

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        if not self.has:
            return None
        tap = self.taps[flow] = next(self._numbers)
        line = self.lines[flow] = self.clocks.timeline(TRACK, layer, HZ)
        self.plane.submit(AddTap(tap, TRACK, layer, canonical=True, ring=self.ring_for(flow, tap)))
        return source_of(Kind.VIDEO, VP8, line)

    def untap(self, flow: int) -> None:
        self.untapped.append(flow)
        del self.lines[flow]
        self.plane.submit(RemoveTap(self.taps.pop(flow)))

    def forget_taps(self) -> None:
        self.taps.clear()
        self.lines.clear()

    def readings(self, flows: Iterable[int] | None = None) -> list[tuple[int, int, Reading]]:
        self.clocks.refresh()
        lines = {flow: self.clocks.timeline(TRACK, 0, HZ) for flow in (self.taps if flows is None else flows)}
        return [(flow, HZ, reading) for flow, line in lines.items() if (reading := line.reading) is not None]

    def placed(self, track: int, layer: int, clock_hz: int, reading: Reading | None) -> None:
        self.clocks.placed(track, layer, clock_hz, reading)

    def handle_of(self, node: str, publication: str) -> int | None:
        return TRACK if publication in self.offered else None

    def admit(self, node: str, publication: Publication) -> str:
        return ""

    def catalog_changed(self, node: str, publications: dict[str, Publication]) -> None:
        self.offered = publications

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        self.events += events

    def media_came(self, node: str) -> None:
        self.came += 1

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        raise AssertionError("packets go by the ring")

    def request_keyframe(self, publication: str, layer: int) -> None: ...

    def watch_room(self, room: str, watched: bool) -> None: ...

    def link_changed(self, event: LinkEvent) -> None: ...

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None:
        self.subscribed_to = layers

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None: ...

    def goodbye(self, node: str, reason: str, instead: str) -> None: ...


class OneNode:
    """A plane with a video track, and its links' process."""

    def __init__(self, kind: str, name: str, ahead_us: int = 0) -> None:
        self.port = free_port()
        self.plane = open_plane(kind, PlaneConfig(), "127.0.0.1", 0)
        self.side = Side(self.plane, ahead_us)
        self.links = LinkProcess(
            link_settings(name, self.port), LogSettings(level="error"), name, self.plane, HybridClock(), self.side,
            self.side,
        )  # fmt: skip
        self.tapped: list[int] = []
        self.frames = 0
        self.timestamp = 0

    async def open(self) -> None:
        self.plane.on_taps = lambda packets: self.tapped.extend(each[0] for each in packets)
        self.plane.start()
        self.plane.submit(AddTrack(TRACK, None, Kind.VIDEO, "", VP8, (LayerSpec(),)))
        await self.links.open()

    async def close(self) -> None:
        await self.links.close()
        self.plane.close()

    def send_frame(self) -> None:
        """Inject the next frame of 30 a second, a keyframe each."""
        self.timestamp = self.frames * HZ // 30
        header = rtp.build_header(96, True, self.frames & 0xFFFF, self.timestamp, 7)
        self.plane.inject(TRACK, 0, header + b"\x10\x00" + bytes(400))
        self.frames += 1

    def newest(self) -> int | None:
        """The sync id of the newest frame that is known here."""
        timestamp = self.side.clocks.newest(TRACK, 0)
        return None if timestamp is None else self.at(timestamp)

    def at(self, timestamp: int) -> int | None:
        return self.side.clocks.sync_id(TRACK, 0, HZ, timestamp)


@asynccontextmanager
async def two_nodes(kind: str, ahead_us: int = 0) -> AsyncIterator[tuple[OneNode, OneNode]]:
    """`a` publishes and sends a frame each 33 ms, its clock `ahead_us` of the others'; `b` watches it."""
    a, b = OneNode(kind, "a", ahead_us), OneNode(kind, "b")

    async def run() -> None:
        while True:
            await asyncio.sleep(1 / 30)
            a.send_frame()
            if a.frames % 8 == 0:
                a.links.tick()
                b.links.tick()

    running = asyncio.create_task(run())
    try:
        await asyncio.gather(a.open(), b.open())
        a.links.set_catalog([CAM])
        b.plane.submit(AddTap(TAP, TRACK, 0))
        link = b.links.dial("a", (f"127.0.0.1:{a.port}",), b.side)
        link.start()
        link.watch_room("r")
        link.subscribe("cam", 1, (0,))
        yield a, b
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.gather(a.close(), b.close())


async def until(holds: object, seconds: float = PATIENCE_S) -> None:
    """Wait until a callable says so."""
    assert callable(holds)
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)

"""Both ends of a link over real QUIC on loopback, a proxy per connection that does harm, and what the hooks heard."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from drills.simulation.publisher import VP8_DELTA, VP8_KEY
from relay.clock import now_us
from relay.ids import HybridClock
from relay.link import messages as m
from relay.link.dial import LinkClient, Route
from relay.link.history import FlowSpec
from relay.link.hooks import LayerSource, LinkEvent, LinkMoved, PathChanged
from relay.link.marking import read_sync_id
from relay.link.serve import LinkServer
from relay.link.served_link import ServedLink
from relay.plane.contract import Kind
from relay.plane.reference import rtp
from relay.plane.reference.descriptors import Codec
from relay.ports import RoomEvent
from relay.settings import BreakerSettings, LinkFlowSettings
from tests.link.quic_world import Proxy, node, until

NAMES: tuple[str, ...] = ("metadata", "primary", "backup")
# nothing is dropped because this machine was busy: only what the paths do counts
PATIENT = LinkFlowSettings(
    queue_frames=10_000,
    history_packets=32_768,
    history_ms=20_000,
    resend_age_ms=20_000,
    nack_deadline_ms=20_000,
    nack_tries=64,
    repair_bps=1_000_000_000,
    silence_ms=20_000,
)
VP8 = m.Codec(number=96, codec="vp8", clock_hz=90_000)


def publication(name: str = "cam", epoch: int = 1, layers: int = 2, room: str = "r") -> m.Publication:
    rids = tuple(m.Layer(rid=rid) for rid in "qhf"[:layers])
    return m.Publication(id=name, epoch=epoch, room=room, kind="video", codecs=(VP8,), layers=rids)


class Harm(Proxy):
    """A proxy whose `loss` and `delay_s` may change at any time; `hole` swallows all towards one or both sides."""

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(server)
        self.loss = 0.0
        self.delay_s = 0.0
        self.hole: set[str] = set()
        self._dice = random.Random(5)
        self.harm = self._harm

    def _harm(self, data: bytes, towards_server: bool) -> bool:
        side = "server" if towards_server else "client"
        return side in self.hole or self._dice.random() < self.loss

    def _from_server(self, client: Any, back: Any) -> None:
        if not self.delay_s:
            super()._from_server(client, back)
            return
        self._later(back, self._front, client)

    def _from_client(self, front: Any) -> None:
        if not self.delay_s:
            super()._from_client(front)
            return
        while True:
            try:
                data, address = front.recvfrom(65_536)
            except OSError:
                return
            if address in self._backs and not self._harm(data, True):
                self._loop.call_later(self.delay_s, self._send, self._backs[address], data, self._server)

    def _later(self, source: Any, target: Any, address: Any) -> None:
        while True:
            try:
                data = source.recv(65_536)
            except OSError:
                return
            if not self._harm(data, False):
                self._loop.call_later(self.delay_s, self._send, target, data, address)

    def _send(self, target: Any, data: bytes, address: Any) -> None:
        if target.fileno() >= 0:
            target.sendto(data, address)


class Origin:
    """Hooks of the origin, and a publisher that feeds what is tapped."""

    def __init__(self) -> None:
        self.taps: dict[int, tuple[str, int]] = {}
        self.keyframes: list[tuple[str, int]] = []
        self.rooms: dict[str, bool] = {}
        self.events: list[tuple[int, LinkEvent]] = []
        self.has = {("cam", 0), ("cam", 1)}
        self.sent: dict[int, list[int]] = {}
        self.server: LinkServer | None = None
        self._frames = 0

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        if (publication, layer) not in self.has:
            return None
        self.taps[flow] = (publication, layer)
        self.sent[flow] = []
        return LayerSource(FlowSpec(Kind.VIDEO, {96: Codec.VP8}), 90_000, {"orientation": 3})

    def untap(self, flow: int) -> None:
        del self.taps[flow]

    def request_keyframe(self, publication: str, layer: int) -> None:
        self.keyframes.append((publication, layer))

    def watch_room(self, room: str, watched: bool) -> None:
        self.rooms[room] = watched

    def link_changed(self, event: LinkEvent) -> None:
        self.events.append((now_us(), event))

    def frame(self, packets: int = 8, size: int = 900) -> None:
        """Feed one frame of each tapped layer."""
        assert self.server is not None
        batch = []
        self._frames += 1
        for flow, (_, layer) in self.taps.items():
            sent = self.sent[flow]
            for index in range(packets):
                start = (VP8_KEY if self._frames % 60 == 1 else VP8_DELTA) if index == 0 else b"\x80\x80\x01"
                seq = (65_400 + len(sent)) & 0xFFFF
                sent.append(seq)
                header = rtp.build_header(96, index == packets - 1, seq, self._frames * 3000, 100 + layer)
                batch.append((flow, header + start + random.randbytes(size)))
        self.server.feed(batch)

    def moves(self) -> list[tuple[int, LinkMoved]]:
        return [(at, event) for at, event in self.events if isinstance(event, LinkMoved)]


class Subscriber:
    """Hooks of the subscriber: what came, how often and when."""

    def __init__(self) -> None:
        self.got: dict[tuple[str, int], Counter[int]] = {}
        self.times: list[int] = []
        self.catalogs: list[dict[str, m.Publication]] = []
        self.answers: list[tuple[str, tuple[int, ...]]] = []
        self.started: list[tuple[str, int, int]] = []
        self.order: list[tuple[str, int]] = []
        self.gaps = 0
        self.events: list[LinkEvent] = []
        self.goodbyes: list[tuple[str, str]] = []
        self.fence: dict[str, str] = {}

    def admit(self, node: str, publication: m.Publication) -> str:
        return self.fence.get(publication.id, "")

    def catalog_changed(self, node: str, publications: dict[str, m.Publication]) -> None:
        self.catalogs.append(publications)

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None:
        self.answers.append((publication, layers))

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None:
        self.started.append((publication, layer, payload_type))

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        self.times.append(now_us())
        got = self.got.setdefault((publication, layer), Counter())
        for packet in packets:
            parsed = rtp.parse(packet, 0)
            assert parsed is not None
            got[parsed.seq] += 1
            sync_id = read_sync_id(packet)
            if sync_id is not None:
                self.order.append(("frame", sync_id))

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        self.gaps += gap
        self.order += [("event", event.sync_id) for event in events]

    def link_changed(self, event: LinkEvent) -> None:
        self.events.append(event)

    def goodbye(self, node: str, reason: str, instead: str) -> None:
        self.goodbyes.append((reason, instead))

    def count(self) -> int:
        return sum(got.total() for got in self.got.values())

    def duplicates(self) -> int:
        return sum(count - 1 for got in self.got.values() for count in got.values())

    def longest_gap_us(self, since: int = 0) -> int:
        times = [at for at in self.times if at >= since]
        return max((b - a for a, b in itertools.pairwise(times)), default=0)

    def lost_paths(self, path: str) -> int:
        return sum(isinstance(event, PathChanged) and event.path == path and not event.up for event in self.events)


@dataclass
class LinkWorld:
    """A link from b to a. `harm` has a proxy for each of its connections."""

    server: LinkServer
    client: LinkClient
    origin: Origin
    subscriber: Subscriber
    harm: dict[str, Harm]
    clock: HybridClock = field(default_factory=HybridClock)

    @property
    def served(self) -> ServedLink:
        (link,) = self.server.links.values()
        return link

    async def up(self) -> None:
        await until(lambda: set(self.client.connected) == set(NAMES), "all three connections")
        await until(lambda: len(self.served.paths) == 2, "both paths at the origin")

    async def publish(self, seconds: float, packets: int = 8) -> None:
        """Publish at some 30 frames a second."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        count = 0
        while loop.time() < begin + seconds:
            self.origin.frame(packets)
            count += 1
            await asyncio.sleep(max(0.0, begin + count / 30 - loop.time()))

    def lost(self) -> int:
        lost = 0
        for flow, key in self.origin.taps.items():
            got = self.subscriber.got.get(key, Counter())
            lost += sum(seq not in got for seq in self.origin.sent[flow])
        return lost

    async def watching(self, layers: tuple[int, ...] = (0,)) -> None:
        """Subscribe to the camera and see it."""
        await self.up()
        self.client.subscribe("cam", 1, layers)
        await until(lambda: len(self.origin.taps) == len(layers), "the taps")

        def seen() -> bool:
            self.origin.frame(2)
            return len(self.subscriber.got) == len(layers)

        await until(seen, "the first packets")


@asynccontextmanager
async def world(
    settings: LinkFlowSettings | None = None, breaker: BreakerSettings | None = None
) -> AsyncIterator[LinkWorld]:
    """Nodes a (origin) and b with a link between them, all closed however the test ends."""
    settings = settings or PATIENT
    async with node("a", serves=True) as a, node("b") as b, node("b") as second:
        harm = {name: Harm(a.endpoint.address) for name in NAMES}
        origin, subscriber, clock = Origin(), Subscriber(), HybridClock()
        server = LinkServer(a.endpoint, "a", origin, clock, settings, breaker)
        origin.server = server
        server.start()
        server.set_catalog([publication()])
        client = LinkClient(
            "b",
            "a",
            {
                "metadata": Route(b.endpoint, harm["metadata"].address),
                "primary": Route(b.endpoint, harm["primary"].address),
                "backup": Route(second.endpoint, harm["backup"].address),
            },
            subscriber,
            HybridClock(),
            settings,
        )
        client.start()
        try:
            yield LinkWorld(server, client, origin, subscriber, harm, clock)
        finally:
            await client.close()
            await server.close()
            for each in harm.values():
                each.close()
            assert not client._tasks
            assert not server._tasks
            assert not server.links
            assert not origin.taps

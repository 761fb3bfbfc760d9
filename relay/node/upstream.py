"""The links that this node has dialled: one to each node that is the origin of something its viewers watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from relay.clock import now_us
from relay.errors import Overloaded, UsageError
from relay.link import messages
from relay.link.hooks import LinkEvent
from relay.links.ends import DialledEnd
from relay.node.clocks import TrackClocks
from relay.node.rooms import HostedRooms
from relay.ports import KnownNodes, NodeRecord, RoomEvent
from relay.stage.timeline import Reading

log = structlog.get_logger()

LINGER_S = 10.0
"""A link that nothing needs is kept this long: the next viewer finds it warm."""


class _Origin:
    """A node that is linked to, or would be if it were known. `idle_since` is None while a room needs it."""

    def __init__(self) -> None:
        self.client: DialledEnd | None = None
        self.addresses: tuple[str, ...] = ()
        self.rooms: set[str] = set()
        self.wishes: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.idle_since: float | None = None
        self.heard = float("-inf")


class Upstreams:
    """See `relay.node.remote.Upstream` and `relay.link.hooks.SubscriberHooks`."""

    def __init__(
        self,
        known: KnownNodes,
        rooms: HostedRooms,
        make_client: Callable[[NodeRecord, Upstreams], DialledEnd],
        inject: Callable[[int, int, bytes], None],
        clocks: TrackClocks,
        on_link: Callable[[LinkEvent], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._rooms = rooms
        self._make_client = make_client
        self._inject = inject
        self._clocks = clocks
        self._on_link = on_link
        self._monotonic = monotonic
        self._origins: dict[str, _Origin] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.refused_packets = 0

    # --- rooms ask ------------------------------------------------------------------------------------------------

    def follow(self, room: str, nodes: frozenset[str]) -> None:
        """See `Upstream.follow`."""
        for node in nodes:
            origin = self._origins.setdefault(node, _Origin())
            if room not in origin.rooms:
                origin.rooms.add(room)
                origin.idle_since = None
                self._connect(node, origin)
                if origin.client is not None:
                    origin.client.watch_room(room)
        for node, origin in self._origins.items():
            if node not in nodes and room in origin.rooms:
                origin.rooms.discard(room)
                if origin.client is not None:
                    origin.client.unwatch_room(room)
                if not origin.rooms:
                    origin.idle_since = self._monotonic()

    def subscribe(self, node: str, publication: str, epoch: int, layers: tuple[int, ...]) -> None:
        """See `Upstream.subscribe`."""
        origin = self._origins.get(node)
        if origin is None:
            return
        if layers:
            origin.wishes[publication] = (epoch, layers)
        else:
            origin.wishes.pop(publication, None)
        if origin.client is None:
            return
        if layers:
            origin.client.subscribe(publication, epoch, layers)
        else:
            origin.client.unsubscribe(publication)

    def request_keyframe(self, node: str, publication: str, layer: int) -> None:
        """See `Upstream.request_keyframe`."""
        origin = self._origins.get(node)
        if origin is not None and origin.client is not None:
            origin.client.request_keyframe(publication, layer)

    def catalog(self, node: str) -> Mapping[str, messages.Publication]:
        """See `Upstream.catalog`."""
        origin = self._origins.get(node)
        return {} if origin is None or origin.client is None else origin.client.catalog

    # --- the node's clock -------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Dial who has become known or has moved; let go of whom nothing needs."""
        now = self._monotonic()
        for node, origin in list(self._origins.items()):
            record = self._known.get(node)
            lingers = LINGER_S if record is not None else 0.0
            if origin.idle_since is not None and now - origin.idle_since > lingers:
                del self._origins[node]
                self._end(origin)
                continue
            if record is not None and record.link != origin.addresses:
                self._end(origin)
            self._connect(node, origin)

    def recheck(self) -> None:
        """A document or the directory changed: who may offer what is asked again."""
        for origin in self._origins.values():
            if origin.client is not None:
                origin.client.recheck()

    def heard(self, within_s: float) -> frozenset[str]:
        """The nodes whose media came a moment ago: they live, whatever the directory says."""
        since = self._monotonic() - within_s
        return frozenset(node for node, origin in self._origins.items() if origin.heard >= since)

    def reached(self, within_s: float) -> frozenset[str]:
        """The nodes that said anything a moment ago, if only that they are there."""
        since = now_us() - round(within_s * 1_000_000)
        return frozenset(
            node
            for node, origin in self._origins.items()
            if origin.client is not None and origin.client.heard_at >= since
        )

    def states(self) -> list[dict[str, Any]]:
        """Describe the links."""
        return [origin.client.state() for origin in self._origins.values() if origin.client is not None]

    async def close(self) -> None:
        """End all links."""
        for origin in self._origins.values():
            self._end(origin)
        self._origins.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _connect(self, node: str, origin: _Origin) -> None:
        record = self._known.get(node)
        if origin.client is not None or record is None or not record.link:
            return
        try:
            client = self._make_client(record, self)
        except ValueError as error:
            log.error("a node's link addresses cannot be used", node=node, addresses=record.link, error=str(error))
            origin.addresses = record.link
            return
        origin.client, origin.addresses = client, record.link
        client.start()
        for room in origin.rooms:
            client.watch_room(room)
        for publication, (epoch, layers) in origin.wishes.items():
            client.subscribe(publication, epoch, layers)

    def _end(self, origin: _Origin) -> None:
        client, origin.client = origin.client, None
        if client is not None:
            task = asyncio.get_running_loop().create_task(client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # --- links tell -----------------------------------------------------------------------------------------------

    def admit(self, node: str, publication: messages.Publication) -> str:
        """Believe the room's document: it names the origin and the lease's epoch. What it does not know is left open,
        since nothing is subscribed to that it does not name."""
        room = self._rooms.get(publication.room)
        known = room.state.publications.get(publication.id) if room is not None else None
        if known is None or (known.node == node and publication.epoch >= known.epoch):
            return ""
        if publication.epoch <= known.epoch:
            if room is not None and room.remote_handle(node, publication.id) is not None:
                return ""  # the former origin, from which it plays until the present one's can be decoded
            return f"{known.node} holds it under epoch {known.epoch}"
        return ""  # later than our document: it will tell

    def catalog_changed(self, node: str, publications: dict[str, messages.Publication]) -> None:
        for name in {entry.room for entry in publications.values()}:
            room = self._rooms.get(name)
            if room is not None:
                room.offered(node, publications)

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None:
        log.debug("subscribed", node=node, publication=publication, layers=layers)

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None:
        log.debug("layer started", node=node, publication=publication, layer=layer, payload_type=payload_type)

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        origin = self._origins.get(node)
        if origin is None or origin.client is None:
            return
        origin.heard = self._monotonic()
        entry = origin.client.offer(publication)
        room = self._rooms.get(entry.room) if entry is not None else None
        handle = room.remote_handle(node, publication) if room is not None else None
        if entry is None or handle is None:
            self.refused_packets += len(packets)
            return
        inject = self._inject
        for packet in packets:
            self._clocks.linked(handle, layer, entry.clock_hz, packet)
            try:
                inject(handle, layer, packet)
            except (UsageError, Overloaded):
                self.refused_packets += 1

    def media_came(self, node: str) -> None:
        """Packets of a node came a moment ago, past this process."""
        origin = self._origins.get(node)
        if origin is not None:
            origin.heard = self._monotonic()

    def handle_of(self, node: str, publication: str) -> int | None:
        """The plane's track that a node's packets of a publication go into."""
        origin = self._origins.get(node)
        entry = origin.client.offer(publication) if origin is not None and origin.client is not None else None
        room = self._rooms.get(entry.room) if entry is not None else None
        return room.remote_handle(node, publication) if room is not None else None

    def placed(self, track: int, layer: int, clock_hz: int, reading: Reading | None) -> None:
        """When a frame of a layer of a track was, which comes past this process."""
        self._clocks.placed(track, layer, clock_hz, reading)

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        hosted = self._rooms.get(room)
        if hosted is not None:
            hosted.linked_events(events)

    def link_changed(self, event: LinkEvent) -> None:
        self._on_link(event)

    def goodbye(self, node: str, reason: str, instead: str) -> None:
        log.info("origin drains", node=node, reason=reason, instead=instead)

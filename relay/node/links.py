"""A node's part in a cluster: its link endpoints, what it offers, what it takes, and the leases of its publications."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import structlog

from relay.cluster.lease_holder import LeaseHolder
from relay.cluster.lease_keeper import LeaseConfirmed, LeaseDoubted, LeaseEvent, LeaseGained, LeaseLost, LeaseRefused
from relay.ids import HybridClock
from relay.link.hooks import LinkEvent
from relay.link.quic import Identity
from relay.links.ends import DialledEnd, LinkEnds, LocalEnds
from relay.links.process import LinkProcess
from relay.node.clocks import TrackClocks
from relay.node.origin import Origin
from relay.node.rooms import HostedRooms
from relay.node.soon import Soon
from relay.node.stranded import Stranded, Watched
from relay.node.upstream import Upstreams
from relay.plane import Plane
from relay.ports import KnownNodes, LeaseStore, NodeRecord, RoomEvent
from relay.settings import LinkSettings, LogSettings

HEARD_S = 1.5
REACHED_S = 2.5  # two pings of a metadata channel
MOST_HEARD = 256  # of other nodes in a record

log = structlog.get_logger()


class NodeLinks:
    """Opened with `open`, on the running loop, before the node's first room; see `relay.node.room.ClusterSide`."""

    def __init__(
        self,
        settings: LinkSettings,
        identity: Identity,
        node: str,
        rooms: HostedRooms,
        plane: Plane,
        known: KnownNodes,
        leases: LeaseStore,
        lease_ttl_s: float,
        clock: HybridClock,
        clocks: TrackClocks,
        next_handle: Callable[[], int],
        on_link: Callable[[LinkEvent], None],
        stranded: Stranded,
        on_stranded: Callable[[str], None],
        log_settings: LogSettings,
    ) -> None:
        self._settings = settings
        self._stranded = stranded
        self._on_stranded = on_stranded
        self._identity = identity
        self._node = node
        self._rooms = rooms
        self._known = known
        self._clock = clock
        self._leases = LeaseHolder(leases, node, lease_ttl_s, self._on_lease)
        self._origin = Origin(rooms, plane.submit, next_handle, clocks, on_link)
        self.upstream = Upstreams(known, rooms, self._dial, plane.inject, clocks, on_link)
        self._ends: LinkEnds = self._process(plane, log_settings) if settings.process else self._local(plane)
        self._offers_changed = Soon(self._read_offers)
        self._exits = AsyncExitStack()
        self._lived: frozenset[str] = frozenset()

    def _local(self, plane: Plane) -> LinkEnds:
        ends = LocalEnds(self._settings, self._identity, self._node, self._clock, self._origin)
        plane.on_taps = lambda packets: ends.server.feed(self._origin.tapped(packets))
        return ends

    def _process(self, plane: Plane, log_settings: LogSettings) -> LinkEnds:
        return LinkProcess(self._settings, log_settings, self._node, plane, self._clock, self._origin, self.upstream)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the sockets and serve. Raises SettingsError when one cannot be opened; nothing stays open then."""
        async with AsyncExitStack() as stack:
            await self._ends.open()
            self._origin.server = self._ends.server
            stack.push_async_callback(self._ends.close)
            stack.callback(self._offers_changed.cancel)
            stack.push_async_callback(self.upstream.close)
            self._leases.start()
            stack.push_async_callback(self._leases.close)
            self._exits = stack.pop_all()

    async def close(self) -> None:
        """End all links and give the leases back; bounded."""
        await self._exits.aclose()

    def drain(self) -> None:
        """Tell the subscribers; what flows goes on flowing."""
        self._ends.drain()

    def hears(self) -> tuple[str, ...]:
        """The nodes of which links bring something; see `NodeRecord.hears`."""
        return tuple(sorted(self.upstream.reached(REACHED_S)))[:MOST_HEARD]

    def is_stranded(self, room: str) -> bool:
        """Whether this node cannot bring a room that another one can."""
        return room in self._stranded

    def tick(self) -> None:
        """A few times a second: dial, let go, tell the rooms who is gone, and viewers to go where their room is."""
        self.upstream.tick()
        self._ends.tick()
        self._tell_stranded()
        nodes = frozenset(record.id for record in self._known.records())
        if self._node not in nodes:
            return  # the directory does not even know us: what it says of others is worth as little
        nodes |= self.upstream.heard(HEARD_S)  # a late heartbeat, or one cut off from the store, is no dead node
        if nodes != self._lived:
            self._lived = nodes
            self.upstream.recheck()
        for room in self._rooms:
            room.nodes_known(nodes)

    def _tell_stranded(self) -> None:
        rooms = {}
        for room in self._rooms:
            viewers = tuple(
                each.session.info.id for each in room.sessions.values() if each.session.info.kind == "viewer"
            )
            if viewers:
                publications = room.state.publications.values()
                origins = {each.node for each in publications if each.epoch > 0 and each.state == "live"} - {self._node}
                rooms[room.id] = Watched(frozenset(origins), viewers)
        records = self._known.records() if self._known.current else None
        for session in self._stranded.tick(rooms, self.upstream.reached(REACHED_S), records, time.monotonic()):
            log.warning("told a viewer to go elsewhere: what it watches does not come here", session=session)
            self._on_stranded(session)

    # --- rooms ask ----------------------------------------------------------------------------------------------------

    def publications_changed(self) -> None:
        """See `ClusterSide`. Once for all that changed in this turn of the loop."""
        self._offers_changed()

    def _read_offers(self) -> None:
        self._origin.refresh()
        self.upstream.recheck()

    def room_event(self, room: str, event: RoomEvent) -> None:
        """See `ClusterSide`."""
        self._clock.observe(event.sync_id)
        self._origin.room_events(room, (event,))

    def want_lease(self, room: str, publication: str, over: int | None) -> None:
        """See `ClusterSide`."""
        self._leases.want(room, publication, over)

    def give_up_lease(self, room: str, publication: str) -> None:
        """See `ClusterSide`."""
        self._leases.give_up(room, publication)

    def _on_lease(self, event: LeaseEvent) -> None:
        room = self._rooms.get(event.room)
        match event:
            case LeaseGained(_, publication, epoch):
                if room is not None:
                    room.lease_changed(publication, epoch)
            case LeaseLost(name, publication, epoch, owner, owner_epoch):
                log.warning(
                    "another node is the origin now", room=name, publication=publication, epoch=epoch, owner=owner,
                    owner_epoch=owner_epoch,
                )  # fmt: skip
                if room is not None:
                    room.lease_changed(publication, 0)
            case LeaseRefused(name, publication, owner, owner_epoch):
                log.warning(
                    "another node is the origin still", room=name, publication=publication, owner=owner,
                    owner_epoch=owner_epoch,
                )  # fmt: skip
                if room is not None:
                    room.lease_refused(publication, owner_epoch)
            case LeaseDoubted() | LeaseConfirmed():
                # The store is away, so nobody else can be given the lease either: media goes on.
                log.info("lease", room=event.room, publication=event.publication, certain=type(event) is LeaseConfirmed)

    # --- links --------------------------------------------------------------------------------------------------------

    def _dial(self, record: NodeRecord, hooks: Upstreams) -> DialledEnd:
        return self._ends.dial(record.id, record.link, hooks)

    def states(self) -> list[dict[str, Any]]:
        """Describe all links, JSON-ready: those that others have dialled, then our own."""
        return self._ends.served() + self.upstream.states()

    async def command(self, link: str, action: str) -> dict[str, Any]:
        """Force a link's media to the backup (`open`) or back (`reset`). Raises NotFound; only the origin can.

        Overloaded when the links' own process does not answer in time.
        """
        return await self._ends.command(link, action)

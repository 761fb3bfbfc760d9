"""A node's part in a cluster: its links, what it offers, what it takes, and the leases of its publications."""

from __future__ import annotations

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
from relay.node.origin import Origin
from relay.node.rooms import HostedRooms
from relay.node.upstream import Upstreams
from relay.plane import Plane
from relay.ports import KnownNodes, LeaseStore, NodeRecord, RoomEvent
from relay.settings import LinkSettings, LogSettings

HEARD_S = 1.5

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
        next_handle: Callable[[], int],
        on_link: Callable[[LinkEvent], None],
        log_settings: LogSettings,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._node = node
        self._rooms = rooms
        self._known = known
        self._clock = clock
        self._leases = LeaseHolder(leases, node, lease_ttl_s, self._on_lease)
        self._origin = Origin(rooms, plane.submit, next_handle, on_link)
        self.upstream = Upstreams(known, rooms, self._dial, plane.inject, on_link)
        self._ends: LinkEnds = self._process(plane, log_settings) if settings.process else self._local(plane)
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
            stack.push_async_callback(self._ends.close)
            stack.callback(self._origin.close)
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

    def tick(self) -> None:
        """A few times a second: dial, let go, and tell the rooms who is gone."""
        self.upstream.tick()
        self._ends.tick()
        nodes = frozenset(record.id for record in self._known.records())
        if self._node not in nodes:
            return  # the directory does not even know us: what it says of others is worth as little
        nodes |= self.upstream.heard(HEARD_S)  # a late heartbeat, or one cut off from the store, is no dead node
        if nodes != self._lived:
            self._lived = nodes
            self.upstream.recheck()
        for room in self._rooms:
            room.nodes_known(nodes)

    # --- rooms ask ----------------------------------------------------------------------------------------------------

    def publications_changed(self) -> None:
        """See `ClusterSide`."""
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

"""A node's part in a cluster: its link endpoints, what it offers, what it takes, and the leases of its publications."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

from relay.cluster.lease_holder import LeaseHolder
from relay.cluster.lease_keeper import LeaseConfirmed, LeaseDoubted, LeaseEvent, LeaseGained, LeaseLost, LeaseRefused
from relay.errors import NotFound
from relay.ids import HybridClock
from relay.link.dial import ConnectionName, LinkClient, Route
from relay.link.hooks import LinkEvent
from relay.link.quic import Endpoint, HeldTickets, Identity, open_endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.roq import ALPN as ROQ_ALPN
from relay.link.serve import LinkServer
from relay.link.transport import Remote
from relay.node.clocks import TrackClocks
from relay.node.origin import Origin
from relay.node.rooms import HostedRooms
from relay.node.soon import Soon
from relay.node.stranded import Stranded, Watched
from relay.node.upstream import Upstreams
from relay.plane import Plane
from relay.ports import KnownNodes, LeaseStore, NodeRecord, RoomEvent
from relay.settings import LinkSettings

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
        plane.on_taps = self._origin.tapped
        self._offers_changed = Soon(self._read_offers)
        self._exits = AsyncExitStack()
        self._primary: Endpoint
        self._backup: Endpoint
        self._lived: frozenset[str] = frozenset()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the sockets and serve. Raises SettingsError when one cannot be opened; nothing stays open then."""
        settings, tickets = self._settings, HeldTickets()
        async with AsyncExitStack() as stack:

            def opened(endpoint: Endpoint) -> Endpoint:
                stack.push_async_callback(endpoint.close)
                return endpoint

            served = opened(open_endpoint(settings, self._identity, alpns=(H3_ALPN, ROQ_ALPN)))
            self._primary, self._backup = (
                opened(open_endpoint(settings, self._identity, host=host, port=0, interface=interface, tickets=tickets))
                for host, interface in (
                    (settings.primary_host, settings.primary_interface),
                    (settings.backup_host, settings.backup_interface),
                )
            )
            self._origin.server = LinkServer(
                served, self._node, self._origin, self._clock, settings.flow, settings.breaker
            )
            self._origin.server.start()
            stack.push_async_callback(self._origin.server.close)
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
        self._origin.server.drain()

    def hears(self) -> tuple[str, ...]:
        """The nodes of which links bring something; see `NodeRecord.hears`."""
        return tuple(sorted(self.upstream.reached(REACHED_S)))[:MOST_HEARD]

    def is_stranded(self, room: str) -> bool:
        """Whether this node cannot bring a room that another one can."""
        return room in self._stranded

    def tick(self) -> None:
        """A few times a second: dial, let go, tell the rooms who is gone, and viewers to go where their room is."""
        self.upstream.tick()
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

    def _dial(self, record: NodeRecord, hooks: Upstreams) -> LinkClient:
        primary = _remote(record.link[0])
        backup = _remote(record.link[1]) if len(record.link) > 1 else primary
        routes: Mapping[ConnectionName, Route] = {
            "metadata": Route(self._primary, primary),
            "primary": Route(self._primary, primary),
            "backup": Route(self._backup, backup),
        }
        return LinkClient(self._node, record.id, routes, hooks, self._clock, self._settings.flow)

    def states(self) -> list[dict[str, Any]]:
        """Describe all links, JSON-ready: those that others have dialled, then our own."""
        return [link.state() for link in self._origin.server.links.values()] + self.upstream.states()

    def command(self, link: str, action: str) -> dict[str, Any]:
        """Force a link's media to the backup (`open`) or back (`reset`). Raises NotFound; only the origin can."""
        served = self._origin.server.link(link)
        match action:
            case "open":
                served.force_open()
            case "reset":
                served.reset()
            case _:
                raise NotFound(f"no action {action}")
        return served.state()


def _remote(text: str) -> Remote:
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)

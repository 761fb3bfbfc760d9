"""One relay node: builds and owns everything of it, and answers signaling (`relay.ports.NodeControl`)."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from random import Random
from typing import Any, get_args

import structlog

from relay.edge.negotiation import answer_publish, answer_watch
from relay.edge.session_state import SessionKind
from relay.ending import end
from relay.errors import NotFound, Overloaded
from relay.ids import HybridClock
from relay.link.hooks import LinkEvent, LinkMoved
from relay.link.quic import Identity
from relay.metrics import Metrics
from relay.node.admission import Admission, Load, resident_memory
from relay.node.clocks import TrackClocks
from relay.node.config import plane_config
from relay.node.followers import SessionFollowers
from relay.node.gate import tightest
from relay.node.links import NodeLinks
from relay.node.outputs import Outputs
from relay.node.plane_events import PlaneEvents
from relay.node.programs import Pools
from relay.node.room import HostedRoom
from relay.node.rooms import HostedRooms
from relay.node.sessions import Negotiate, NodeSessions
from relay.node.stranded import Stranded
from relay.node.surroundings import Surroundings
from relay.node.views import Meter, node_view, session_view
from relay.plane import open_plane
from relay.ports import Answer, IceFragment, KnownNodes, LeaseStore, Offer, RoomEvent, RoomStore, SlotChange
from relay.settings import NodeSettings
from relay.stage import people
from relay.stage.document import Traffic
from relay.stage.permissions import Action, Actor, Role

log = structlog.get_logger()

ROOM_TICK_S = 0.25
STATS_TICK_S = 1.0


def make_node_id() -> str:
    """A node id that is unique enough for a cluster and says where the node runs."""
    name = "".join(c for c in socket.gethostname().lower() if c.isalnum() or c == "-")[:24].strip("-")
    return f"{name or 'node'}-{secrets.token_hex(3)}"


class Node:
    """Everything of one node. `start`, then use it as NodeControl, then `drain` and `shut_down`."""

    def __init__(
        self,
        settings: NodeSettings,
        store: RoomStore,
        metrics: Metrics,
        *,
        node_id: str,
        version: str,
        advertised: Sequence[str],
    ) -> None:
        """Opens the media port. Raises SettingsError when it is taken, or the wanted plane is not there."""
        self.node_id = node_id
        self.version = version
        self.started_at = time.time()
        self._settings = settings
        self._metrics = metrics
        media = settings.media
        self._plane = open_plane(
            media.plane,
            plane_config(settings),
            media.host,
            media.port,
            media.socket_buffer_bytes,
            shards=media.shards,
            pin=media.pin_threads,
            priority=media.priority,
        )
        self._ports = [port for _, port in self._plane.addresses]
        self._advertised = tuple(advertised)
        self._admission = Admission(settings.limits)
        self._handles = itertools.count(1)
        self._followers = SessionFollowers()
        self._sessions = NodeSessions(
            settings,
            node_id,
            self._plane.submit,
            lambda: next(self._handles),
            self._ports,
            advertised,
            self._followers,
            metrics,
        )
        self._clock = HybridClock()
        self._track_clocks = TrackClocks(lambda: self._plane.stats().tracks)
        self._track_clocks.senders.refused = lambda why: metrics.reports_refused.labels(why).inc()
        self._meter = Meter()
        self._memory = resident_memory()
        self._pools = Pools(settings.mix, self._plane, lambda: next(self._handles), self._heights, metrics)
        around = Surroundings(
            store=store,
            node_id=node_id,
            submit=self._plane.submit,
            next_handle=lambda: next(self._handles),
            wall=time.time,
            monotonic=time.monotonic,
            seat_hold_s=settings.session.seat_hold_s,
            empty_ttl_s=settings.room.empty_room_ttl_s,
            tell_session=self._followers.tell,
            clock=self._clock,
            clocks=self._track_clocks,
            cluster=lambda: self._links,
            pools=self._pools,
        )
        self._rooms = HostedRooms(around)
        self._links: NodeLinks | None = None
        handles, senders = lambda: next(self._handles), self._track_clocks.senders
        self.egress = Outputs(settings, node_id, self._rooms, self._plane, handles, store, senders)
        self._plane.on_events = PlaneEvents(self._sessions, self._rooms, self.egress, time.monotonic)
        self._plane.on_failed = self._on_plane_failed
        self.failure = ""
        """Why the packet plane is lost, once it is."""
        self.failed = asyncio.Event()
        """The plane is lost: tell who is here to go elsewhere, end the process, have it started again."""
        self.on_link_moved: Callable[[str, dict[str, Any]], None] = lambda kind, data: None
        """Told that a breaker moved, as an event's type and data."""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def plane_name(self) -> str:
        """`native` or `reference`."""
        return self._plane.name

    @property
    def plane_ways(self) -> list[str]:
        """See `Plane.ways`."""
        return self._plane.ways

    @property
    def plane_ports(self) -> list[int]:
        """The UDP port of each shard."""
        return self._ports

    @property
    def plane_cpus(self) -> list[int]:
        """See `Plane.cpus`."""
        return self._plane.cpus

    @property
    def mixing(self) -> Pools:
        """The pools of this node's programs."""
        return self._pools

    @property
    def candidates(self) -> tuple[tuple[str, int], ...]:
        """Every address and port that some session's candidates name."""
        return tuple((host, port) for port in self._ports for host in self._advertised)

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to receive media and to tick."""
        self._plane.start()
        self._metrics.watch_plane(self._plane.stats, self._plane)
        self._metrics.watch_egress(self.egress.facts)
        await self.egress.start()
        self._tasks = [
            asyncio.create_task(self._every(STATS_TICK_S, self._tick_sessions)),
            asyncio.create_task(self._every(ROOM_TICK_S, self._tick_rooms)),
        ]

    async def join(self, identity: Identity, known: KnownNodes, leases: LeaseStore) -> None:
        """Link to the other nodes; call it before `start`. Raises SettingsError when a socket cannot be opened."""
        links = NodeLinks(
            self._settings.link,
            identity,
            self.node_id,
            self._rooms,
            self._plane,
            known,
            leases,
            self._settings.cluster.lease_ttl_s,
            self._clock,
            self._track_clocks,
            lambda: next(self._handles),
            self._on_link,
            Stranded(
                self.node_id,
                self._settings.cluster.stranded_after_s,
                self._settings.cluster.stranded_spread_s,
                Random(secrets.randbits(64)),
            ),
            self._send_away,
            self._settings.log,
        )
        await links.open()
        self._links = links
        self._metrics.watch_links(links.states)

    def hears(self) -> tuple[str, ...]:
        """The nodes of which links bring something; see `NodeRecord.hears`."""
        return () if self._links is None else self._links.hears()

    def _send_away(self, session: str) -> None:
        self._followers.tell(session, RoomEvent(0, "node.draining", {"session": session}, stored=False))

    def refuse_newcomers(self) -> None:
        """Take no new session from now on; `status` says so."""
        self._admission.draining = True

    async def drain(self, timeout_s: float) -> None:
        """Refuse newcomers and wait up to `timeout_s` for the sessions to end."""
        self.refuse_newcomers()
        if self._links is not None:
            self._links.drain()
        deadline = time.monotonic() + timeout_s
        while self._sessions and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def shut_down(self) -> None:
        """End every session and free the port; bounded, repeatable."""
        self._admission.draining = True
        await end(self._tasks)
        await self.egress.close()
        self._sessions.close("drain")
        await self._rooms.close()
        await self._pools.close()
        if self._links is not None:
            await self._links.close()
        self._plane.close()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` again and again. What goes wrong in one round is logged and does not end the node."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("a round of the node's housekeeping failed", work=work.__name__)

    async def _tick_sessions(self) -> None:
        stats = self._plane.stats()
        self._meter.update(stats, time.monotonic())
        self._memory = resident_memory()
        self._track_clocks.take(stats.tracks)
        self._admission.gate.observe(*tightest(self._plane.slabs), time.monotonic())
        for room in self._rooms:
            room.rates(stats.tracks)
        self._sessions.tick(stats.sessions)
        rooms = Counter(room.state.traffic for room in self._rooms)
        for traffic in get_args(Traffic):
            self._metrics.rooms.labels(traffic).set(rooms[traffic])
        await self._rooms.sweep()

    async def _tick_rooms(self) -> None:
        if self._links is not None:
            self._links.tick()
        followed = self._followers.sessions()
        if followed:
            self._track_clocks.take(self._plane.stats().tracks)
        for room in self._rooms:
            room.tick()
            room.tell_timelines(followed)

    # --- signaling asks --------------------------------------------------------------------------------------------

    def admit(self, room: str, identity: str, publishing: bool) -> None:
        """Raise Overloaded when a new session would be refused now. A publisher who returns is let in."""
        if not self._plane.healthy:
            self._metrics.refusals.labels("plane").inc()
            raise Overloaded("this node's packet plane has failed; it takes no sessions and is about to be restarted")
        if not publishing and self._links is not None and self._links.is_stranded(room):
            self._metrics.refusals.labels("stranded").inc()
            raise Overloaded("this node is cut off from where the room is; another one is not")
        if publishing and not self._admission.draining and self._sessions.publishes(room, identity):
            return
        count, publishers = len(self._sessions), self._sessions.count("publisher")
        load = Load(count, publishers, self._meter.bitrate_out, self._memory, tightest(self._plane.slabs))
        try:
            self._admission.admit(load, time.monotonic(), publisher=publishing)
        except Overloaded:
            self._metrics.refusals.labels(self._admission.refused_for).inc()
            raise

    def knows(self, room: str) -> dict[str, Any] | None:
        """Return the newest document of a room that is hosted here; None when it is not."""
        hosted = self._rooms.get(room)
        return None if hosted is None else hosted.state.to_json()

    def active_speaker(self, room: str) -> str | None:
        """Return who speaks now in a room that is hosted here; None when nobody does, or it is not."""
        hosted = self._rooms.get(room)
        return None if hosted is None else hosted.live.speaker

    async def publish(self, offer: Offer) -> Answer:
        """See `NodeControl.publish`."""
        room = await self._enter(offer, Action.PUBLISH)
        return self._open(room, offer, "publisher", answer_publish)

    async def watch(self, offer: Offer) -> Answer:
        """See `NodeControl.watch`."""
        room = await self._enter(offer, Action.WATCH)
        if offer.one_sound:
            room.admit_sound(offer.identity, Role(offer.role))
        return self._open(room, offer, "viewer", answer_watch)

    async def _enter(self, offer: Offer, action: Action) -> HostedRoom:
        self.admit(offer.room, offer.identity, action is Action.PUBLISH)
        room = await self._rooms.open(offer.room)
        actor = Actor(offer.identity, Role(offer.role))
        people.check_ban(room.state, actor.identity, time.time(), actor.role)
        if actor.role is not Role.SERVICE:
            people.require(room.state, actor, action, actor.identity)
        return room

    def _open(self, room: HostedRoom, offer: Offer, kind: SessionKind, negotiate: Negotiate) -> Answer:
        answer = self._sessions.open(room, offer, kind, negotiate)
        self._admission.gate.came_in()
        return answer

    async def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        """See `NodeControl.trickle`."""
        return self._sessions.trickle(session, fragment, etag)

    async def close(self, session: str) -> None:
        """See `NodeControl.close`."""
        self._sessions.find(session)[1].session.close("left")

    def session(self, session: str) -> dict[str, Any]:
        """See `NodeControl.session`."""
        return session_view(*self._sessions.find(session), self._meter)

    def sessions(self, room: str | None = None) -> list[dict[str, Any]]:
        """See `NodeControl.sessions`."""
        return self._sessions.views(room, self._meter)

    async def change_slot(self, session: str, index: int, change: SlotChange) -> dict[str, Any]:
        """See `NodeControl.change_slot`."""
        room, local = self._sessions.find(session)
        view = room.live.change_slot(local.session.info.handle, index, change.changes, time.monotonic())
        room.flush()
        return view

    def session_events(self, session: str) -> AsyncIterator[RoomEvent]:
        """Follow one session's own events until it ends. Raises NotFound."""
        self._sessions.find(session)
        return self._followers.follow(session)

    def status(self) -> dict[str, Any]:
        """See `NodeControl.status`."""
        counts: dict[str, int] = {kind: self._sessions.count(kind) for kind in get_args(SessionKind)}
        region, limit = self._settings.node.region, self._settings.limits.max_sessions
        view = node_view(
            self.node_id, self.version, region, self.plane_name, self.started_at, counts, limit, self._meter
        )
        return view | {
            "healthy": self._plane.healthy,
            "memory_bytes": self._memory,
            "draining": self._admission.draining,
        }

    def links(self) -> list[dict[str, Any]]:
        """See `NodeControl.links`."""
        return [] if self._links is None else self._links.states()

    async def change_link(self, link: str, action: str) -> dict[str, Any]:
        """See `NodeControl.change_link`."""
        if self._links is None:
            raise NotFound("this node has no links", code="link-not-found")
        return await self._links.command(link, action)

    def _heights(self, track: int) -> list[int]:
        return [layer.height for layer in self._meter.stats.tracks.get(track, ())]

    # --- the plane and the sessions tell ------------------------------------------------------------------------------

    def _on_plane_failed(self, why: str) -> None:
        self.failure = why
        self.refuse_newcomers()
        self.failed.set()

    def _on_link(self, event: LinkEvent) -> None:
        if isinstance(event, LinkMoved):
            self.on_link_moved("link.moved", {"node": self.node_id, **asdict(event), "sync_id": str(event.sync_id)})
            self._metrics.link_moves.labels(event.peer, event.state).inc()

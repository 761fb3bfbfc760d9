"""One relay: the machines of `relay.node`, `relay.cluster` and `relay.stage`, and what joins them in a real node.

A node whose state is steady *sleeps*: its clock stands still and the store's idea of its leases moves on, as if it had
renewed them all the time. It wakes when anything touches it. So calm hours cost nothing, and are counted. A room is
ticked as long as its next tick could do other than its last one did.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import partial
from typing import Protocol

from drills.simulation import sessions
from drills.simulation.client import StoreClient
from drills.simulation.network import Network
from drills.simulation.node_clock import NodeClock
from drills.simulation.stirred import Mark, Stirred
from drills.simulation.store import StoreModel
from drills.simulation.upstream import SimUpstream
from relay.cluster.known import NodeTable
from relay.cluster.lease_keeper import LeaseEvent, LeaseGained, LeaseKeeper, LeaseLost, LeaseRefused
from relay.edge.session import SessionInfo
from relay.edge.session_state import SessionClosed, SessionConnected, Transition
from relay.link import messages
from relay.node.clocks import TrackClocks
from relay.node.room import HostedRoom
from relay.node.rooms import HostedRooms
from relay.node.surroundings import Surroundings
from relay.ports import NodeRecord, RoomEvent
from relay.settings import ClusterSettings

CALM_S = 2.2
"""After the last disturbance a node goes on for so long before it may sleep: longer than another's record outlives it
in the directory."""
_DAY_S = 86_400.0


class Surrounding(Protocol):
    """What a node needs of the world around it."""

    cluster: ClusterSettings
    epoch_s: float
    store: StoreModel
    network: Network
    dice: random.Random

    def make_keeper(self, node: str, ttl_s: float) -> LeaseKeeper: ...
    def tell(self, text: str) -> None: ...
    def new_id(self) -> str: ...
    def peer(self, name: str) -> SimNode | None: ...
    def followers(self, room: str, origin: str) -> list[SimNode]: ...
    def hosted(self, node: SimNode, room: str) -> None: ...
    def kept_changed(self, node: SimNode) -> None: ...
    def subscribed(self, node: SimNode, room: str, origin: str, publication: str, epoch: int) -> None: ...
    def session_closed(self, node: SimNode, session: sessions.PlainSession, reason: str) -> None: ...


class SimNode:
    """See `relay.node.links.NodeLinks` for what is joined here; a killed node is thrown away."""

    def __init__(self, name: str, world: Surrounding, wall_error: float, rate: float) -> None:
        self.name, self.world = name, world
        self.alive = True
        self.frozen_until = 0.0
        """A stopped process does nothing until then, and does not know it."""
        self._loop = asyncio.get_running_loop()
        self.clock = NodeClock(self._loop.time, world.epoch_s, wall_error, rate)
        self.mono = self.clock.mono
        self._disturbed = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._leases: asyncio.TimerHandle | None = None
        self._leases_at = 0.0
        self._handles = itertools.count(1)
        self._seen = -1
        self._unsure_until = 0.0
        self._catalog: dict[str, messages.Publication] = {}
        self._told = self._catalog
        self._offers_old = self._telling = self._driving = False
        self._lived: frozenset[str] = frozenset()
        self._record = NodeRecord(name, f"https://{name}", "", "sim", max_sessions=1000, link=(f"{name}:1",))
        self._table = NodeTable(world.cluster.expiry_s)
        self.store = StoreClient(name, world.store, world.network, self.clock.wall)
        self.keeper = world.make_keeper(name, world.cluster.lease_ttl_s)
        self._links = SimUpstream(self)
        clocks = TrackClocks(dict, lambda: 0, lambda: int(self.mono() * 1e6))
        self.rooms = HostedRooms(
            Surroundings(
                store=self.store,  # type: ignore[arg-type]  # what a hosted room calls of it
                node_id=name,
                submit=lambda *commands: None,
                next_handle=lambda: next(self._handles),
                wall=self.clock.wall,
                monotonic=self.mono,
                seat_hold_s=_DAY_S,
                empty_ttl_s=_DAY_S,
                tell_session=lambda session, event: None,
                clock=self.store.clock,
                clocks=clocks,
                cluster=lambda: self,
                new_id=world.new_id,
                presence_s=_DAY_S,
            )
        )
        self._stirred = Stirred(self.rooms, self._mark)
        self._timer = self._loop.call_later(world.dice.random() * world.cluster.heartbeat_s, self._beat)

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def sleeps(self) -> bool:
        """Whether its clock stands still."""
        return self.clock.sleeps

    def wake(self, room: str | None = None) -> None:
        """Something touches it: one of its rooms, or all."""
        now = self._loop.time()
        self._disturbed = now
        for each in [room] if room is not None else [hosted.id for hosted in self.rooms]:
            self._stirred.stir(each)
        if not self.sleeps or not self.alive:
            return
        self._end_sleep()
        self._seen = -1
        self._timer = self._loop.call_later(self.world.dice.random() * self.world.cluster.heartbeat_s, self._beat)
        self.drive()

    def _end_sleep(self) -> None:
        self.world.store.extend(self.name, self.keeper.kept(), self.clock.wake())

    def _may_sleep(self) -> bool:
        now = self._loop.time()
        if now - self._disturbed < CALM_S or self.frozen_until > now or now < self._unsure_until:
            return False
        if self._stirred or self._seen != self.world.store.changes:
            return False
        mono = self.mono()
        certain = all(self.keeper.epoch(*each, mono) is not None for each in self.keeper.kept())
        return certain and self.world.network.reaches_store(self.name) and not self.store_is_behind()

    def store_is_behind(self) -> bool:
        """Whether a room has changes that the store has not taken yet."""
        return any(room._followed._pending for room in self.rooms)

    def _sleep(self) -> None:
        self.clock.sleep()
        self._stop_timers()

    def freeze(self, seconds: float) -> None:
        """Stop the process for a while: nothing here runs, the world goes on."""
        self.wake()
        self.frozen_until = max(self.frozen_until, self._loop.time() + seconds)
        self._loop.call_at(self.frozen_until, self._thaw)

    def _thaw(self) -> None:
        if self.alive and self._loop.time() >= self.frozen_until:
            self.wake()
            self.store.poke_all()
            self.drive()

    @property
    def is_frozen(self) -> bool:
        return self._loop.time() < self.frozen_until

    # --- life --------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Its process is gone; so are its tasks and what it knew."""
        if self.sleeps:
            self._end_sleep()
        self.clock.sleep()  # for good
        self.alive = False
        self._stop_timers()
        for room in self.rooms:
            for task in (*room._followed._tasks, *room._presence._tasks):
                task.cancel()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._leases):
            if timer is not None:
                timer.cancel()
        self._timer = self._leases = None

    # --- the beat: heartbeat, look at the directory, tick of rooms ----------------------------------------------------

    def _beat(self) -> None:
        if self._may_sleep():
            self._sleep()
            return
        self._timer = self._loop.call_later(self.world.cluster.heartbeat_s, self._beat)
        if self.is_frozen:
            return
        if self.world.network.reaches_store(self.name):
            self._loop.call_later(self.world.network.delay(self.name), self._announce)
            self._look()
        else:
            self._table.failed()
            self._unsure_until = self._loop.time() + 2 * self.world.cluster.expiry_s
        self._tick()

    def _announce(self) -> None:
        if self.alive and self.world.network.reaches_store(self.name):
            self.world.store.announce(self._record, self.world.cluster.expiry_s)

    def _look(self) -> None:
        store = self.world.store
        store.ops["node.look"] += 2  # once per look_s, half a heartbeat; what it would find does not differ
        store.expired(self._is_sleeping)
        if store.changes != self._seen or self._loop.time() < self._unsure_until:
            if not store.records:  # it forgot everybody: there is a time of grace
                self._unsure_until = self._loop.time() + 2 * self.world.cluster.expiry_s
            self._table.took(store.nodes(), self.mono())
            self._seen = store.changes

    def _is_sleeping(self, name: str) -> bool:
        peer = self.world.peer(name)
        return peer is not None and peer.sleeps

    def _tick(self) -> None:
        """As `NodeLinks.tick` and the node's tick of rooms."""
        nodes = self._table.ids
        if self.name in nodes:
            missed = [peer for peer in self._links.origins() if peer not in nodes and self._hears(peer)]
            if missed:
                nodes = nodes.union(missed)
            if nodes is not self._lived and nodes != self._lived:
                self._stir_for(nodes ^ self._lived)
                self._lived = nodes
        for room in self._stirred.due():
            if self.name in nodes:
                room.nodes_known(nodes)
            room.tick()

    def _mark(self, room: HostedRoom) -> Mark:
        origins = self._links.rooms.get(room.id, ())
        return (room.state, self._lived, *(self._links.catalog(name) for name in sorted(origins)))

    def _stir_for(self, nodes: frozenset[str]) -> None:
        """These nodes came or went: that matters to the rooms in whose documents they are, or which take from them."""
        for room in self.rooms:
            origins = self._links.rooms.get(room.id, frozenset())
            if origins & nodes or any(each.node in nodes for each in room.state.publications.values()):
                self._stirred.stir(room.id)

    def _hears(self, name: str) -> bool:
        peer = self.world.peer(name)
        return peer is not None and not peer.is_frozen and self.world.network.reaches(self.name, name)

    # --- leases: as LeaseHolder ---------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Ask the store what the keeper wants to know, take what it tells, and come back in time."""
        self._driving = False
        if not self.alive or self.is_frozen:
            return
        if self.sleeps:
            self.wake()
            return
        for request in self.keeper.requests(self.mono()):
            self.store.ask(request, self.keeper, self.world.cluster.lease_ttl_s, self.mono, self._answered)
        for event in self.keeper.events():
            self._on_lease(event)
        self.world.kept_changed(self)
        at = self.keeper.next_timeout()
        if self._leases is not None:
            if at == self._leases_at and self._leases.when() > self._loop.time():
                return
            self._leases.cancel()
            self._leases = None
        if at is not None:
            self._leases, self._leases_at = self._loop.call_later(self.clock.true_wait(at), self.drive), at

    def _answered(self) -> None:
        if self.alive and not self.sleeps:
            self.drive()

    def _on_lease(self, event: LeaseEvent) -> None:
        room = self.rooms.get(event.room)
        self.world.tell(f"{self.name} {type(event).__name__} {event.room} {event.publication}")
        match event:
            case LeaseGained(_, publication, epoch) if room is not None:
                room.lease_changed(publication, epoch)
            case LeaseLost(_, publication) if room is not None:
                room.lease_changed(publication, 0)
            case LeaseRefused(_, publication, _, owner_epoch) if room is not None:
                room.lease_refused(publication, owner_epoch)
            case _:
                pass
        self.wake(event.room)

    # --- ClusterSide -------------------------------------------------------------------------------------------------

    @property
    def upstream(self) -> SimUpstream:
        """The links to other nodes."""
        return self._links

    def publications_changed(self) -> None:
        """What this node offers is to be read again, once for all that changed in this turn of the loop. Only what
        differs is told."""
        self._offers_old = True
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._tell_offers)

    def _tell_offers(self) -> None:
        self._telling = False
        before, self._told = self._told, self.offers()
        if self._told is before or not self.alive:
            return
        differ = {key: entry for key, entry in {**before, **self._told}.items()
                  if before.get(key) != self._told.get(key)}  # fmt: skip
        for room in dict.fromkeys(entry.room for entry in differ.values()):
            self._loop.call_later(self.world.network.delay(self.name), self._offer, room)

    def _offer(self, room: str) -> None:
        if not self.alive or self.is_frozen:
            return
        offers = self.offers()
        for other in self.world.followers(room, self.name):
            if self.world.network.reaches(self.name, other.name):
                other.wake(room)
                hosted = other.rooms.get(room)
                if hosted is not None:
                    hosted.offered(self.name, offers)

    def room_event(self, room: str, event: RoomEvent) -> None:
        """Events reach everybody by the store here."""

    def want_lease(self, room: str, publication: str, over: int | None) -> None:
        """See `LeaseHolder.want`."""
        self.keeper.want(room, publication, over)
        self._soon()

    def give_up_lease(self, room: str, publication: str) -> None:
        """See `LeaseHolder.give_up`."""
        self.keeper.give_up(room, publication)
        self._soon()

    def _soon(self) -> None:
        self._disturbed = self._loop.time()
        if not self._driving:
            self._driving = True
            self._loop.call_soon(self.drive)

    def offers(self) -> dict[str, messages.Publication]:
        """Its catalog, as others have it: the same object until it changes."""
        if self._offers_old:
            self._offers_old = False
            fresh = {each.publication: each.offer(room.id) for room in self.rooms for each in room.offers()}
            if fresh != self._catalog:
                self._catalog = fresh
        return self._catalog

    def room_of(self, publication: str) -> str:
        """Which hosted room has a publication."""
        return next((room.id for room in self.rooms if publication in room.state.publications), "")

    # --- people ------------------------------------------------------------------------------------------------------

    async def publish(self, room: str, identity: str, session: str) -> sessions.PlainSession:
        """Somebody's picture comes here. Raises StoreUnavailable, NotFound."""
        hosted = await self._open(room)
        made = self._session(hosted, identity, session, "publisher", "guest")
        hosted.add(sessions.host(made))
        hosted.took_transition(made, SessionConnected(("", 0)))
        track = next(hosted.tracks_of(made.info.id))
        hosted.layer_started(track.handle, 0, sessions.VP8.number)
        return made

    async def watch(self, room: str, identity: str, session: str) -> sessions.PlainSession:
        """Somebody watches here. Raises StoreUnavailable, NotFound."""
        hosted = await self._open(room)
        made = self._session(hosted, identity, session, "viewer", "viewer")
        hosted.add(sessions.viewer(made, self._handles))
        hosted.took_transition(made, SessionConnected(("", 0)))
        return made

    async def _open(self, room: str) -> HostedRoom:
        self.wake(room)
        hosted = await self.rooms.open(room)
        if not hosted.watchers:  # a read of the document may be slow: the node may sleep before it comes
            hosted.watchers.append(partial(self.wake, room))
        self.wake(room)
        self.world.hosted(self, room)
        return hosted

    def _session(self, room: HostedRoom, identity: str, session: str, kind: str, role: str) -> sessions.PlainSession:
        def told(made: sessions.PlainSession, transition: Transition) -> None:
            self.wake(room.id)
            room.took_transition(made, transition)
            if isinstance(transition, SessionClosed):
                self.world.session_closed(self, made, transition.reason)

        info = SessionInfo(session, next(self._handles), room.id, identity, role, kind, self.clock.wall())  # type: ignore[arg-type]
        return sessions.PlainSession(info, told)

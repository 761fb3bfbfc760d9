"""A room as this node hosts it: the followed document, the local sessions, and the live room that binds the slots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from relay.cluster.pk_desk import PkDesk
from relay.edge.session import Session
from relay.edge.session_state import (
    PublishingPaused,
    PublishingResumed,
    PublishingStarted,
    SessionClosed,
    SessionConnected,
    State,
    Transition,
)
from relay.errors import Overloaded, RequestError
from relay.link import messages
from relay.node.clustered import ClusteredRoom
from relay.node.following import FollowedRoom
from relay.node.local import LocalSession, LocalTrack
from relay.node.pk import PkStage
from relay.node.presence import Presence, is_audience
from relay.node.program import RoomProgram
from relay.node.sound import RoomSound
from relay.node.surroundings import Surroundings
from relay.node.tracks import HANDOVER_S, RoomTracks, is_passed_by
from relay.plane.contract import LayerStats
from relay.ports import RoomEvent
from relay.stage import people, publications
from relay.stage import room as rooms
from relay.stage.document import RoomChange, RoomState
from relay.stage.lending import StageLive
from relay.stage.live_model import SlotBound, SlotSpec, SlotTimeline
from relay.stage.permissions import Actor, Role
from relay.stage.pk_room import PkView
from relay.stage.program import LEASE

log = structlog.get_logger()

_KEEPS_SEAT = frozenset({"drain"})  # reasons after which a publisher is expected back elsewhere


class HostedRoom:
    """One room on this node. Everything here happens in the event loop; `close` ends its tasks."""

    def __init__(
        self,
        state: RoomState,
        live: StageLive,
        around: Surroundings,
        on_track: Callable[[int, HostedRoom | None], None],
        open_room: Callable[[str], Awaitable[HostedRoom]],
    ) -> None:
        self.id = state.id
        self.live = live
        self.sessions: dict[str, LocalSession] = {}
        self.idle_since = around.monotonic()
        self.watchers: list[Callable[[], None]] = []
        self._kicked: dict[str, int] = {}
        self._leaving: dict[str, float] = {}
        self._seated: frozenset[str] = frozenset(state.seats)
        self._around = around
        self._store, self._submit = around.store, around.submit
        self._wall, self._monotonic = around.wall, around.monotonic
        self._followed = FollowedRoom(
            state.id, around.store, state, on_change=self._on_state, on_event=self._on_event, on_end=self._on_end
        )
        self._presence = Presence(
            state.id,
            around.store,
            lambda: [local.session.info for local in self.sessions.values()],
            self.tell_unstored,
            around.presence_s,
        )

        def tell_track(handle: int, present: bool) -> None:
            on_track(handle, self if present else None)

        self._shared: ClusteredRoom | None = None
        cluster = around.cluster()
        if cluster is not None:
            self._shared = ClusteredRoom(
                state.id,
                around.node_id,
                live,
                cluster,
                self._submit,
                around.next_handle,
                around.monotonic,
                tell_track,
            )
        self._tracks = RoomTracks(self, around, live, self._shared, tell_track)
        self._program: RoomProgram | None = None
        self._sound: RoomSound | None = None
        if around.pools is not None:
            self._sound = RoomSound(self, around.pools, self._submit, around.monotonic, tell_track)
            self._program = RoomProgram(
                self,
                around.node_id,
                around.pools,
                self._sound,
                around.clocks,
                around.wall,
                around.monotonic,
                self.change,
                self._presence.append,
                cluster,
            )
        self._pk = PkStage(self, open_room, PkDesk(around.store, around.wall), around.wall, around.monotonic)
        self.live.update(state, around.monotonic())

    @property
    def state(self) -> RoomState:
        """The newest document, with this node's own changes."""
        return self._followed.state

    @property
    def stage(self) -> RoomState:
        """The newest document, with the other room's hosts on its stage while both rooms show a PK."""
        return self._pk.on_stage(self.state)

    @property
    def pk(self) -> PkView | None:
        """What is to be seen of the room's PK now; None when there is none."""
        return self._pk.view

    @property
    def ended(self) -> bool:
        """Whether the room is over."""
        return self._followed.ended

    def start(self) -> None:
        """Begin to follow the store."""
        self._followed.start()
        self._disown()
        self._presence.start()
        if self._shared is not None:
            self._shared.update(self.state)
        self._pk.update()

    async def close(self, flush_s: float = 0.5) -> None:
        """Stop following; waits up to `flush_s` for what is still unwritten."""
        if self._program is not None:
            self._program.close()
        if self._sound is not None:
            self._sound.close()
        await self._followed.flushed(flush_s)
        await self._pk.close()
        await self._presence.close()
        await self._followed.close()
        if self._shared is not None:
            self._shared.close()

    def _disown(self) -> None:
        """What the document says of this node's earlier life is over: its sessions ended with its process."""
        mine = [each for each in self.state.publications.values() if each.node == self._around.node_id]
        for session in {each.session for each in mine} - self.sessions.keys():
            self.change(partial(publications.session_away, session=session, now=self._wall()))

    # --- sessions -------------------------------------------------------------------------------------------------

    def add(self, local: LocalSession) -> None:
        """Take in a session that was just opened, with its slots in the plane. They are bound now and play once the
        session has its keys, so that no time is lost in between."""
        info = local.session.info
        self.sessions[info.id] = local
        if info.kind == "publisher":
            return
        specs = [
            SlotSpec(each.handle, each.plan.index, each.plan.mid, each.plan.kind, each.plan.payload_types)
            for each in local.slots
        ]
        role, now = Role(info.role), self._monotonic()
        wish = {"program": local.program, "one_sound": local.one_sound}
        self.live.add_viewer_session(info.handle, info.id, info.identity, role, specs, now, **wish)
        if self._shared is not None:
            self._shared.update(self.state)
        if local.one_sound and self._sound is not None:
            self._sound.update()
        self.flush()

    def admit_sound(self, identity: str, role: Role) -> None:
        """Raise Conflict when who is to hear one sound only would be one too many; Overloaded without a mix here."""
        if self._sound is None:
            raise Overloaded("this node mixes no sound: watch with sound=voices")
        self._sound.admit(identity, role)

    def took_transition(self, session: Session, transition: Transition) -> None:
        """Something happened to one of the sessions."""
        match transition:
            case SessionConnected():
                self._connected(self.sessions[session.info.id])
            case PublishingStarted():
                pass  # the publications start with their first packets
            case PublishingPaused():
                self.change(partial(publications.session_away, session=session.info.id, now=self._wall()))
            case PublishingResumed():
                self.change(partial(publications.resume_session, session=session.info.id, now=self._wall()))
            case SessionClosed(reason):
                self._closed(session, reason)

    def _connected(self, local: LocalSession) -> None:
        info = local.session.info
        if info.kind == "publisher":
            self._tracks.take_over(local)
            self._join(local.session)  # last, since it closes the earlier session with what that still has
            return
        if info.role in (Role.OWNER, Role.GUEST, Role.MODERATOR):
            actor = Actor(info.identity, Role(info.role))
            self.change(lambda state: people.join(state, actor, self._wall()))
        else:
            self._presence.came(info)

    def _join(self, session: Session) -> None:
        actor, ident = Actor(session.info.identity, Role(session.info.role)), session.info.id
        now = self._wall()

        def join(state: RoomState) -> RoomChange:
            return (state, []) if is_passed_by(state, session) else people.join(state, actor, now, ident)

        self.change(join, self.refuser(session))

    def _closed(self, session: Session, reason: str) -> None:
        info = session.info
        local = self.sessions.pop(info.id)
        self._leaving.pop(info.id, None)
        self.idle_since = self._monotonic()
        if info.kind == "viewer":
            self.live.remove_session(info.handle)
            if local.one_sound and self._sound is not None:
                self._sound.update()
            others = any(each.session.info.identity == info.identity for each in self.sessions.values())
            if not others and is_audience(info):
                self._presence.went(info.identity)
            self.flush()
            return
        ended = self._tracks.of(info.id)
        for track in ended:
            self._tracks.forget(track)
        self.change(self._goodbye(info.id, reason, [track.publication for track in ended]))
        self.flush()

    def _goodbye(self, session: str, reason: str, ended: Sequence[str]) -> Callable[[RoomState], RoomChange]:
        """What the end of a publishing session means for the room."""
        now = self._wall()
        if reason in _KEEPS_SEAT:
            return lambda state: publications.session_away(state, session, now)
        if reason != "replaced":
            return lambda state: rooms.session_left(state, session, now)

        def replaced(state: RoomState) -> RoomChange:
            """The newer session has taken over the tracks that it sends too; only the others end."""
            events: list[tuple[str, dict[str, Any]]] = []
            for ident in ended:
                known = state.publications.get(ident)
                if known is not None and known.session == session:
                    state, more = publications.end(state, known, "replaced", now)
                    events += more
            return state, events

        return replaced

    # --- what the plane tells -------------------------------------------------------------------------------------

    def layer_started(self, handle: int, layer: int, payload_type: int) -> None:
        """Packets of a layer arrive: the publication starts, resumes, or has one layer more."""
        self._tracks.layer_started(handle, layer, payload_type)

    def layer_stopped(self, handle: int, layer: int) -> None:
        """A layer fell silent."""
        if self._tracks.layer_stopped(handle, layer):
            self.flush()

    def heard(self) -> None:
        """See `relay.node.tracks.TrackHost`."""
        self._mix()
        self.flush()

    def session(self, ident: str) -> Session | None:
        """See `TrackHost`."""
        local = self.sessions.get(ident)
        return None if local is None else local.session

    def leaves(self, session: str) -> bool:
        """See `TrackHost`."""
        return session in self._leaving

    def rates(self, tracks: Mapping[int, list[LayerStats]]) -> None:
        """Take the layers' bitrates."""
        self.live.on_layer_rates(
            {
                track.handle: [layer.bitrate for layer in tracks[track.handle]]
                for track in self._tracks
                if track.handle in tracks
            }
        )
        if self._shared is not None:
            self._shared.rates(tracks, self._tracks)

    def local_tracks(self) -> Iterator[LocalTrack]:
        """The tracks that are sent to this node."""
        return iter(self._tracks)

    def tracks_of(self, session: str) -> Iterator[LocalTrack]:
        """The tracks that a session sends now."""
        return iter(self._tracks.of(session))

    # --- the program ------------------------------------------------------------------------------------------------

    def inject(self, track: LocalTrack) -> None:
        """See `relay.node.program_mix.Host`."""
        self._tracks.inject(track)

    def withdraw(self, track: LocalTrack) -> None:
        """See `Host`."""
        self._tracks.withdraw(track)

    def rename(self, track: LocalTrack, publication: str) -> None:
        """See `Host`."""
        self._tracks.rename(track, publication)

    def _mix(self) -> None:
        if self._program is not None:
            self._program.update()
        if self._sound is not None:
            self._sound.update()

    # --- other nodes ------------------------------------------------------------------------------------------------

    def offers(self) -> Iterator[LocalTrack]:
        """What this node is the origin of, by lease and by document."""
        return self._tracks.offers()

    def lease_changed(self, publication: str, epoch: int) -> None:
        """This node is the origin of a publication, or mixes the program, under `epoch`; 0: another does, or may."""
        if publication == LEASE and self._program is not None:
            self._program.lease_changed(epoch)
        self._tracks.lease_changed(publication, epoch)

    def lease_refused(self, publication: str, owner_epoch: int) -> None:
        """Another node still holds it. A program is left to the other node, a publisher's tracks are taken over."""
        if publication == LEASE and self._program is not None:
            self._program.lease_refused()
        self._tracks.lease_refused(publication, owner_epoch)

    def offered(self, node: str, catalog: Mapping[str, messages.Publication]) -> None:
        """Another node's catalog."""
        if self._shared is not None:
            self._shared.offered(node, catalog)
            self._mix()
            self.flush()

    def remote_handle(self, node: str, publication: str) -> int | None:
        """The track into which a node's packets of a publication go."""
        return None if self._shared is None else self._shared.handle_of(node, publication)

    def request_keyframe(self, handle: int, layer: int) -> None:
        """The plane wants a keyframe of a track that a link feeds, or the program."""
        if handle in self._tracks and self._program is not None:
            self._program.request_keyframe(handle)
        elif self._shared is not None:
            self._shared.request_keyframe(handle, layer)

    def nodes_known(self, nodes: frozenset[str]) -> None:
        """The nodes that live. What was published on others waits for its publishers to come back."""
        for node in {each.node for each in self.state.publications.values() if each.state == "live"} - nodes:
            log.warning("a node is gone: its publications pause", room=self.id, node=node)
            self.change(partial(publications.node_away, node=node, now=self._wall()))
        if self._program is not None:
            self._program.nodes_known(nodes)

    # --- the document ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass: speakers, layers, seats that were held long enough."""
        now = self._wall()
        self.live.tick(self._monotonic())
        if self._shared is not None:
            self._shared.update(self.state)
            self._shared.sweep()
        if self._program is not None:
            self._program.tick()
        if self._sound is not None:
            self._sound.update()
        self._pk.tick()
        if self._leaving:
            self._enforce(self.state)
        self._tracks.let_go()
        self._resume()
        due = rooms.next_expiry(self.state, seat_hold_s=self._around.seat_hold_s)
        if due is not None and due <= now:
            self.change(partial(rooms.expire, now=now, seat_hold_s=self._around.seat_hold_s))
        self.flush()

    def _resume(self) -> None:
        """Others took this node for dead, cut off as it was, but its publishers never stopped."""
        paused = {each.session for each in self.state.publications.values() if each.state == "paused"}
        for session in paused & self.sessions.keys():
            if self.sessions[session].session.state is State.PUBLISHING:
                self.change(partial(publications.resume_session, session=session, now=self._wall()))

    def flush(self) -> None:
        """Hand the live room's decisions to the plane, its events to those who follow."""
        commands = self.live.commands()
        if commands:
            self._submit(*commands)
        self.demand()
        self._pk.flushed()
        told: list[tuple[str, dict[str, Any]]] = []
        for event in self.live.events():
            if isinstance(event, SlotBound):
                self._tell(event)
            elif self._shared is None or self._shared.speaks_for_all:
                told.append((event.type, event.data()))
        if told:
            self._presence.append(told)

    def demand(self) -> None:
        """Ask other nodes for what viewers here need now."""
        if self._shared is not None:
            self._shared.demand()

    def tell_timelines(self, followed: Mapping[str, bool]) -> None:
        """Tell those who follow sessions where their slots' frames stand in time."""
        for told in self.live.timelines(followed, self._monotonic()):
            self._tell(told)

    def _tell(self, event: SlotBound | SlotTimeline) -> None:
        sync_id = self._around.clock.next(int(self._wall() * 1000))
        self._around.tell_session(event.session, RoomEvent(sync_id, event.type, event.data(), stored=False))

    def tell_unstored(self, told: list[tuple[str, dict[str, Any]]]) -> None:
        """The store is away: what happens meanwhile reaches those who watch now, by the links and their sessions."""
        for kind, data in told:
            event = RoomEvent(self._around.clock.next(int(self._wall() * 1000)), kind, data, stored=False)
            if self._shared is not None:
                self._shared.event(event)
            self._tell_all(event)

    def _tell_all(self, event: RoomEvent) -> None:
        for session in self.sessions:
            self._around.tell_session(session, event)

    def change(
        self, change: Callable[[RoomState], RoomChange], refused: Callable[[RequestError], None] | None = None
    ) -> None:
        """Change the document: at once here, and in the store as soon as it can be; `refused` hears when it may not."""
        self._followed.push(change, refused)

    def _on_state(self, state: RoomState) -> None:
        self._pk.update()
        self.live.update(self.stage, self._monotonic())
        self._enforce(state)
        if self._shared is not None:
            self._shared.update(state)
            self._shared.offer()
        self._mix()
        before, self._seated = self._seated, frozenset(state.seats)
        for identity in self._seated - before:
            self._tracks.return_to_stage(identity)
        self.flush()
        for watcher in list(self.watchers):
            watcher()

    def stage_changed(self) -> None:
        """Another room's hosts came to this one's stage, or left it."""
        self.live.update(self.stage, self._monotonic())
        if self._shared is not None:
            self._shared.update(self.state)
        self._mix()
        self.flush()

    def _enforce(self, state: RoomState) -> None:
        """Close the sessions that the document no longer wants: kicked, banned, or replaced by a newer one."""
        now = self._wall()
        kicked = {name for name, sync_id in self._kicked.items() if sync_id <= int(state.sync_id)}
        for name in kicked:
            del self._kicked[name]
        for local in list(self.sessions.values()):
            info = local.session.info
            banned = state.bans.get(info.identity, 0.0) > now and info.role != Role.OWNER
            if banned or info.identity in kicked:
                local.session.close("kicked")
            elif (
                info.kind == "publisher"
                and local.session.state in (State.PUBLISHING, State.PAUSING)
                and publications.is_replaced(state, info.identity, info.id)
            ):
                self._replaced(local, state)
        self._tracks.sweep(state)

    def _replaced(self, local: LocalSession, state: RoomState) -> None:
        """A newer session took a publisher's place, or none is his any more."""
        info = local.session.info
        who = state.participants.get(info.identity)
        if who is None or who.session in self.sessions:
            local.session.close("removed" if who is None else "replaced")
        elif self._leaving.setdefault(info.id, self._monotonic() + HANDOVER_S) <= self._monotonic():
            local.session.close("replaced")

    def linked_events(self, events: Sequence[RoomEvent]) -> None:
        """Events of the room that another node has sent. Those that are in the store come from there to who follows."""
        for event in events:
            self._take_event(event)
            if not event.stored:
                self._tell_all(event)

    def _on_event(self, event: RoomEvent) -> None:
        if self._shared is not None:
            self._shared.event(event)
        self._take_event(event)

    def _take_event(self, event: RoomEvent) -> None:
        if event.type == "participant.kicked":
            # The document comes a moment later and has the ban: closing before would let a fast client in again.
            self._kicked[event.data["identity"]] = event.sync_id

    def _on_end(self) -> None:
        for watcher in list(self.watchers):
            watcher()
        for local in list(self.sessions.values()):
            local.session.close("room-ended")

    def refuser(self, session: Session) -> Callable[[RequestError], None]:
        """See `TrackHost`."""

        def refused(error: RequestError) -> None:
            log.warning("the room refused a session", room=self.id, session=session.info.id, reason=str(error))
            session.close("refused")

        return refused

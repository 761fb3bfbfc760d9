"""A room as this node hosts it: the followed document, the local sessions, and the live room that binds the slots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from relay.cluster.pk_desk import PkDesk
from relay.edge.session import Session
from relay.edge.session_state import Transition
from relay.errors import Overloaded, RequestError
from relay.link import messages
from relay.node.attendance import Attendance
from relay.node.clustered import ClusteredRoom
from relay.node.following import FollowedRoom
from relay.node.local import LocalSession, LocalTrack
from relay.node.pk import PkStage
from relay.node.presence import Presence
from relay.node.program import RoomProgram
from relay.node.sound import RoomSound
from relay.node.surroundings import Surroundings
from relay.node.tracks import RoomTracks
from relay.plane.contract import LayerStats
from relay.ports import RoomEvent
from relay.stage import publications
from relay.stage import room as rooms
from relay.stage.document import RoomChange, RoomState
from relay.stage.lending import StageLive
from relay.stage.live_model import SlotBound, SlotSpec
from relay.stage.permissions import Role
from relay.stage.pk_room import PkView
from relay.stage.program import LEASE

log = structlog.get_logger()


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
        self.watchers: list[Callable[[], None]] = []
        self._attendance = Attendance(self, around)
        self._seated: frozenset[str] = frozenset(state.seats)
        self._around = around
        self._store, self._submit = around.store, around.submit
        self._wall, self._monotonic = around.wall, around.monotonic
        self._followed = FollowedRoom(
            state.id, around.store, state, on_change=self._on_state, on_event=self._on_event, on_end=self._on_end
        )
        self._presence = Presence(state.id, around.store, self._attendance.infos, self.tell_unstored, around.presence_s)

        def tell_track(handle: int, present: bool) -> None:
            on_track(handle, self if present else None)

        cluster, ident, handles, clocks = around.cluster(), around.node_id, around.next_handle, around.clocks
        self._shared: ClusteredRoom | None = None
        if cluster is not None:
            self._shared = ClusteredRoom(
                state.id, ident, live, cluster, self._submit, handles, around.monotonic, tell_track, clocks.senders
            )
        self._tracks = RoomTracks(self, around, live, self._shared, tell_track)
        self._program: RoomProgram | None = None
        self._sound: RoomSound | None = None
        if around.pools is not None:
            waits = dict if self._shared is None else self._shared.sound_waits
            self._sound = RoomSound(self, around.pools, self._submit, around.monotonic, tell_track, waits)
            tell = self._presence.append
            self._program = RoomProgram(
                self, ident, around.pools, self._sound, clocks, self._wall, self._monotonic, self.change, tell, cluster
            )
        self._pk = PkStage(self, open_room, PkDesk(around.store, around.wall), around.wall, around.monotonic)
        self.live.update(state, around.monotonic())

    @property
    def state(self) -> RoomState:
        """The newest document, with this node's own changes."""
        return self._followed.state

    @property
    def sessions(self) -> Mapping[str, LocalSession]:
        """Those that are here, by id."""
        return self._attendance.sessions

    @property
    def idle_since(self) -> float:
        """When the last session went, or the room was opened here."""
        return self._attendance.idle_since

    def stay(self) -> None:
        """Another room needs this one: it does not count as empty for a while."""
        self._attendance.stay()

    @property
    def stage(self) -> RoomState:
        """The newest document, with the other room's hosts on its stage while both rooms show a PK."""
        return self._pk.on_stage(self.state)

    @property
    def pk(self) -> PkView | None:
        """What is to be seen of the room's PK now; None when there is none."""
        return self._pk.view

    @property
    def shows_with(self) -> HostedRoom | None:
        """The other room of a PK, once it is hosted here as well."""
        return self._pk.other

    @property
    def ended(self) -> bool:
        """Whether the room is over."""
        return self._followed.ended

    def start(self) -> None:
        """Begin to follow the store."""
        self._followed.start()
        self._attendance.disown()
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

    # --- sessions -------------------------------------------------------------------------------------------------

    def add(self, local: LocalSession) -> None:
        """Take in a session that was just opened, with its slots in the plane. They are bound now and play once the
        session has its keys, so that no time is lost in between."""
        info = local.session.info
        self._attendance.sessions[info.id] = local
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
        self._attendance.took_transition(session, transition, self._tracks, self._presence)

    def viewer_gone(self, local: LocalSession) -> None:
        """See `relay.node.attendance.AttendanceHost`."""
        self.live.remove_session(local.session.info.handle)
        if local.one_sound and self._sound is not None:
            self._sound.update()

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
        return self._attendance.session(ident)

    def leaves(self, session: str) -> bool:
        """See `TrackHost`."""
        return self._attendance.leaves(session)

    def rates(self, tracks: Mapping[int, list[LayerStats]]) -> None:
        """Take the layers' bitrates, and what their senders report."""
        self.live.on_layer_rates(
            {
                track.handle: [layer.bitrate for layer in tracks[track.handle]]
                for track in self._tracks
                if track.handle in tracks
            }
        )
        captured = self._around.clocks.senders.take(self._tracks, tracks)
        if self._shared is not None:
            self._shared.rates(tracks, self._tracks, captured)

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
        self._attendance.tick()
        self._tracks.let_go()
        due = rooms.next_expiry(self.state, seat_hold_s=self._around.seat_hold_s)
        if due is not None and due <= now:
            self.change(partial(rooms.expire, now=now, seat_hold_s=self._around.seat_hold_s))
        self.flush()

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
                self._around.tell_session(event.session, self._around.unstored(event.type, event.data()))
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
            self._around.tell_session(told.session, self._around.unstored(told.type, told.data()))

    def tell_unstored(self, told: list[tuple[str, dict[str, Any]]]) -> None:
        """The store is away: what happens meanwhile reaches those who watch now, by the links and their sessions."""
        for kind, data in told:
            event = self._around.unstored(kind, data)
            if self._shared is not None:
                self._shared.event(event)
            self._attendance.tell(event)

    def change(
        self, change: Callable[[RoomState], RoomChange], refused: Callable[[RequestError], None] | None = None
    ) -> None:
        """Change the document: at once here, and in the store as soon as it can be; `refused` hears when it may not."""
        self._followed.push(change, refused)

    def _on_state(self, state: RoomState) -> None:
        self._pk.update()
        self.live.update(self.stage, self._monotonic())
        self._attendance.enforce(state)
        self._tracks.sweep(state)
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

    def linked_events(self, events: Sequence[RoomEvent]) -> None:
        """Events of the room that another node has sent. Those that are in the store come from there to who follows."""
        for event in events:
            self._attendance.take_event(event)
            if not event.stored:
                self._attendance.tell(event)

    def _on_event(self, event: RoomEvent) -> None:
        if self._shared is not None:
            self._shared.event(event)
        self._attendance.take_event(event)

    def _on_end(self) -> None:
        for watcher in list(self.watchers):
            watcher()
        self._attendance.end("room-ended")

    def refuser(self, session: Session) -> Callable[[RequestError], None]:
        """See `TrackHost`."""
        return self._attendance.refuser(session)

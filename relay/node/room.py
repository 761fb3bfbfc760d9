"""A room as this node hosts it: the followed document, the local sessions, and the live room that binds the slots."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import structlog

from relay.edge.session import Session, Submit
from relay.edge.session_state import (
    PublishingPaused,
    PublishingResumed,
    PublishingStarted,
    SessionClosed,
    SessionConnected,
    State,
    Transition,
)
from relay.errors import RequestError
from relay.link import messages
from relay.node.clustered import ClusteredRoom, ClusterSide
from relay.node.following import FollowedRoom
from relay.node.local import LocalSession, LocalTrack, TrackKey, add_track, move_track
from relay.node.presence import Presence, is_audience
from relay.plane.contract import LayerStats
from relay.ports import RoomEvent, RoomStore
from relay.stage import people, publications
from relay.stage import room as rooms
from relay.stage.document import Codec, MediaKind, RoomChange, RoomState, Source
from relay.stage.live import LiveRoom
from relay.stage.live_model import SlotBound, SlotSpec
from relay.stage.permissions import Actor, Role

log = structlog.get_logger()

_KEEPS_SEAT = frozenset({"drain"})  # reasons after which a publisher is expected back elsewhere


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all rooms of a node share. Clocks in seconds; `next_handle` gives fresh numbers for the plane."""

    store: RoomStore
    node_id: str
    submit: Submit
    next_handle: Callable[[], int]
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    seat_hold_s: float
    empty_ttl_s: float
    on_slot_bound: Callable[[SlotBound], None]
    cluster: Callable[[], ClusterSide | None] = lambda: None


HANDOVER_S = 1.0
"""So long after a publisher has moved to another node what he still sends here is handed on: those who watch play it
until they can decode what comes from there."""


class HostedRoom:
    """One room on this node. Everything here happens in the event loop; `close` ends its tasks."""

    def __init__(
        self,
        state: RoomState,
        live: LiveRoom,
        around: Surroundings,
        on_track: Callable[[int, HostedRoom | None], None],
    ) -> None:
        self.id = state.id
        self.live = live
        self.sessions: dict[str, LocalSession] = {}
        self.idle_since = around.monotonic()
        self._tracks: dict[TrackKey, LocalTrack] = {}
        self._by_handle: dict[int, LocalTrack] = {}
        self._kicked: dict[str, int] = {}
        self._leaving: dict[str, float] = {}
        self._lost: dict[int, float] = {}
        self._seated: frozenset[str] = frozenset(state.seats)
        self._around = around
        self._store, self._submit = around.store, around.submit
        self._wall, self._monotonic = around.wall, around.monotonic
        self._on_track = on_track
        self._followed = FollowedRoom(
            state.id, around.store, state, on_change=self._on_state, on_event=self._on_event, on_end=self._on_end
        )
        self._presence = Presence(
            state.id, around.store, lambda: [local.session.info for local in self.sessions.values()]
        )
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
                lambda handle, present: on_track(handle, self if present else None),
            )
        self.live.update(state, around.monotonic())

    @property
    def state(self) -> RoomState:
        """The newest document, with this node's own changes."""
        return self._followed.state

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

    async def close(self, flush_s: float = 0.5) -> None:
        """Stop following; waits up to `flush_s` for what is still unwritten."""
        await self._followed.flushed(flush_s)
        await self._presence.close()
        await self._followed.close()
        if self._shared is not None:
            self._shared.close()

    def _disown(self) -> None:
        """What the document says of this node's earlier life is over: its sessions ended with its process."""
        mine = [each for each in self.state.publications.values() if each.node == self._around.node_id]
        for session in {each.session for each in mine} - self.sessions.keys():
            self._change(partial(publications.session_away, session=session, now=self._wall()))

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
        self.live.add_viewer_session(info.handle, info.id, info.identity, Role(info.role), specs, self._monotonic())
        if self._shared is not None:
            self._shared.update(self.state)
        self.flush()

    def took_transition(self, session: Session, transition: Transition) -> None:
        """Something happened to one of the sessions."""
        match transition:
            case SessionConnected():
                self._connected(self.sessions[session.info.id])
            case PublishingStarted():
                pass  # the publications start with their first packets
            case PublishingPaused():
                self._change(partial(publications.session_away, session=session.info.id, now=self._wall()))
            case PublishingResumed():
                self._change(partial(publications.resume_session, session=session.info.id, now=self._wall()))
            case SessionClosed(reason):
                self._closed(session, reason)

    def _connected(self, local: LocalSession) -> None:
        info = local.session.info
        if info.kind == "publisher":
            self._take_over(local)
            return
        if info.role in (Role.OWNER, Role.GUEST, Role.MODERATOR):
            actor = Actor(info.identity, Role(info.role))
            self._change(lambda state: people.join(state, actor, self._wall()))
        else:
            self._presence.came(info)

    def _take_over(self, local: LocalSession) -> None:
        """Receive the session's tracks; those that an earlier session of the same identity sent move here."""
        info = local.session.info
        for plan in local.tracks:
            key = (info.identity, plan.kind.value, plan.source)
            track = self._tracks.get(key)
            if track is None:
                known = publications.publication_of(
                    self.state, info.identity, plan.kind.value, cast(Source, plan.source)
                )
                publication = known.id if known else secrets.token_hex(8)
                track = LocalTrack(key, self._around.next_handle(), publication, info.id, plan)
                self._tracks[key] = self._by_handle[track.handle] = track
                self._on_track(track.handle, self)
                self._submit(add_track(track, info.handle))
                self._lease(track)
            elif track.session != info.id:  # an offer with two cameras sends the first
                track.session, track.plan, track.registered = info.id, plan, False
                track.active.clear()
                if self._lost.pop(track.handle, None) is not None:
                    track.epoch = 0
                self._lease(track)
                self._submit(move_track(track, info.handle))
        self._join(local.session)  # last, since it closes the earlier session with what that still has

    def _join(self, session: Session) -> None:
        actor, ident = Actor(session.info.identity, Role(session.info.role)), session.info.id
        now = self._wall()
        self._change(lambda state: people.join(state, actor, now, ident), self._refuser(session))

    def _closed(self, session: Session, reason: str) -> None:
        info = session.info
        del self.sessions[info.id]
        self._leaving.pop(info.id, None)
        self.idle_since = self._monotonic()
        if info.kind == "viewer":
            self.live.remove_session(info.handle)
            others = any(each.session.info.identity == info.identity for each in self.sessions.values())
            if not others and is_audience(info):
                self._presence.went(info.identity)
            self.flush()
            return
        ended = [each for each in self._tracks.values() if each.session == info.id]
        for track in ended:
            self._forget(track)
        self._change(self._goodbye(info.id, reason, [track.publication for track in ended]))
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

    def _forget(self, track: LocalTrack) -> None:
        """A track ends with its session, whose end has made the plane forget it."""
        del self._tracks[track.key], self._by_handle[track.handle]
        self._give_up(track)
        self._on_track(track.handle, None)
        self.live.track_gone(track.handle, self._monotonic())

    # --- what the plane tells -------------------------------------------------------------------------------------

    def layer_started(self, handle: int, layer: int, payload_type: int) -> None:
        """Packets of a layer arrive: the publication starts, resumes, or has one layer more."""
        track = self._by_handle.get(handle)
        if track is None or track.session not in self.sessions or track.session in self._leaving:
            return
        track.active.add(layer)
        track.codec = track.codec_of(payload_type) or track.codec
        format_ = next(each for each in track.plan.payload_types if each.number == payload_type)
        self._register(track)
        self._offer()
        self.live.publication_local(track.publication, handle, track.plan.kind, track.rids, format_, self._monotonic())
        self.live.on_layer_started(handle, layer, self._monotonic())
        self.flush()

    def layer_stopped(self, handle: int, layer: int) -> None:
        """A layer fell silent."""
        track = self._by_handle.get(handle)
        if track is None:
            return
        track.active.discard(layer)
        self._offer()
        self.live.on_layer_stopped(handle, layer, self._monotonic())
        if track.registered and track.active:
            change = partial(
                publications.set_layers, publication=track.publication, layers=track.active_rids, session=track.session
            )
            self._change(lambda state: change(state) if track.publication in state.publications else (state, []))
        self.flush()

    def _register(self, track: LocalTrack) -> None:
        """Tell the room of a track: start or resume its publication, or note its layers."""
        session = self.sessions[track.session].session
        actor, now = Actor(session.info.identity, Role(session.info.role)), self._wall()
        ident, codec, layers, known = track.publication, track.codec, track.active_rids, track.registered
        _, kind, source = track.key

        def register(state: RoomState) -> RoomChange:
            if known:
                if ident not in state.publications:
                    return state, []
                return publications.set_layers(state, ident, layers, session=track.session)
            return publications.start_publication(
                state,
                actor,
                now,
                publication=ident,
                kind=cast(MediaKind, kind),
                source=cast(Source, source),
                codec=cast(Codec, codec),
                node=self._around.node_id,
                session=session.info.id,
                layers=layers,
                epoch=track.epoch,
            )

        track.registered = True
        self._change(register, self._refuser(session))

    def rates(self, tracks: Mapping[int, list[LayerStats]]) -> None:
        """Take the layers' bitrates."""
        self.live.on_layer_rates(
            {handle: [layer.bitrate for layer in tracks[handle]] for handle in self._by_handle if handle in tracks}
        )
        if self._shared is not None:
            self._shared.rates(tracks, self._by_handle.values())

    def tracks_of(self, session: str) -> Iterator[LocalTrack]:
        """The tracks that a session sends now."""
        return (track for track in self._tracks.values() if track.session == session)

    # --- other nodes ------------------------------------------------------------------------------------------------

    def offers(self) -> Iterator[LocalTrack]:
        """What this node is the origin of, by lease and by document."""
        known = self.state.publications
        return (
            track
            for track in self._by_handle.values()
            if track.epoch and track.registered and track.publication in known
        )

    def lease_changed(self, publication: str, epoch: int) -> None:
        """This node is the origin of a publication under `epoch`; 0: another is, or may be."""
        for track in self._tracks.values():
            if track.publication != publication or track.epoch == epoch:
                continue
            if not epoch:
                self._lost.setdefault(track.handle, self._monotonic() + HANDOVER_S)
                continue
            self._lost.pop(track.handle, None)
            track.epoch = epoch
            self._offer()
            node, session = self._around.node_id, track.session
            self._change(
                partial(publications.set_epoch, publication=publication, node=node, session=session, epoch=epoch)
            )

    def lease_refused(self, publication: str, owner_epoch: int) -> None:
        """Another node still holds a publication whose publisher is here now: he has proved who he is, so take it."""
        for track in self._tracks.values():
            if track.publication == publication and self._shared is not None:
                self._shared.take_over(publication, owner_epoch)

    def offered(self, node: str, catalog: Mapping[str, messages.Publication]) -> None:
        """Another node's catalog."""
        if self._shared is not None:
            self._shared.offered(node, catalog)
            self.flush()

    def remote_handle(self, node: str, publication: str) -> int | None:
        """The track into which a node's packets of a publication go."""
        return None if self._shared is None else self._shared.handle_of(node, publication)

    def request_keyframe(self, handle: int, layer: int) -> None:
        """The plane wants a keyframe of a track that a link feeds."""
        if self._shared is not None:
            self._shared.request_keyframe(handle, layer)

    def nodes_known(self, nodes: frozenset[str]) -> None:
        """The nodes that live. What was published on others waits for its publishers to come back."""
        for node in {each.node for each in self.state.publications.values() if each.state == "live"} - nodes:
            log.warning("a node is gone: its publications pause", room=self.id, node=node)
            self._change(partial(publications.node_away, node=node, now=self._wall()))

    def _lease(self, track: LocalTrack) -> None:
        if self._shared is not None:
            self._shared.lease(track, self.state)

    def _give_up(self, track: LocalTrack) -> None:
        if self._shared is not None:
            self._shared.give_up(track)

    def _offer(self) -> None:
        if self._shared is not None:
            self._shared.offer()

    # --- the document ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass: speakers, layers, seats that were held long enough."""
        now = self._wall()
        self.live.tick(self._monotonic())
        if self._shared is not None:
            self._shared.update(self.state)
            self._shared.sweep()
        self._let_go()
        self._resume()
        due = rooms.next_expiry(self.state, seat_hold_s=self._around.seat_hold_s)
        if due is not None and due <= now:
            self._change(partial(rooms.expire, now=now, seat_hold_s=self._around.seat_hold_s))
        self.flush()

    def _let_go(self) -> None:
        """End what was only kept for those who take it until they have it from elsewhere."""
        if self._leaving:
            self._enforce(self.state)
        for handle in [handle for handle, until in self._lost.items() if until <= self._monotonic()]:
            del self._lost[handle]
            track = self._by_handle.get(handle)
            if track is not None:
                track.epoch = 0
                self._offer()

    def _resume(self) -> None:
        """Others took this node for dead, cut off as it was, but its publishers never stopped."""
        paused = {each.session for each in self.state.publications.values() if each.state == "paused"}
        for session in paused & self.sessions.keys():
            if self.sessions[session].session.state is State.PUBLISHING:
                self._change(partial(publications.resume_session, session=session, now=self._wall()))

    def flush(self) -> None:
        """Hand the live room's decisions to the plane, its events to those who follow."""
        commands = self.live.commands()
        if commands:
            self._submit(*commands)
        if self._shared is not None:
            self._shared.demand()
        told: list[tuple[str, dict[str, Any]]] = []
        for event in self.live.events():
            if isinstance(event, SlotBound):
                self._around.on_slot_bound(event)
            elif self._shared is None or self._shared.speaks_for_all:
                told.append((event.type, event.data()))
        if told:
            self._presence.append(told)

    def _change(
        self, change: Callable[[RoomState], RoomChange], refused: Callable[[RequestError], None] | None = None
    ) -> None:
        self._followed.push(change, refused)

    def _on_state(self, state: RoomState) -> None:
        self.live.update(state, self._monotonic())
        self._enforce(state)
        if self._shared is not None:
            self._shared.update(state)
            self._shared.offer()
        before, self._seated = self._seated, frozenset(state.seats)
        for identity in self._seated - before:
            self._return_to_stage(identity)
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
        for track in self._tracks.values():
            if track.registered and track.publication not in state.publications:
                self.live.track_gone(track.handle, self._monotonic())

    def _replaced(self, local: LocalSession, state: RoomState) -> None:
        """A newer session took a publisher's place, or none is his any more."""
        info = local.session.info
        who = state.participants.get(info.identity)
        if who is None or who.session in self.sessions:
            local.session.close("removed" if who is None else "replaced")
        elif self._leaving.setdefault(info.id, self._monotonic() + HANDOVER_S) <= self._monotonic():
            local.session.close("replaced")

    def _return_to_stage(self, identity: str) -> None:
        """Someone who was taken off the stage and kept his session sits there again: publish his tracks anew."""
        for track in list(self._tracks.values()):
            if track.key[0] != identity or track.publication in self.state.publications or not track.active:
                continue
            self._give_up(track)
            track.publication, track.registered, track.epoch = secrets.token_hex(8), False, 0
            self._lease(track)
            first = next(each for each in track.plan.payload_types if each.codec == track.codec)
            for layer in sorted(track.active):
                self.layer_started(track.handle, layer, first.number)

    def linked_events(self, events: Sequence[RoomEvent]) -> None:
        """Events of the room that another node has sent; the store tells them, too, while it is there."""
        for event in events:
            self._take_event(event)

    def _on_event(self, event: RoomEvent) -> None:
        if self._shared is not None:
            self._shared.event(event)
        self._take_event(event)

    def _take_event(self, event: RoomEvent) -> None:
        if event.type == "participant.kicked":
            # The document comes a moment later and has the ban: closing before would let a fast client in again.
            self._kicked[event.data["identity"]] = event.sync_id

    def _on_end(self) -> None:
        for local in list(self.sessions.values()):
            local.session.close("room-ended")

    def _refuser(self, session: Session) -> Callable[[RequestError], None]:
        def refused(error: RequestError) -> None:
            log.warning("the room refused a session", room=self.id, session=session.info.id, reason=str(error))
            session.close("refused")

        return refused

"""The tracks that are sent to this node in one room: leased, told to the room's document, offered to other nodes.

A track is kept by who sends it and what it shows, so a publisher who comes back with a new session goes on with
the same publication. A lease that another node took leaves the track in its place for `HANDOVER_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, cast

from relay.edge.session import Session
from relay.edge.session_state import State
from relay.errors import RequestError
from relay.node.clustered import ClusteredRoom
from relay.node.local import LocalSession, LocalTrack, TrackKey, add_track, move_track
from relay.node.surroundings import Surroundings
from relay.plane.contract import RemoveTrack
from relay.stage import publications
from relay.stage.document import Codec, MediaKind, RoomChange, RoomState, Source
from relay.stage.live import LiveRoom
from relay.stage.permissions import Actor, Role

HANDOVER_S = 1.0
"""So long after a publisher has moved to another node what he still sends here is handed on: those who watch play it
until they can decode what comes from there."""


class TrackHost(Protocol):
    """The room, as its tracks see it."""

    @property
    def state(self) -> RoomState: ...

    def session(self, ident: str) -> Session | None:
        """The session, while it is here."""
        ...

    def leaves(self, session: str) -> bool:
        """Whether a session is here only until those who watch it have its publisher from elsewhere."""
        ...

    def change(
        self, change: Callable[[RoomState], RoomChange], refused: Callable[[RequestError], None] | None = None
    ) -> None:
        """Write to the document."""
        ...

    def refuser(self, session: Session) -> Callable[[RequestError], None]:
        """What ends a session whose change the room refuses."""
        ...

    def heard(self) -> None:
        """A layer began: the program may want it, slots are to be bound."""
        ...


class RoomTracks:
    """One room's. `on_track(handle, present)` hears of every handle that comes and goes."""

    def __init__(
        self,
        host: TrackHost,
        around: Surroundings,
        live: LiveRoom,
        shared: ClusteredRoom | None,
        on_track: Callable[[int, bool], None],
    ) -> None:
        self._host, self._around, self._live, self._shared, self._on_track = host, around, live, shared, on_track
        self._tracks: dict[TrackKey, LocalTrack] = {}
        self._by_handle: dict[int, LocalTrack] = {}
        self._lost: dict[int, float] = {}

    def __iter__(self) -> Iterator[LocalTrack]:
        return iter(self._by_handle.values())

    def __contains__(self, handle: int) -> bool:
        return handle in self._by_handle

    def of(self, session: str) -> list[LocalTrack]:
        """The tracks that a session sends now."""
        return [track for track in self._tracks.values() if track.session == session]

    def offers(self) -> Iterator[LocalTrack]:
        """What this node is the origin of, by lease and by document."""
        known = self._host.state.publications
        return (
            track
            for track in self._by_handle.values()
            if track.epoch and track.registered and track.publication in known
        )

    # --- who sends them -----------------------------------------------------------------------------------------------

    def take_over(self, local: LocalSession) -> None:
        """Receive a session's tracks; those that an earlier session of the same identity sent move to it."""
        info = local.session.info
        for plan in local.tracks:
            key = (info.identity, plan.kind.value, plan.source)
            track = self._tracks.get(key)
            if track is None:
                known = publications.publication_of(
                    self._host.state, info.identity, plan.kind.value, cast(Source, plan.source)
                )
                publication = known.id if known else self._around.new_id()
                self._take_in(LocalTrack(key, self._around.next_handle(), publication, info.id, plan), info.handle)
            elif track.session != info.id:  # an offer with two cameras sends the first
                track.session, track.plan, track.registered = info.id, plan, False
                track.active.clear()
                if self._lost.pop(track.handle, None) is not None:
                    track.epoch = 0
                self._lease(track)
                self._around.submit(move_track(track, info.handle))

    def inject(self, track: LocalTrack) -> None:
        """Take in a track whose packets this process injects."""
        self._take_in(track, None)

    def _take_in(self, track: LocalTrack, session: int | None) -> None:
        self._tracks[track.key] = self._by_handle[track.handle] = track
        self._on_track(track.handle, True)
        self._around.submit(add_track(track, session))
        self._lease(track)

    def withdraw(self, track: LocalTrack) -> None:
        """Forget a track that was injected."""
        self.forget(track)
        self._around.submit(*self._live.commands(), RemoveTrack(track.handle))

    def forget(self, track: LocalTrack) -> None:
        """A track ends with its session, whose end has made the plane forget it."""
        del self._tracks[track.key], self._by_handle[track.handle]
        self._give_up(track)
        self._on_track(track.handle, False)
        self._live.track_gone(track.handle, self._around.monotonic())

    def rename(self, track: LocalTrack, publication: str) -> None:
        """A track is this publication from now on."""
        self._give_up(track)
        self._live.track_gone(track.handle, self._around.monotonic())
        self._publish_anew(track, publication)

    def return_to_stage(self, identity: str) -> None:
        """Someone who was taken off the stage and kept his session sits there again: publish his tracks anew."""
        for track in list(self._tracks.values()):
            if track.key[0] != identity or track.publication in self._host.state.publications or not track.active:
                continue
            self._give_up(track)
            self._publish_anew(track, self._around.new_id())

    def _publish_anew(self, track: LocalTrack, publication: str) -> None:
        track.publication, track.registered, track.epoch = publication, False, 0
        self._lease(track)
        numbers = [each.number for each in track.plan.payload_types if each.codec == track.codec]
        for layer in sorted(track.active):
            self.layer_started(track.handle, layer, numbers[0])

    # --- what arrives -------------------------------------------------------------------------------------------------

    def layer_started(self, handle: int, layer: int, payload_type: int) -> None:
        """Packets of a layer arrive: the publication starts, resumes, or has one layer more."""
        track = self._by_handle.get(handle)
        if track is None or not self._sends(track):
            return
        track.active.add(layer)
        track.codec = track.codec_of(payload_type) or track.codec
        format_ = next(each for each in track.plan.payload_types if each.number == payload_type)
        self._register(track)
        self._offer()
        now = self._around.monotonic()
        self._live.publication_local(track.publication, handle, track.plan.kind, track.rids, format_, now)
        self._live.on_layer_started(handle, layer, now)
        self._host.heard()

    def _sends(self, track: LocalTrack) -> bool:
        """Whether who sends it may."""
        here = self._host.session(track.session) is not None and not self._host.leaves(track.session)
        return here or track.register is not None

    def layer_stopped(self, handle: int, layer: int) -> bool:
        """A layer fell silent; False for a handle that is none of these."""
        track = self._by_handle.get(handle)
        if track is None:
            return False
        track.active.discard(layer)
        self._offer()
        self._live.on_layer_stopped(handle, layer, self._around.monotonic())
        if track.registered and track.active:
            change = partial(
                publications.set_layers, publication=track.publication, layers=track.active_rids, session=track.session
            )
            self._host.change(lambda state: change(state) if track.publication in state.publications else (state, []))
        return True

    def _register(self, track: LocalTrack) -> None:
        """Tell the room of a track: start or resume its publication, or note its layers."""
        if track.register is not None:
            track.registered = True
            self._host.change(track.register(track))
            return
        session = self._host.session(track.session)
        assert session is not None  # `layer_started` has asked
        actor, now = Actor(session.info.identity, Role(session.info.role)), self._around.wall()
        ident, codec, layers, known = track.publication, track.codec, track.active_rids, track.registered
        _, kind, source = track.key

        def register(state: RoomState) -> RoomChange:
            if is_passed_by(state, session):
                return state, []
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
        self._host.change(register, self._host.refuser(session))

    def sweep(self, state: RoomState) -> None:
        """What the document no longer has is not played any more."""
        for track in self._tracks.values():
            if track.registered and track.publication not in state.publications:
                self._live.track_gone(track.handle, self._around.monotonic())

    # --- leases -------------------------------------------------------------------------------------------------------

    def lease_changed(self, publication: str, epoch: int) -> None:
        """This node is the origin of a publication under `epoch`; 0: another is, or may be."""
        for track in self._tracks.values():
            if track.publication != publication or track.epoch == epoch:
                continue
            if not epoch:
                self._lost.setdefault(track.handle, self._around.monotonic() + HANDOVER_S)
                continue
            self._lost.pop(track.handle, None)
            track.epoch = epoch
            self._offer()
            node, session = self._around.node_id, track.session
            self._host.change(
                partial(publications.set_epoch, publication=publication, node=node, session=session, epoch=epoch)
            )

    def lease_refused(self, publication: str, owner_epoch: int) -> None:
        """Another node still holds a publication whose publisher is here now: he has proved who he is, so take it."""
        for track in self._tracks.values():
            session = self._host.session(track.session)
            if session is not None and is_passed_by(self._host.state, session):
                continue
            if track.publication == publication and self._shared is not None:
                self._shared.take_over(publication, owner_epoch)

    def let_go(self) -> None:
        """End what was only kept for those who take it until they have it from elsewhere."""
        for handle in [handle for handle, until in self._lost.items() if until <= self._around.monotonic()]:
            del self._lost[handle]
            track = self._by_handle.get(handle)
            if track is not None:
                track.epoch = 0
                self._offer()
                known = self._host.state.publications.get(track.publication)
                if known is not None and (known.node, known.session) == (self._around.node_id, track.session):
                    self._lease(track)  # who took it does not have the publisher: by the document he still is here

    def _lease(self, track: LocalTrack) -> None:
        if self._shared is not None:
            self._shared.lease(track, self._host.state)

    def _give_up(self, track: LocalTrack) -> None:
        if self._shared is not None:
            self._shared.give_up(track)

    def _offer(self) -> None:
        if self._shared is not None:
            self._shared.offer()


def is_passed_by(state: RoomState, session: Session) -> bool:
    """Whether a publisher is elsewhere by now and silent here: what a node writes of him after a long outage of the
    store must not send him away from where he is."""
    who = state.participants.get(session.info.identity)
    elsewhere = who is not None and who.connected and who.session not in (None, session.info.id)
    return elsewhere and session.state in (State.PAUSING, State.CLOSED)

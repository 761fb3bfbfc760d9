"""The sessions of a room on this node, and what their coming and going means for its document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from relay.edge.session import Session, SessionInfo
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
from relay.node.local import LocalSession
from relay.node.presence import Presence, is_audience
from relay.node.surroundings import Surroundings
from relay.node.tracks import HANDOVER_S, RoomTracks, is_passed_by
from relay.ports import RoomEvent
from relay.stage import people, publications
from relay.stage import room as rooms
from relay.stage.document import RoomChange, RoomState
from relay.stage.permissions import Actor, Role

log = structlog.get_logger()

_KEEPS_SEAT = frozenset({"drain"})  # reasons after which a publisher is expected back elsewhere


class AttendanceHost(Protocol):
    """The room, as its sessions see it."""

    id: str

    @property
    def state(self) -> RoomState: ...

    def change(
        self, change: Callable[[RoomState], RoomChange], refused: Callable[[RequestError], None] | None = None
    ) -> None:
        """Write to the document."""
        ...

    def viewer_gone(self, local: LocalSession) -> None:
        """Somebody watches no longer."""
        ...

    def flush(self) -> None:
        """Hand decisions to the plane, and events to those who follow."""
        ...


class Attendance:
    """One room's. `sessions` are those that are here, by id."""

    def __init__(self, host: AttendanceHost, around: Surroundings) -> None:
        self.sessions: dict[str, LocalSession] = {}
        self.idle_since = around.monotonic()
        """When the last one went."""
        self._host, self._node_id = host, around.node_id
        self._wall, self._monotonic, self._tell_session = around.wall, around.monotonic, around.tell_session
        self._kicked: dict[str, int] = {}
        self._leaving: dict[str, float] = {}

    def session(self, ident: str) -> Session | None:
        """The session, while it is here."""
        local = self.sessions.get(ident)
        return None if local is None else local.session

    def infos(self) -> Iterable[SessionInfo]:
        """What the sessions are."""
        return [local.session.info for local in self.sessions.values()]

    def leaves(self, session: str) -> bool:
        """Whether a session is here only until those who watch it have its publisher from elsewhere."""
        return session in self._leaving

    def took_transition(self, session: Session, transition: Transition, tracks: RoomTracks, presence: Presence) -> None:
        """Something happened to one of the sessions."""
        ident = session.info.id
        match transition:
            case SessionConnected():
                self._connected(self.sessions[ident], tracks, presence)
            case PublishingStarted():
                pass  # the publications start with their first packets
            case PublishingPaused():
                self._host.change(partial(publications.session_away, session=ident, now=self._wall()))
            case PublishingResumed():
                self._host.change(partial(publications.resume_session, session=ident, now=self._wall()))
            case SessionClosed(reason):
                self._closed(session, reason, tracks, presence)

    def disown(self) -> None:
        """What the document says of this node's earlier life is over: its sessions ended with its process."""
        mine = [each for each in self._host.state.publications.values() if each.node == self._node_id]
        for session in {each.session for each in mine} - self.sessions.keys():
            self._host.change(partial(publications.session_away, session=session, now=self._wall()))

    def tick(self) -> None:
        """Let time pass: close who has left by now, and resume what others paused though its publisher never stopped,
        as they took this node for dead, cut off as it was."""
        state = self._host.state
        if self._leaving:
            self.enforce(state)
        paused = {each.session for each in state.publications.values() if each.state == "paused"}
        for session in paused & self.sessions.keys():
            if self.sessions[session].session.state is State.PUBLISHING:
                self._host.change(partial(publications.resume_session, session=session, now=self._wall()))

    def enforce(self, state: RoomState) -> None:
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

    def tell(self, event: RoomEvent) -> None:
        """Give an event to those who follow any of the sessions."""
        for session in self.sessions:
            self._tell_session(session, event)

    def take_event(self, event: RoomEvent) -> None:
        """Hear of somebody who is kicked."""
        if event.type == "participant.kicked":
            # The document comes a moment later and has the ban: closing before would let a fast client in again.
            self._kicked[event.data["identity"]] = event.sync_id

    def stay(self) -> None:
        """Count as if the last session had gone just now."""
        self.idle_since = self._monotonic()

    def end(self, reason: str) -> None:
        """Close all sessions."""
        for local in list(self.sessions.values()):
            local.session.close(reason)

    def refuser(self, session: Session) -> Callable[[RequestError], None]:
        """What ends a session whose change the room refuses."""

        def refused(error: RequestError) -> None:
            log.warning("the room refused a session", room=self._host.id, session=session.info.id, reason=str(error))
            session.close("refused")

        return refused

    # --- inside -----------------------------------------------------------------------------------------------------

    def _connected(self, local: LocalSession, tracks: RoomTracks, presence: Presence) -> None:
        info = local.session.info
        if info.kind == "publisher":
            tracks.take_over(local)
            self._join(local.session)  # last, since it closes the earlier session with what that still has
            return
        if info.role in (Role.OWNER, Role.GUEST, Role.MODERATOR):
            actor = Actor(info.identity, Role(info.role))
            self._host.change(lambda state: people.join(state, actor, self._wall()))
        else:
            presence.came(info)

    def _join(self, session: Session) -> None:
        actor, ident = Actor(session.info.identity, Role(session.info.role)), session.info.id
        now = self._wall()

        def join(state: RoomState) -> RoomChange:
            return (state, []) if is_passed_by(state, session) else people.join(state, actor, now, ident)

        self._host.change(join, self.refuser(session))

    def _closed(self, session: Session, reason: str, tracks: RoomTracks, presence: Presence) -> None:
        info = session.info
        local = self.sessions.pop(info.id)
        self._leaving.pop(info.id, None)
        self.stay()
        if info.kind == "viewer":
            self._host.viewer_gone(local)
            others = any(each.session.info.identity == info.identity for each in self.sessions.values())
            if not others and is_audience(info):
                presence.went(info.identity)
        else:
            ended = tracks.of(info.id)
            for track in ended:
                tracks.forget(track)
            self._host.change(_goodbye(info.id, reason, [track.publication for track in ended], self._wall()))
        self._host.flush()

    def _replaced(self, local: LocalSession, state: RoomState) -> None:
        """A newer session took a publisher's place, or none is his any more."""
        info = local.session.info
        who = state.participants.get(info.identity)
        if who is None or who.session in self.sessions:
            local.session.close("removed" if who is None else "replaced")
        elif self._leaving.setdefault(info.id, self._monotonic() + HANDOVER_S) <= self._monotonic():
            local.session.close("replaced")


def _goodbye(session: str, reason: str, ended: Sequence[str], now: float) -> Callable[[RoomState], RoomChange]:
    """What the end of a publishing session means for the room."""
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

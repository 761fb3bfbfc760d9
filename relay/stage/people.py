"""Who is in a room: joining, roles given in the room, and bans."""

from __future__ import annotations

from dataclasses import replace

from relay.errors import Conflict, Forbidden, NotFound
from relay.stage import permissions
from relay.stage.document import PROGRAM, Participant, RoomChange, RoomState
from relay.stage.permissions import Action, Actor, Role
from relay.stage.views import timestamp

MAX_PARTICIPANTS = 128
"""Hosts and moderators of one room; bounds the document."""


def require(state: RoomState, actor: Actor, action: Action, target: str | None = None) -> None:
    """Raise Forbidden unless the actor, with the role that counts here, may do this to the target."""
    who = state.participants.get(target) if target is not None else None
    role = who.role if who else state.roles.get(target or "")
    permissions.require(as_of_room(state, actor), action, target, role)


def effective_role(state: RoomState, actor: Actor) -> Role:
    """Return the role that counts: the one given in the room, else the token's. Owner and service keep theirs."""
    if actor.role in (Role.OWNER, Role.SERVICE):
        return actor.role
    return state.roles.get(actor.identity, actor.role)


def as_of_room(state: RoomState, actor: Actor) -> Actor:
    """Return the actor with the role that counts in this room."""
    return replace(actor, role=effective_role(state, actor))


def participant(state: RoomState, identity: str) -> Participant:
    """Return a host or moderator. Raises NotFound."""
    found = state.participants.get(identity)
    if found is None:
        raise NotFound(f"no participant {identity} in room {state.id}", code="participant-not-found")
    return found


def check_ban(state: RoomState, identity: str, now: float, role: Role | None = None) -> None:
    """Raise Forbidden while the identity is kept out. A ban never holds an owner."""
    if role is Role.OWNER:
        return
    until = state.bans.get(identity, 0.0)
    if until > now:
        raise Forbidden(f"{identity} was removed from room {state.id} until {timestamp(until)}", code="banned")


def join(state: RoomState, actor: Actor, now: float, session: str | None = None) -> RoomChange:
    """Enter a host or moderator into the document; `session` when he comes to publish. Viewers are presence only.

    Of two publishing sessions with one identity the newer replaces the older: a browser that reloads or changes its
    network is back long before the silence of its old connection is noticed, and refusing it would lock a host out of
    his own show. The document names the session that counts; whoever runs another one for the identity closes it, and
    what that one still reports (`publications.session_away`, `room.session_left`) is ignored: its name does not match.
    """
    check_ban(state, actor.identity, now, actor.role)
    actor = as_of_room(state, actor)
    if actor.identity == PROGRAM:
        raise Forbidden(f"no participant may be called {PROGRAM}: that is the mixed picture and sound of the stage")
    if actor.role in (Role.VIEWER, Role.SERVICE):
        if session is not None:
            raise Forbidden(f"role {actor.role} may not {Action.PUBLISH.value}")
        return state, []
    before = state.participants.get(actor.identity)
    if before is None and len(state.participants) >= MAX_PARTICIPANTS:
        raise Conflict(f"room {state.id} has {MAX_PARTICIPANTS} hosts and moderators already", code="room-full")
    after = before or Participant(actor.identity, actor.role, since=now)
    after = replace(after, role=actor.role)
    if session is not None:
        require(state, actor, Action.PUBLISH, actor.identity)
        after = replace(after, session=session, connected=True)
    if after == before:
        return state, []
    state = replace(state, participants=state.participants | {actor.identity: after})
    events = [("participant.joined", {"identity": actor.identity, "role": actor.role.value})] if before is None else []
    return state, events

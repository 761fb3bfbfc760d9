"""A room's life and its people: pure functions from a state to a new state and the events (type, data) that tell it.

Every function takes wall time as `now` in seconds and raises NotFound, Conflict or Forbidden with a `code`; a change
that changes nothing returns the same state and no events. Seats are in `seats`, tracks in `publications`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from relay.errors import Conflict, Forbidden, NotFound
from relay.stage import people, publications, seats
from relay.stage.document import Codec, RoomChange, RoomState, StagePolicy, Traffic
from relay.stage.permissions import Action, Actor, Role, is_host, require
from relay.stage.views import room_view, timestamp

MAX_BAN_S = 86_400.0
SEAT_HOLD_S = 60.0
"""How long a seat waits for its participant, unless settings say otherwise."""


def changing(function: Callable[[RoomState], RoomChange]) -> Callable[[dict[str, Any]], tuple[dict[str, Any], Any]]:
    """Wrap a change of the state for `RoomStore.change`, which works on JSON documents."""

    def apply(document: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
        state = RoomState.from_json(document)
        changed, events = function(state)
        return (document if changed is state else changed.to_json()), events

    return apply


def create(
    actor: Actor,
    room: str,
    now: float,
    *,
    codecs: tuple[Codec, ...] = ("opus", "vp8", "h264", "vp9", "av1"),
    max_seats: int = 8,
    stage_policy: StagePolicy = "open",
    traffic: Traffic = "live",
    metadata: dict[str, Any] | None = None,
) -> RoomChange:
    """Make a room. Its event is `room.created` with the `Room` schema."""
    require(actor, Action.CREATE_ROOM)
    state = RoomState(
        id=room,
        created_at=now,
        codecs=codecs,
        max_seats=max_seats,
        stage_policy=stage_policy,
        traffic=traffic,
        metadata=metadata or {},
    )
    return state, [("room.created", {"room": room_view(state)})]


def leave(state: RoomState, identity: str, now: float, *, reason: str = "left") -> RoomChange:
    """Take a host out with his seat and publications. One who is not in the document changes nothing."""
    if identity not in state.participants:
        return state, []
    state, events = publications.end_all(state, identity, reason, now)
    state, more = seats.vacate(state, identity, by=identity, reason=reason)
    participants = {name: who for name, who in state.participants.items() if name != identity}
    left = ("participant.left", {"identity": identity, "reason": reason})
    return replace(state, participants=participants), [*events, *more, left]


def leave_seat(state: RoomState, actor: Actor, identity: str, now: float) -> RoomChange:
    """Take someone off the stage; his publications end, his session may stay and publish again later."""
    if identity not in state.seats:
        raise NotFound(f"{identity} has no seat", code="participant-not-found")
    people.require(state, actor, Action.LEAVE_SEAT, identity)
    reason = "left" if actor.identity == identity else "removed"
    state, events = publications.end_all(state, identity, reason, now)
    state, more = seats.vacate(state, identity, by=actor.identity, reason=reason)
    return state, events + more


def session_left(state: RoomState, session: str, now: float) -> RoomChange:
    """A publishing session was closed on purpose: what is still its own ends, and its participant leaves."""
    owners = [who.identity for who in state.participants.values() if who.session == session]
    if owners:
        return leave(state, owners[0], now)
    events: list[tuple[str, dict[str, Any]]] = []
    for each in [each for each in state.publications.values() if each.session == session]:
        state, more = publications.end(state, each, "left", now)
        events += more
    return state, events


def change_role(state: RoomState, actor: Actor, identity: str, role: Role, now: float) -> RoomChange:
    """Give a role for this room; it wins over the token's. Losing the right to publish costs seat and publications."""
    target = state.participants.get(identity)
    people.require(state, actor, Action.CHANGE_ROLE, identity)
    if role in (Role.OWNER, Role.SERVICE) or (target is not None and target.role is Role.OWNER):
        raise Conflict("the role of owner comes from a token and cannot be given or taken", code="owner-role")
    if (target.role if target else state.roles.get(identity)) is role:
        return state, []
    if identity not in state.roles and len(state.roles) >= people.MAX_PARTICIPANTS:
        raise Conflict(f"room {state.id} has given {people.MAX_PARTICIPANTS} roles already", code="room-full")
    state = replace(state, roles=state.roles | {identity: role})
    told = {"identity": identity, "role": role.value, "by": actor.identity}
    events: list[tuple[str, dict[str, Any]]] = [("participant.role_changed", told)]
    if role is Role.VIEWER:
        state, more = leave(state, identity, now, reason="role-changed")
        return state, events + more
    if target is None:
        return state, events
    state = replace(state, participants=state.participants | {identity: replace(target, role=role)})
    if not is_host(role):
        state, ended = publications.end_all(state, identity, "role-changed", now)
        state, vacated = seats.vacate(state, identity, by=actor.identity, reason="role-changed")
        events += ended + vacated
    return state, events


def mute(
    state: RoomState, actor: Actor, identity: str, *, audio: bool | None = None, video: bool | None = None
) -> RoomChange:
    """Mute or unmute everything that a participant publishes of a kind; None leaves a kind as it is."""
    who = people.participant(state, identity)
    people.require(state, actor, Action.MUTE, identity)
    after = replace(
        who,
        muted_audio=who.muted_audio if audio is None else audio,
        muted_video=who.muted_video if video is None else video,
    )
    if after == who:
        return state, []
    muted = {"audio": after.muted_audio, "video": after.muted_video}
    state = replace(state, participants=state.participants | {identity: after})
    return state, [("participant.muted", {"identity": identity, "muted": muted, "by": actor.identity})]


def kick(state: RoomState, actor: Actor, identity: str, now: float, *, ban_s: float = 60.0) -> RoomChange:
    """Remove someone and keep the identity out for `ban_s` seconds. Viewers can be kicked too; the owner cannot."""
    target = state.participants.get(identity)
    role = target.role if target else state.roles.get(identity)
    if role is Role.OWNER:
        raise Forbidden("the owner of a room cannot be removed from it")
    people.require(state, actor, Action.KICK, identity)
    until = now + min(max(ban_s, 0.0), MAX_BAN_S)
    state, events = leave(state, identity, now, reason="kicked")
    bans = {name: end for name, end in state.bans.items() if end > now} | {identity: until}
    state = replace(
        state,
        bans=bans,
        roles={name: given for name, given in state.roles.items() if name != identity},
        invitations={name: each for name, each in state.invitations.items() if name != identity},
    )
    return state, [
        *events,
        ("participant.kicked", {"identity": identity, "by": actor.identity, "until": timestamp(until)}),
    ]


def expire(state: RoomState, now: float, *, seat_hold_s: float = SEAT_HOLD_S) -> RoomChange:
    """Let go what time has ended: invitations, bans, and the seats of those who did not come back.

    Anybody may call it at any time; `next_expiry` tells when it next has something to do.
    """
    state, events = seats.expire_invitations(state, now)
    bans = {name: until for name, until in state.bans.items() if until > now}
    if len(bans) != len(state.bans):
        state = replace(state, bans=bans)
    for seat in list(state.seats.values()):
        if seat.away_since is not None and seat.away_since + seat_hold_s <= now:
            state, more = leave(state, seat.identity, now, reason="timeout")
            events = events + more
    return state, events


def next_expiry(state: RoomState, *, seat_hold_s: float = SEAT_HOLD_S) -> float | None:
    """Return the wall time at which `expire` next changes something; None when nothing waits."""
    times = [each.expires_at for each in state.invitations.values()]
    times += state.bans.values()
    times += [seat.away_since + seat_hold_s for seat in state.seats.values() if seat.away_since is not None]
    return min(times, default=None)

"""The stage: who has a seat, on air or backstage, and who is invited to one.

`max_seats` bounds those on air. Policy `open` puts hosts on air while a seat is free; policy `invite` keeps guests
backstage until they accept an invitation or are put on air. The owner always goes on air: on a full stage the guest who
came last makes room, because a show whose owner is locked out has nobody who could end it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relay.errors import Conflict, NotFound
from relay.stage import people
from relay.stage.document import Invitation, Participant, RoomChange, RoomState, Seat, SeatState
from relay.stage.permissions import Action, Actor, Role, is_host
from relay.stage.views import timestamp

INVITATION_S = 120.0
MAX_BACKSTAGE = 64
"""Bounds the document."""
MAX_INVITATIONS = 64

_Events = list[tuple[str, dict[str, Any]]]


def invite(state: RoomState, actor: Actor, identity: str, now: float) -> RoomChange:
    """Invite somebody, viewers too; a second invitation renews the first."""
    people.require(state, actor, Action.INVITE, identity)
    people.check_ban(state, identity, now)
    seat = state.seats.get(identity)
    if seat is not None and seat.state == "on_air":
        raise Conflict(f"{identity} is on air already", code="already-on-air")
    if identity not in state.invitations and len(state.invitations) >= MAX_INVITATIONS:
        raise Conflict(f"{MAX_INVITATIONS} invitations are open already", code="room-full")
    invitation = Invitation(identity, actor.identity, now + INVITATION_S)
    state = replace(state, invitations=state.invitations | {identity: invitation})
    data = {"identity": identity, "by": actor.identity, "expires_at": timestamp(invitation.expires_at)}
    return state, [("stage.invited", data)]


def _open_invitation(state: RoomState, identity: str, now: float) -> Invitation:
    invitation = state.invitations.get(identity)
    if invitation is None or invitation.expires_at <= now:
        raise NotFound(f"no open invitation for {identity}", code="invitation-not-found")
    return invitation


def _without_invitation(state: RoomState, identity: str) -> RoomState:
    return replace(state, invitations={name: each for name, each in state.invitations.items() if name != identity})


def accept(state: RoomState, actor: Actor, identity: str, now: float) -> RoomChange:
    """Accept for oneself: a viewer becomes a guest, and the seat is on air. Raises Conflict when the stage is full."""
    people.require(state, actor, Action.ANSWER_INVITATION, identity)
    people.check_ban(state, identity, now)
    invitation = _open_invitation(state, identity, now)
    before = state.participants.get(identity)
    role = before.role if before and is_host(before.role) else Role.GUEST
    who = replace(before, role=role) if before else Participant(identity, role, since=now)
    given = state.roles if role is Role.OWNER else state.roles | {identity: role}
    state = replace(
        _without_invitation(state, identity), participants=state.participants | {identity: who}, roles=given
    )
    events: _Events = [("stage.accepted", {"identity": identity, "by": invitation.by})]
    if before is None:
        events.append(("participant.joined", {"identity": identity, "role": role.value}))
    state, seated = _seat(state, identity, "on_air", now, by=identity)
    return state, events + seated


def decline(state: RoomState, actor: Actor, identity: str, now: float) -> RoomChange:
    """Decline for oneself, or withdraw another's invitation. Raises NotFound when none is open."""
    action = Action.ANSWER_INVITATION if actor.identity == identity else Action.INVITE
    people.require(state, actor, action, identity)
    _open_invitation(state, identity, now)
    reason = "declined" if actor.identity == identity else "withdrawn"
    return _without_invitation(state, identity), [("stage.declined", {"identity": identity, "reason": reason})]


def expire_invitations(state: RoomState, now: float) -> RoomChange:
    """Drop invitations that nobody answered."""
    events: _Events = []
    for invitation in list(state.invitations.values()):
        if invitation.expires_at <= now:
            state = _without_invitation(state, invitation.identity)
            events.append(("stage.declined", {"identity": invitation.identity, "reason": "expired"}))
    return state, events


def set_seat(state: RoomState, actor: Actor, identity: str, seat_state: SeatState, now: float) -> RoomChange:
    """Put a host on air or backstage. Under policy `invite` a guest cannot put himself on air.

    Raises Conflict with code `seat-taken` when all seats on air are taken.
    """
    who = people.participant(state, identity)
    people.require(state, actor, Action.PUT_SEAT, identity)
    if not is_host(who.role):
        raise Conflict(f"{identity} is a {who.role} and cannot be on the stage", code="not-a-host")
    alone = actor.identity == identity and actor.role is Role.GUEST
    if alone and seat_state == "on_air" and state.stage_policy == "invite" and identity not in state.on_air():
        raise Conflict("this stage is by invitation: somebody has to put you on air", code="invitation-needed")
    return _seat(state, identity, seat_state, now, by=actor.identity)


def vacate(state: RoomState, identity: str, *, by: str, reason: str) -> RoomChange:
    """Free the seat of someone who may have none."""
    if identity not in state.seats:
        return state, []
    seats = {name: seat for name, seat in state.seats.items() if name != identity}
    return replace(state, seats=seats), [("stage.left", {"identity": identity, "by": by, "reason": reason})]


def seat_publisher(state: RoomState, identity: str, role: Role, now: float) -> RoomChange:
    """Seat one who starts to publish, as the policy says; an existing seat is kept and no longer away."""
    seat = state.seats.get(identity)
    if seat is not None:
        if seat.away_since is None:
            return state, []
        return replace(state, seats=state.seats | {identity: replace(seat, away_since=None)}), []
    if role is Role.OWNER:
        state, events = _make_room(state, now)
    else:
        events = []
    free = len(state.on_air()) < state.max_seats
    on_air = role is Role.OWNER or (state.stage_policy == "open" and free)
    state, more = _seat(state, identity, "on_air" if on_air else "backstage", now, by=identity)
    return state, events + more


def set_away(state: RoomState, identity: str, now: float) -> RoomState:
    """Note that the seat waits for its participant from now on."""
    seat = state.seats.get(identity)
    if seat is None or seat.away_since is not None:
        return state
    return replace(state, seats=state.seats | {identity: replace(seat, away_since=now)})


def _make_room(state: RoomState, now: float) -> RoomChange:
    on_air = state.on_air()
    if len(on_air) < state.max_seats:
        return state, []
    guests = [name for name in on_air if state.participants[name].role is not Role.OWNER]
    return _seat(state, guests[-1], "backstage", now, by="policy") if guests else (state, [])


def _seat(state: RoomState, identity: str, wanted: SeatState, now: float, *, by: str) -> RoomChange:
    before = state.seats.get(identity)
    if before is not None and before.state == wanted:
        return state, []
    if wanted == "on_air" and len(state.on_air()) >= state.max_seats:
        raise Conflict(f"all {state.max_seats} seats of room {state.id} are taken", code="seat-taken")
    if wanted == "backstage" and len(state.seats) - len(state.on_air()) >= MAX_BACKSTAGE:
        raise Conflict(f"{MAX_BACKSTAGE} hosts are backstage already", code="room-full")
    publishing = any(each.identity == identity and each.state == "live" for each in state.publications.values())
    away = before.away_since if before else (None if publishing else now)
    seat = Seat(identity, wanted, since=now, away_since=away)
    state = replace(state, seats=state.seats | {identity: seat})
    return state, [("stage.seat_changed", {"identity": identity, "state": wanted, "by": by})]

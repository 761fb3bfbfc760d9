"""A room's part in PKs: what its document says of them, what it may show of the other room, and how that looks.

Both rooms show both stages or neither does. What decides is the record (`pk`), which both are told of; a room that was
told later catches up, and one that knows a later epoch never goes back. A claim binds the room to one PK at a time: it
is made in both documents before the record says that the PK starts, names that start's fence, and is let go only once
the record has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from relay.errors import Conflict
from relay.stage.document import RoomChange, RoomState
from relay.stage.pk import Pk, PkClaim
from relay.stage.times import timestamp

MAX_KNOWN = 16
"""Open invitations, the PK that runs among them; bounds the document."""
CLAIM_S = 5.0
"""A claim whose PK has not started after this long may be taken for another: whoever made it has died half way."""
AWAY_S = 10.0
"""A PK ends when nobody of one side has been there for this long."""


def introduce(state: RoomState, pk: Pk) -> RoomChange:
    """Tell a room of a new invitation, its own or another's. Raises Conflict when it has too many."""
    if pk.id in state.pk.known or pk.state != "invited":
        return state, []
    if len(state.pk.known) >= MAX_KNOWN:
        raise Conflict(f"room {state.id} has {MAX_KNOWN} invitations to PKs open", code="room-full")
    return _known(state, pk), [(move.type, move.data) for move in pk.moves]


def claim(state: RoomState, pk: Pk, now: float) -> RoomChange:
    """Bind the room to a PK. Raises Conflict: `pk-busy` while it is bound to another, `pk-over` when it does not know
    this one, having begun anew since it was invited."""
    if pk.id not in state.pk.known:
        raise Conflict(f"room {state.id} knows nothing of PK {pk.id}", code="pk-over")
    held = state.pk.claim
    if held is not None and held.id != pk.id:
        raise Conflict(f"room {state.id} is in another PK", code="pk-busy")
    if held is not None:
        return state, []
    epoch = max(state.pk.claims + 1, int(now * 1000))  # also greater than in a room of this name before
    made = PkClaim(pk.id, epoch, now)
    return replace(state, pk=replace(state.pk, claim=made, claims=epoch)), []


def release(state: RoomState, ident: str, epoch: int) -> RoomChange:
    """Take back a claim that came to nothing."""
    held = state.pk.claim
    if held is None or (held.id, held.epoch) != (ident, epoch):
        return state, []
    return replace(state, pk=replace(state.pk, claim=None)), []


def hear(state: RoomState, pk: Pk) -> RoomChange:
    """Take the newest record: the room's events are the moves that it did not know. What is older is ignored."""
    known = state.pk.known.get(pk.id)
    if known is None or known.epoch >= pk.epoch:
        return state, []
    events = [(move.type, move.data) for move in pk.moves if move.epoch > known.epoch]
    if pk.state != "ended":
        return _known(state, pk), events
    rest = {ident: each for ident, each in state.pk.known.items() if ident != pk.id}
    held = state.pk.claim if state.pk.claim is not None and state.pk.claim.id != pk.id else None
    last = replace(pk, moves=()) if known.state == "running" or pk.starts_at else state.pk.last
    return replace(state, pk=replace(state.pk, known=rest, claim=held, last=last)), events


def _known(state: RoomState, pk: Pk) -> RoomState:
    return replace(state, pk=replace(state.pk, known=state.pk.known | {pk.id: replace(pk, moves=())}))


def current(state: RoomState) -> Pk | None:
    """Return the PK that the room takes part in, decided and not over as far as it knows."""
    held = state.pk.claim
    pk = state.pk.known.get(held.id) if held is not None else None
    if held is None or pk is None or pk.state != "running" or pk.side(state.id).claim != held.epoch:
        return None
    return pk


def shown(state: RoomState, other: RoomState | None, now: int) -> Pk | None:
    """Return the PK whose other stage the room shows at sync id `now`: both rooms stand by it, and it is its time."""
    pk = current(state)
    if pk is None or other is None or not pk.starts_at <= now < pk.ends_at:
        return None
    return pk if stands_by(other, pk) else None


def stands_by(state: RoomState, pk: Pk) -> bool:
    """Whether a room is bound to a PK by the claim that its start names. A room that began anew is not."""
    held = state.pk.claim
    return held is not None and held.id == pk.id and held.epoch == pk.side(state.id).claim


def guest(room: str, identity: str) -> str:
    """Return the name that somebody of another room has here. No participant's own identity looks like it."""
    return f"{room}/{identity}"


def with_guests(state: RoomState, other: RoomState) -> RoomState:
    """Return the room with those on air in another room on its stage, after its own."""
    names = {identity: guest(other.id, identity) for identity in other.on_air()}
    seats = {names[name]: replace(other.seats[name], identity=names[name]) for name in names}
    people = {
        names[name]: replace(who, identity=names[name]) for name, who in other.participants.items() if name in names
    }
    tracks = {
        each.id: replace(each, identity=names[each.identity])
        for each in other.publications.values()
        if each.identity in names
    }
    return replace(
        state,
        seats=state.seats | seats,
        participants=state.participants | people,
        publications=state.publications | tracks,
    )


def away_since(state: RoomState) -> float | None:
    """Return since when nobody on air has been there; None while somebody is, 0 when nobody has a seat."""
    on_air = [state.seats[name].away_since for name in state.on_air()]
    if any(since is None for since in on_air):
        return None
    return max((since for since in on_air if since is not None), default=0.0)


# --- how it looks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PkTeam:
    """One side as a room shows it: its points, and who is on air as they are named in this room."""

    room: str
    points: int
    on_air: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PkView:
    """A PK as one room shows it, its own side first. Until `starts_at` both count down, then both stages are shown;
    moments are sync ids."""

    id: str
    phase: Literal["countdown", "running"]
    starts_at: int
    ends_at: int
    own: PkTeam
    other: PkTeam


def pk_view(state: RoomState, other: RoomState | None, now: int) -> PkView | None:
    """Return what is to be seen of the room's PK at sync id `now`; None when there is none or `other` left it."""
    pk = current(state)
    if pk is None or other is None or not stands_by(other, pk) or now >= pk.ends_at:
        return None
    theirs = tuple(guest(other.id, identity) for identity in other.on_air())
    return PkView(
        pk.id,
        "running" if now >= pk.starts_at else "countdown",
        pk.starts_at,
        pk.ends_at,
        PkTeam(state.id, pk.side(state.id).points, tuple(state.on_air())),
        PkTeam(other.id, pk.side(other.id).points, theirs),
    )


def record_view(pk: Pk, room: str) -> dict[str, Any]:
    """Return the `Pk` schema of the API, as seen from a room."""
    return {
        "id": pk.id,
        "state": pk.state,
        "epoch": pk.epoch,
        "room": room,
        "other": pk.other(room),
        "invited_by": {"room": pk.rooms[0], "identity": pk.by},
        "since": timestamp(pk.since),
        "expires_at": timestamp(pk.expires_at) if pk.state == "invited" else None,
        "duration_s": pk.duration_s,
        "countdown_s": pk.countdown_s,
        "starts_at": str(pk.starts_at) if pk.starts_at else None,
        "ends_at": str(pk.ends_at) if pk.ends_at else None,
        "scores": pk.scores(),
        "reason": pk.reason or None,
    }


def room_pk_view(state: RoomState) -> dict[str, Any]:
    """Return the `RoomPk` schema: the PK that runs, open invitations in both directions, and how the last one ended."""

    def views(pks: Iterable[Pk]) -> list[dict[str, Any]]:
        return [record_view(pk, state.id) for pk in pks]

    running = current(state)
    return {
        "current": record_view(running, state.id) if running is not None else None,
        "invitations": views(pk for pk in state.pk.known.values() if pk.state == "invited"),
        "last": record_view(state.pk.last, state.id) if state.pk.last is not None else None,
    }

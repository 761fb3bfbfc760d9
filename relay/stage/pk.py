"""A PK: two rooms that show both stages, with a score and a timer. This is its record, of which there is one.

Both rooms refer to the record and neither has a say of its own: that it runs, and from when to when, stands in one
document under one key, so that one compare-and-set decides for both. Pure functions; `now` is wall seconds, moments
that viewers see are sync ids. A room's part is in `pk_room`.

    invite:  none    -> invited
    start:   invited -> running     when both rooms hold a claim (`pk_room.claim`)
    score:   running -> running     between its two moments
    end:     invited | running -> ended, for good

Every move makes `epoch` one greater: who knows the record under an epoch never goes back to a lesser one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from relay.errors import BadRequest, Conflict, CorruptDocument, Forbidden, UsageError
from relay.ids import sync_id_at
from relay.stage.times import timestamp

PkState = Literal["invited", "running", "ended"]

INVITATION_S = 60.0
MIN_COUNTDOWN_S = 2.0
"""Longer than it takes a node to look at the record by itself: whoever missed the start still learns in time."""
MAX_COUNTDOWN_S = 30.0
MIN_DURATION_S, MAX_DURATION_S = 10.0, 3600.0
MAX_POINTS = 1_000_000
KEPT_MOVES = 32
"""Bounds the record. A room that missed more than these is told the newest, which carry the totals."""


@dataclass(frozen=True, slots=True)
class PkSide:
    """One room's part. `claim` is the epoch of the claim under which the room takes part, 0 before it does."""

    room: str
    points: int = 0
    claim: int = 0


@dataclass(frozen=True, slots=True)
class PkMove:
    """What a move tells both rooms: an event's type and data."""

    epoch: int
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pk:
    """The record. `sides` are the inviting room and the invited one; `starts_at` and `ends_at` are sync ids, 0 before
    it is decided that it starts. `reason` says why it ended."""

    id: str
    sides: tuple[PkSide, PkSide]
    by: str
    since: float
    expires_at: float
    duration_s: float
    countdown_s: float
    state: PkState = "invited"
    epoch: int = 1
    starts_at: int = 0
    ends_at: int = 0
    reason: str = ""
    moves: tuple[PkMove, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-ready record."""
        document: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return document

    @staticmethod
    def from_json(document: dict[str, Any]) -> Pk:
        """Read a record. Raises CorruptDocument naming the first field that is missing or wrong."""
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the record"
            raise CorruptDocument(f"PK record: {where}: {first['msg']}") from error

    @property
    def rooms(self) -> tuple[str, str]:
        """The inviting room and the invited one."""
        return self.sides[0].room, self.sides[1].room

    def side(self, room: str) -> PkSide:
        """Return a room's side. Raises UsageError for a room that has no part in it."""
        for each in self.sides:
            if each.room == room:
                return each
        raise UsageError(f"room {room} has no part in PK {self.id}")

    def other(self, room: str) -> str:
        """Return the other room."""
        first, second = self.rooms
        return second if room == first else first

    def scores(self) -> dict[str, int]:
        """Return the points by room."""
        return {side.room: side.points for side in self.sides}


@dataclass(frozen=True, slots=True)
class PkClaim:
    """A room's word that it takes part in this PK and in no other. `epoch` is greater than that of any claim before."""

    id: str
    epoch: int
    since: float


@dataclass(frozen=True, slots=True)
class RoomPk:
    """A room document's part: `known` are the records of those that are not over, as the room was last told of them and
    without their moves; `last` is how the one before ended."""

    known: dict[str, Pk] = field(default_factory=dict)
    claim: PkClaim | None = None
    claims: int = 0
    last: Pk | None = None


def invite(
    ident: str,
    inviting: str,
    invited: str,
    by: str,
    now: float,
    *,
    duration_s: float = 300.0,
    countdown_s: float = 3.0,
) -> Pk:
    """Return the record of a new invitation. Raises Conflict (the same room), BadRequest (out of range)."""
    if inviting == invited:
        raise Conflict("a room cannot have a PK with itself", code="pk-same-room")
    if not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
        raise BadRequest(f"a PK lasts {MIN_DURATION_S:.0f} to {MAX_DURATION_S:.0f} s")
    if not MIN_COUNTDOWN_S <= countdown_s <= MAX_COUNTDOWN_S:
        raise BadRequest(f"the countdown takes {MIN_COUNTDOWN_S:.0f} to {MAX_COUNTDOWN_S:.0f} s")
    pk = Pk(ident, (PkSide(inviting), PkSide(invited)), by, now, now + INVITATION_S, duration_s, countdown_s)
    told = {"by": by, "from": inviting, "to": invited, "expires_at": timestamp(pk.expires_at)}
    return replace(pk, moves=(PkMove(1, "pk.invited", {"pk": ident, **told}),))


def check_answer(pk: Pk, room: str, now: float) -> None:
    """Raise unless the room may accept now: Forbidden (it is not the invited one), Conflict (over, or too late)."""
    if room != pk.rooms[1]:
        raise Forbidden("only the invited room can accept")
    if pk.state != "invited" or pk.expires_at <= now:
        raise Conflict(f"the invitation is over: {pk.reason or pk.state}", code="pk-over")


def decline(pk: Pk, room: str, by: str, now: float) -> Pk:
    """End an invitation as one of its rooms. Raises Conflict when it is over."""
    if pk.state != "invited" or pk.expires_at <= now:
        raise Conflict(f"the invitation is over: {pk.reason or pk.state}", code="pk-over")
    return end(pk, "withdrawn" if room == pk.rooms[0] else "declined", by)


def start(pk: Pk, by: str, now: float, claims: Mapping[str, int]) -> Pk:
    """Decide that the PK starts after its countdown, under the rooms' claims. Raises Conflict when it is too late."""
    check_answer(pk, pk.rooms[1], now)
    begins = now + pk.countdown_s
    first, second = pk.sides
    return _moved(
        pk,
        "pk.started",
        {"by": by, "rooms": list(pk.rooms)},
        state="running",
        sides=(replace(first, claim=claims[first.room]), replace(second, claim=claims[second.room])),
        starts_at=_sync_id(begins),
        ends_at=_sync_id(begins + pk.duration_s),
    )


def score(pk: Pk, room: str, points: int, by: str, now: float, at: int | None = None) -> Pk:
    """Give a room points; `at` is the sync id of the frame that they are for. Raises Conflict outside the PK's time,
    BadRequest for more than `MAX_POINTS` at once."""
    if pk.state != "running" or not pk.starts_at <= _sync_id(now) < pk.ends_at:
        raise Conflict(f"PK {pk.id} is not running now", code="pk-not-running")
    if not 0 < abs(points) <= MAX_POINTS:
        raise BadRequest(f"points are 1 to {MAX_POINTS}, or less than 0 to take some away")
    sides = tuple(replace(side, points=side.points + points) if side.room == room else side for side in pk.sides)
    after = replace(pk, sides=(sides[0], sides[1]))
    told: dict[str, Any] = {"by": by, "room": room, "points": points, "scores": after.scores()}
    if at is not None:
        told["at"] = str(at)
    return _moved(after, "pk.scored", told)


def end(pk: Pk, reason: str, by: str = "") -> Pk:
    """End it, for both rooms and for good. One that is over stays as it is."""
    if pk.state == "ended":
        return pk
    if pk.state == "invited":
        return _moved(pk, "pk.declined", {"reason": reason, "by": by}, state="ended", reason=reason)
    told: dict[str, Any] = {"reason": reason, "by": by, "scores": pk.scores(), "winner": winner(pk)}
    if reason == "time":
        told["at"] = str(pk.ends_at)
    return _moved(pk, "pk.ended", told, state="ended", reason=reason)


def settle(pk: Pk, now: float) -> Pk:
    """Let go what time has ended: an invitation that nobody answered, a PK whose time is over."""
    if pk.state == "invited" and pk.expires_at <= now:
        return end(pk, "expired")
    if pk.state == "running" and pk.ends_at <= _sync_id(now):
        return end(pk, "time")
    return pk


def due_at(pk: Pk) -> float | None:
    """Return the wall time at which `settle` next changes it; None when nothing waits."""
    if pk.state == "invited":
        return pk.expires_at
    return pk.ends_at / _sync_id(1.0) if pk.state == "running" else None


def winner(pk: Pk) -> str | None:
    """Return the room with more points; None for a draw."""
    first, second = pk.sides
    if first.points == second.points:
        return None
    return first.room if first.points > second.points else second.room


def _moved(pk: Pk, kind: str, data: dict[str, Any], **changes: Any) -> Pk:
    after = replace(pk, epoch=pk.epoch + 1, **changes)
    told = {"pk": pk.id, **data}
    if kind == "pk.started":
        told |= {"starts_at": str(after.starts_at), "ends_at": str(after.ends_at), "at": str(after.starts_at)}
    return replace(after, moves=(*pk.moves, PkMove(after.epoch, kind, told))[-KEPT_MOVES:])


def _sync_id(seconds: float) -> int:
    return sync_id_at(round(seconds * 1_000_000))


_ADAPTER: TypeAdapter[Pk] = TypeAdapter(Pk)

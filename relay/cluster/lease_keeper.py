"""When a node asks for its leases, renews them, and what it may believe of them. No I/O and no clock.

    WANTED    asked for, again and again: given -> HELD, another has it -> refused and forgotten
    HELD      certain until `ttl_s` (less a margin) after the last successful request was *sent*: the store counts from
              later on, so it gives the publication to nobody else before. Renewed at a third of `ttl_s`.
              own clock past that -> DOUBTFUL
    DOUBTFUL  the store has not answered in time, so another may be the origin by now; renewing goes on
              renewed -> HELD, another has it -> lost and forgotten, nobody has it -> WANTED, with a new epoch

Whether media goes on in DOUBTFUL is its user's matter: a greater epoch elsewhere wins in any case. Time is seconds of a
monotonic clock. `requests` says what to ask of the store now; tell `answered` or `failed` for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from relay.ports import Lease

RENEWALS = 3
"""Renewals in a lease's life: two may be lost."""
MARGIN = 0.05
"""Share of a lease's life that is not believed in: clocks run some per cent apart, and milliseconds are rounded."""


# --- what it asks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acquire:
    """Ask `LeaseStore.acquire`."""

    room: str
    publication: str
    over: int | None
    sent: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask `LeaseStore.renew` for all of a room's leases in one."""

    room: str
    epochs: Mapping[str, int]
    sent: float


@dataclass(frozen=True, slots=True)
class Release:
    """Ask `LeaseStore.release`. What becomes of it need not be told: without it the lease ends by itself."""

    room: str
    epochs: Mapping[str, int]


Request = Acquire | Renew | Release


# --- what it tells ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseGained:
    """This node is the origin, under this epoch."""

    room: str
    publication: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseDoubted:
    """Another node may be the origin by now: the store did not answer in time, or has forgotten the lease."""

    room: str
    publication: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseConfirmed:
    """The doubt was unfounded: still the origin, under the same epoch."""

    room: str
    publication: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another node took over from `epoch`; it is no longer kept here."""

    room: str
    publication: str
    epoch: int
    owner: str
    owner_epoch: int


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """Another node is the origin; it is no longer wanted here."""

    room: str
    publication: str
    owner: str
    owner_epoch: int


LeaseEvent = LeaseGained | LeaseDoubted | LeaseConfirmed | LeaseLost | LeaseRefused


class _State(Enum):
    WANTED = auto()
    HELD = auto()
    DOUBTFUL = auto()


@dataclass(slots=True)
class _Kept:
    state: _State = _State.WANTED
    over: int | None = None
    epoch: int = 0
    certain_until: float = float("-inf")
    try_at: float = float("-inf")
    asked: Acquire | None = None


@dataclass(slots=True)
class _Round:
    """The renewals of one room."""

    at: float
    asked: Renew | None = None


# --- the machine ------------------------------------------------------------------------------------------------------


class LeaseKeeper:
    """All leases of one node."""

    def __init__(self, node: str, ttl_s: float) -> None:
        self._node = node
        self._ttl_s = ttl_s
        self._again_s = ttl_s / RENEWALS / 2
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._rounds: dict[str, _Round] = {}
        self._releases: dict[str, dict[str, int]] = {}
        self._events: list[LeaseEvent] = []

    def want(self, room: str, publication: str, over: int | None = None) -> None:
        """Become the origin; from the one that holds it under epoch `over`, if any. Nothing happens when it is wanted
        already."""
        self._kept.setdefault((room, publication), _Kept(over=over))

    def give_up(self, room: str, publication: str) -> None:
        """No longer be the origin; nothing happens when it is not kept. Events of it may no longer come."""
        kept = self._kept.pop((room, publication), None)
        if kept is not None and kept.state is not _State.WANTED:
            self._releases.setdefault(room, {})[publication] = kept.epoch
        self._forget_round(room)

    def epoch(self, room: str, publication: str, now: float) -> int | None:
        """Return the epoch under which this node certainly is the origin; None when it is not, or may not be."""
        kept = self._kept.get((room, publication))
        certain = kept is not None and kept.state is _State.HELD and now < kept.certain_until
        return kept.epoch if kept is not None and certain else None

    def kept(self) -> list[tuple[str, str]]:
        """List what is wanted or held: (room, publication)."""
        return list(self._kept)

    def next_timeout(self) -> float | None:
        """Return when to call `requests` again at the latest; None for not before something changes."""
        times = [kept.certain_until for kept in self._kept.values() if kept.state is _State.HELD]
        times += [kept.try_at for kept in self._kept.values() if kept.state is _State.WANTED and kept.asked is None]
        times += [each.at for each in self._rounds.values() if each.asked is None]
        times += [float("-inf")] * bool(self._releases)
        return min(times, default=None)

    def events(self) -> list[LeaseEvent]:
        """Take what happened since the last call."""
        found, self._events = self._events, []
        return found

    def requests(self, now: float) -> list[Request]:
        """Return what to ask of the store now."""
        for (room, publication), kept in self._kept.items():
            if kept.state is _State.HELD and now >= kept.certain_until:
                self._doubt(room, publication, kept)
        found: list[Request] = [Release(room, epochs) for room, epochs in self._releases.items()]
        self._releases = {}
        for (room, publication), kept in self._kept.items():
            if kept.state is _State.WANTED and kept.asked is None and now >= kept.try_at:
                kept.asked = Acquire(room, publication, kept.over, now)
                found.append(kept.asked)
        for room, each in self._rounds.items():
            if each.asked is None and now >= each.at:
                each.asked = Renew(room, self._epochs(room), now)
                found.append(each.asked)
        return found

    # --- answers ------------------------------------------------------------------------------------------------------

    def acquired(self, request: Acquire, epoch: int) -> None:
        """The store gave the lease."""
        kept = self._kept.get((request.room, request.publication))
        if kept is None:  # given up meanwhile
            self._releases.setdefault(request.room, {})[request.publication] = epoch
            return
        if kept.asked is request:
            kept.asked = None
        if epoch < kept.epoch:
            return
        # Also from an older wish than the present one, whose answer is late: it superseded what was held, and to give
        # it back would let another in while the older epoch is still believed in.
        kept.state, kept.epoch = _State.HELD, epoch
        kept.certain_until = self._believable(request.sent)
        self._schedule(request.room, request.sent)
        self._events.append(LeaseGained(request.room, request.publication, epoch))

    def refused(self, request: Acquire, owner: str, owner_epoch: int) -> None:
        """The store says that another has it."""
        kept = self._kept.get((request.room, request.publication))
        if kept is not None and kept.asked is request:
            del self._kept[request.room, request.publication]
            self._events.append(LeaseRefused(request.room, request.publication, owner, owner_epoch))

    def renewed(self, request: Renew, lost: Mapping[str, Lease | None]) -> None:
        """The store renewed a room's leases but those that are `lost`."""
        for publication, epoch in request.epochs.items():
            kept = self._kept.get((request.room, publication))
            if kept is None or kept.epoch != epoch or kept.state is _State.WANTED:
                continue
            if publication not in lost:
                self._confirm(request.room, publication, kept, request.sent)
            elif (owner := lost[publication]) is not None and owner.node != self._node:
                del self._kept[request.room, publication]
                self._events.append(LeaseLost(request.room, publication, epoch, owner.node, owner.epoch))
            else:  # forgotten; or a request of our own, given up long ago, reached the store after all
                self._doubt(request.room, publication, kept)
                kept.state, kept.over, kept.try_at = _State.WANTED, None, float("-inf")
        self._answered(request, request.sent + self._ttl_s / RENEWALS)

    def failed(self, request: Request, now: float) -> None:
        """The store did not answer; it may have done what was asked all the same."""
        match request:
            case Acquire():
                kept = self._kept.get((request.room, request.publication))
                if kept is not None and kept.asked is request:
                    kept.asked, kept.try_at = None, now + self._again_s
            case Renew():
                self._answered(request, now + self._again_s)
            case Release():
                pass

    # --- inside -------------------------------------------------------------------------------------------------------

    def _confirm(self, room: str, publication: str, kept: _Kept, sent: float) -> None:
        if kept.state is _State.DOUBTFUL:
            self._events.append(LeaseConfirmed(room, publication, kept.epoch))
        kept.state, kept.certain_until = _State.HELD, max(kept.certain_until, self._believable(sent))

    def _doubt(self, room: str, publication: str, kept: _Kept) -> None:
        if kept.state is _State.HELD:
            kept.state = _State.DOUBTFUL
            self._events.append(LeaseDoubted(room, publication, kept.epoch))

    def _believable(self, sent: float) -> float:
        return sent + self._ttl_s * (1 - MARGIN)

    def _schedule(self, room: str, sent: float) -> None:
        due = sent + self._ttl_s / RENEWALS
        each = self._rounds.setdefault(room, _Round(due))
        each.at = min(each.at, due)

    def _answered(self, request: Renew, again_at: float) -> None:
        each = self._rounds.get(request.room)
        if each is not None and each.asked is request:
            each.asked, each.at = None, again_at
        self._forget_round(request.room)

    def _forget_round(self, room: str) -> None:
        """No leases, no renewals. One that is under way is waited for: it may name a lease that is kept again."""
        each = self._rounds.get(room)
        if each is not None and each.asked is None and not self._epochs(room):
            del self._rounds[room]

    def _epochs(self, room: str) -> dict[str, int]:
        return dict(self._held(room))

    def _held(self, room: str) -> Iterable[tuple[str, int]]:
        for (of, publication), kept in self._kept.items():
            if of == room and kept.state is not _State.WANTED:
                yield publication, kept.epoch

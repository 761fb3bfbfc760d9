"""What the breakers did, as figures: detected, tripped, returned, and how often media moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from drills.run.figures import Figures

_RESTING = ("open", "half-open")
_GRACE_S = 1.0  # what a fault did may be noticed so long after its end
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class BreakerMove:
    """A move of the breaker of a link (origin, subscriber); `at` in seconds of CLOCK_MONOTONIC."""

    at: float
    link: tuple[str, str]
    previous: str
    state: str
    reason: str


Span = tuple[float, float]


def breaker_figures(moves: Sequence[BreakerMove], faults: Sequence[Span], begin: float, end: float) -> Figures:
    """Figures of a span. What a fault did is looked for within it and until shortly after; None for what never was."""
    within = [move for move in moves if begin <= move.at < end]
    return {
        "detect.max": _slowest(within, faults, ("suspect", "open")),
        "trip.max": _slowest(within, faults, ("open",)),
        "return.max": _returned(within, faults),
        "switches.per_minute": max(map(_busiest, _by_link(within).values()), default=0),
        "breaker.false_trips": sum(move.state == "open" and not _caused(move.at, faults) for move in within),
    }


def _slowest(moves: Iterable[BreakerMove], faults: Iterable[Span], states: Sequence[str]) -> float | None:
    """Milliseconds from a fault's beginning into one of the states, of the link that took longest."""
    took: list[float] = []
    moves = list(moves)
    for began, ended in faults:
        firsts: dict[tuple[str, str], float] = {}
        for move in moves:
            if move.state in states and began <= move.at < ended + _GRACE_S:
                firsts.setdefault(move.link, move.at - began)
        took += firsts.values()
    return round(1000 * max(took), 1) if took else None


def _returned(moves: Sequence[BreakerMove], faults: Sequence[Span]) -> float | None:
    """Milliseconds from the last fault's end until the last link that rested was closed again; None if one is not."""
    if not faults:
        return None
    ended = max(end for _, end in faults)
    states: dict[tuple[str, str], BreakerMove] = {}
    rested = set()
    for move in moves:
        states[move.link] = move
        if move.state in _RESTING:
            rested.add(move.link)
    if not rested or any(states[link].state != "closed" for link in rested):
        return None
    return round(1000 * max(0.0, max(states[link].at for link in rested) - ended), 1)


def _busiest(moves: Sequence[BreakerMove]) -> int:
    """Most changes of the path that carries within a minute."""
    times = [move.at for move in moves if (move.previous in _RESTING) != (move.state in _RESTING)]
    return max((sum(0 <= at - first < _MINUTE_S for at in times) for first in times), default=0)


def _by_link(moves: Iterable[BreakerMove]) -> Mapping[tuple[str, str], list[BreakerMove]]:
    found: dict[tuple[str, str], list[BreakerMove]] = {}
    for move in moves:
        found.setdefault(move.link, []).append(move)
    return found


def _caused(at: float, faults: Iterable[Span]) -> bool:
    return any(began <= at < ended + _GRACE_S for began, ended in faults)

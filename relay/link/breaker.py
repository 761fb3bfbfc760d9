"""Which path of a link carries its media: one breaker per link, run by the sender, as it sees acknowledgements.

Theory of operation
===================

Two paths, *primary* and *backup*; one machine of four states. The state alone says what is sent where:

    state      primary   backup    meaning
    CLOSED     media     -         all is well
    SUSPECT    media     media     the primary is in doubt: both carry, the receiver removes duplicates
    OPEN       -         media     the primary is bad and rests
    HALF_OPEN  copies    media     a small share is copied to the primary to see whether it has healed

There is no state in which nothing carries, and none in which a bad path carries alone while the other is better.

The law. Whenever something is reported or a deadline passes, the rules of the state are tried in this order:

    from       to         rule           holds when
    CLOSED     SUSPECT    doubted        the primary is suspicious or bad
    SUSPECT    OPEN       tripped        the primary is bad, the backup is better and not silent itself, and moving so
                                         soon is allowed
    SUSPECT    CLOSED     doubt_passed   the primary has looked good for suspect_s
    OPEN       SUSPECT    backup_failed  the backup is bad, and not better than the primary
    OPEN       HALF_OPEN  hold_over      the hold is over, the primary is connected, nobody forced us here
    HALF_OPEN  SUSPECT    backup_failed  as above
    HALF_OPEN  OPEN       probe_failed   one bad sample, silence, too much loss, or no decision within the time-out
    HALF_OPEN  CLOSED     probe_passed   enough good samples in a row, enough copies answered with little loss, and
                                         moving so soon is allowed
    any        OPEN       force_open     an operator says so; no probing until reset, unless the backup fails
    any        CLOSED     reset          an operator says so; all evidence and holds are forgotten

*Better* is: not bad while the other is, or, of two bad ones, with less than two thirds of the other's score, so that
noise does not toss media about. If both are bad alike both carry, in SUSPECT: each brings what the other loses. A
backup that just began to carry and is not answered either never carries alone: both may be in the same hole.

*The hold* is the rest of the primary in OPEN. It doubles when the primary fails again within quiet_s of having come
back, or in HALF_OPEN (not by mere time-out: a link without media cannot decide), up to hold_max_s; it halves for every
quiet_s in between.

*Moving* is entering OPEN, and leaving OPEN or HALF_OPEN for another path. There are at most switches_per_minute of them
in 60 s: when a primary flaps, the breaker waits in SUSPECT, where a viewer loses nothing, or in HALF_OPEN. Only a
failing backup does not wait.

Each move is one event. Times are monotonic microseconds given by the caller; none is read here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from relay.link.path import Level, PathMonitor, PathName, PathReport, Verdict
from relay.settings import BreakerSettings

MINUTE_US = 60_000_000
MAX_EVENTS = 256  # kept for a driver that does not collect them
_MAX_LEVEL = 20  # more doublings change nothing: hold_max_s is an hour at most


class BreakerState(Enum):
    """See the table above."""

    CLOSED = "closed"
    SUSPECT = "suspect"
    OPEN = "open"
    HALF_OPEN = "half-open"


CARRYING: dict[BreakerState, tuple[PathName, ...]] = {
    BreakerState.CLOSED: ("primary",),
    BreakerState.SUSPECT: ("primary", "backup"),
    BreakerState.OPEN: ("backup",),
    BreakerState.HALF_OPEN: ("backup",),
}
RESTING = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN})  # of the primary


@dataclass(frozen=True, slots=True)
class BreakerMoved:
    """The state changed. `reason` is a rule of the law, with what a path's verdict added: `tripped: rtt`."""

    now: int
    previous: BreakerState
    state: BreakerState
    reason: str
    primary: Verdict
    backup: Verdict
    hold_us: int  # rest of the primary, as of now


BreakerEvent = BreakerMoved


class Breaker:
    """Report both paths often (every 20 ms, or with each batch of acknowledgements), and right before `handle_timeout`.

    Reports and time-outs may come in any order; time never goes back here, a smaller `now` counts as the largest seen.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self.state = BreakerState.CLOSED
        self.forced = False
        self.dropped_events = 0
        self._settings = settings
        self._monitors: dict[PathName, PathMonitor] = {
            "primary": PathMonitor(settings),
            "backup": PathMonitor(settings),
        }
        self._now = 0
        self._entered_at = 0
        self._good_since: int | None = None  # in SUSPECT: since when the primary looks good
        self._flaps = 0  # doublings of the hold
        self._rested_until: int | None = None  # when media last came back from OPEN
        self._switches: deque[int] = deque(maxlen=settings.switches_per_minute)
        self._probes = 0  # copies granted in this HALF_OPEN
        self._probe_debt = 0.0
        self._events: deque[BreakerMoved] = deque(maxlen=MAX_EVENTS)
        self._judge(0)

    @property
    def carrying(self) -> tuple[PathName, ...]:
        """Where media goes now."""
        return CARRYING[self.state]

    @property
    def probe_share(self) -> float:
        """Share of packets that are also copied to the primary; `take_probe` deals them out."""
        return self._settings.probe_share if self.state is BreakerState.HALF_OPEN else 0.0

    @property
    def hold_us(self) -> int:
        """How long the primary rests when it is bad, as of the last failure."""
        return min(_us(self._settings.hold_s) << self._flaps, _us(self._settings.hold_max_s))

    @property
    def ignored(self) -> dict[PathName, int]:
        """Reports that came late and were ignored, by path."""
        return {name: monitor.ignored for name, monitor in self._monitors.items()}

    def verdict(self, path: PathName) -> Verdict:
        """Return how a path looked when something was last reported or timed out."""
        return self._primary if path == "primary" else self._backup

    def report(self, path: PathName, report: PathReport, generation: int = 0) -> None:
        """Take a path's report. Of a path that was dialled anew, `generation` is higher than that of its predecessor.

        Late reports, out of order or of a predecessor, are ignored and counted.
        """
        monitor = self._monitors[path]
        if path == "primary" and generation > monitor.generation:
            self._probes = 0  # copies on the former connection are never answered
        if monitor.report(report, generation):
            self._step(report.now)

    def next_timeout(self) -> int | None:
        """Return when to call `handle_timeout`: later than all times that counted so far, or None."""
        times = [monitor.next_change(self._now) for monitor in self._monitors.values()]
        match self.state:
            case BreakerState.SUSPECT:
                times.append(self._doubt_passes())
            case BreakerState.OPEN if not self.forced:
                times.append(self._entered_at + self.hold_us)
            case BreakerState.HALF_OPEN:
                times.append(self._entered_at + _us(self._settings.half_open_timeout_s))
            case _:
                pass
        if not self._may_switch(self._now):
            times.append(self._switches[0] + MINUTE_US)
        return min((time for time in times if time is not None and time > self._now), default=None)

    def handle_timeout(self, now: int) -> None:
        """Apply the rules that time alone fulfils. Harmless when called early or twice."""
        self._step(now)

    def force_open(self, now: int) -> None:
        """Put media on the backup until `reset`. No event when it is there already."""
        self._now = max(self._now, now)
        self._judge(self._now)
        if self.state is not BreakerState.OPEN:
            self._move(BreakerState.OPEN, "forced")
        self.forced = True

    def reset(self, now: int) -> None:
        """Put media on the primary and forget all evidence, holds and moves. No event when it is there already."""
        self._now = max(self._now, now)
        self._judge(self._now)
        if self.state is not BreakerState.CLOSED:
            self._move(BreakerState.CLOSED, "reset")
        for monitor in self._monitors.values():
            monitor.forget(self._now)
        self._flaps = 0
        self._rested_until = None
        self._switches.clear()
        self._judge(self._now)

    def events(self) -> list[BreakerMoved]:
        """Return and forget what happened: one event per move, at most the newest 256."""
        drained = list(self._events)
        self._events.clear()
        return drained

    def take_probe(self) -> bool:
        """Say for one packet of media whether to copy it to the primary. Always False outside HALF_OPEN.

        Ask once per packet, from wherever: the share is dealt out evenly, and not more copies than probes_in_flight
        are granted beyond those whose fate has been reported. `return_probe` when the transport takes no copy.
        """
        if self.state is not BreakerState.HALF_OPEN:
            return False
        self._probe_debt = min(self._probe_debt + self._settings.probe_share, 1.0)
        in_flight = self._probes - self._monitors["primary"].tally.settled
        if self._probe_debt < 1.0 - 1e-9 or in_flight >= self._settings.probes_in_flight:
            return False
        self._probe_debt = 0.0
        self._probes = max(self._probes, self._monitors["primary"].tally.settled) + 1
        return True

    def return_probe(self) -> None:
        """Give back what `take_probe` granted: no copy was sent."""
        self._probes = max(0, self._probes - 1)

    def _step(self, now: int) -> None:
        """Try the rules of the state until none holds. That ends: no circle of them holds on the same evidence."""
        self._now = max(self._now, now)
        self._judge(self._now)
        while self._try_rules():
            pass

    def _judge(self, now: int) -> None:
        self._primary = self._monitors["primary"].judge(now)
        self._backup = self._monitors["backup"].judge(now)
        if self._primary.level is not Level.GOOD:
            self._good_since = None
        elif self._good_since is None:
            self._good_since = now

    def _try_rules(self) -> bool:
        for rule, target in LAW[self.state]:
            reason = rule(self)
            if reason is not None:
                self._move(target, reason)
                return True
        return False

    def _move(self, state: BreakerState, reason: str) -> None:
        previous, self.state = self.state, state
        rested, rests = previous in RESTING, state in RESTING
        if state is BreakerState.OPEN:
            self._lengthen_hold(previous, reason)
        if rested != rests:
            self._switches.append(self._now)
        if rested and not rests:
            self._rested_until = self._now
        self._entered_at = self._now
        self.forced = False
        if len(self._events) == MAX_EVENTS:
            self.dropped_events += 1
        self._events.append(BreakerMoved(self._now, previous, state, reason, self._primary, self._backup, self.hold_us))
        if state is BreakerState.HALF_OPEN:
            self._probes, self._probe_debt = 0, 0.0
            self._monitors["primary"].forget(self._now)
            self._judge(self._now)

    def _lengthen_hold(self, previous: BreakerState, reason: str) -> None:
        if reason in {"forced", "probe_failed: timeout"}:
            return
        if previous is BreakerState.HALF_OPEN:
            self._flaps += 1
        elif self._rested_until is not None:
            quiet_spells = (self._now - self._rested_until) // _us(self._settings.quiet_s)
            self._flaps = max(0, self._flaps - quiet_spells) if quiet_spells else self._flaps + 1
        self._flaps = min(self._flaps, _MAX_LEVEL)

    def _doubt_passes(self) -> int | None:
        """Return until when the primary has to go on looking good; None while it does not."""
        if self._good_since is None:
            return None
        return max(self._good_since, self._entered_at) + _us(self._settings.suspect_s)

    def _may_switch(self, now: int) -> bool:
        limit = self._settings.switches_per_minute
        return len(self._switches) < limit or now >= self._switches[0] + MINUTE_US

    # The rules: each returns the reason of its move, or None when it does not hold.

    def _doubted(self) -> str | None:
        if self._primary.level is Level.GOOD or self._primary.reason == "unknown":
            return None
        return f"doubted: {self._primary.reason}"

    def _tripped(self) -> str | None:
        bad = self._primary.level is Level.BAD and _better(self._backup, self._primary)
        if not bad or self._backup.reason == "silence" or not self._may_switch(self._now):
            return None
        return f"tripped: {self._primary.reason}"

    def _doubt_passed(self) -> str | None:
        passes = self._doubt_passes()
        return "doubt_passed" if passes is not None and self._now >= passes else None

    def _backup_failed(self) -> str | None:
        bad = self._backup.level is Level.BAD and not _better(self._backup, self._primary)
        return f"backup_failed: {self._backup.reason}" if bad else None

    def _hold_over(self) -> str | None:
        due = not self.forced and self._now >= self._entered_at + self.hold_us
        return "hold_over" if due and self._monitors["primary"].usable else None

    def _probe_failed(self) -> str | None:
        tally, settings = self._monitors["primary"].tally, self._settings
        if tally.bad_samples:
            return "probe_failed: rtt"
        if self._primary.level is Level.BAD:
            return f"probe_failed: {self._primary.reason}"
        if tally.settled >= settings.probe_packets and tally.lost * 100 > settings.loss_percent * tally.settled:
            return "probe_failed: loss"
        late = self._now >= self._entered_at + _us(settings.half_open_timeout_s)
        return "probe_failed: timeout" if late and not self._is_healed() else None

    def _probe_passed(self) -> str | None:
        return "probe_passed" if self._is_healed() and self._may_switch(self._now) else None

    def _is_healed(self) -> bool:
        """Whether the probes say so: with half the loss limit, as what is at the limit would be back here soon."""
        tally, settings = self._monitors["primary"].tally, self._settings
        answered = tally.good_samples >= settings.probe_samples and tally.settled >= settings.probe_packets
        return answered and tally.lost * 200 <= settings.loss_percent * tally.settled


def _better(one: Verdict, other: Verdict) -> bool:
    if (one.level is Level.BAD) != (other.level is Level.BAD):
        return other.level is Level.BAD
    return one.score * 3 < other.score * 2


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


LAW: dict[BreakerState, tuple[tuple[Callable[[Breaker], str | None], BreakerState], ...]] = {
    BreakerState.CLOSED: ((Breaker._doubted, BreakerState.SUSPECT),),
    BreakerState.SUSPECT: (
        (Breaker._tripped, BreakerState.OPEN),
        (Breaker._doubt_passed, BreakerState.CLOSED),
    ),
    BreakerState.OPEN: (
        (Breaker._backup_failed, BreakerState.SUSPECT),
        (Breaker._hold_over, BreakerState.HALF_OPEN),
    ),
    BreakerState.HALF_OPEN: (
        (Breaker._backup_failed, BreakerState.SUSPECT),
        (Breaker._probe_failed, BreakerState.OPEN),
        (Breaker._probe_passed, BreakerState.CLOSED),
    ),
}

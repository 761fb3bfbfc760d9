"""What the breaker of a link should have done, worked out afterwards from a whole trace.

Written a second time and another way, to find the first way's mistakes: nothing is kept up to date. Every judgement
goes through all raw reports since the path's evidence was last dropped, with plain lists, and windows are found by
counting backwards. Shares with `relay.link.breaker` only the types of what goes in: reports and settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from drills.oracle_path import Look, Record
from relay.link.path import PathName, PathReport
from relay.settings import BreakerSettings

StateName = Literal["closed", "suspect", "open", "half-open"]
_RESTING = ("open", "half-open")
_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Reported:
    """A report came."""

    path: PathName
    report: PathReport
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Woken:
    """A deadline passed, or somebody looked."""

    now: int


@dataclass(frozen=True, slots=True)
class Forced:
    """An operator put media on the backup."""

    now: int


@dataclass(frozen=True, slots=True)
class Restored:
    """An operator put media back on the primary."""

    now: int


Step = Reported | Woken | Forced | Restored


@dataclass(frozen=True, slots=True)
class Move:
    """A change of state that should have happened."""

    now: int
    previous: StateName
    state: StateName
    reason: str


class _Replay:
    """Goes through the trace once; what happened before is looked up in `moves`, not carried along."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.paths: dict[PathName, Record] = {"primary": Record(settings), "backup": Record(settings)}
        self.moves: list[Move] = []
        self.fresh = 0  # index of the first move after the last reset
        self.now = 0
        self.forced = False
        self.look()

    @property
    def state(self) -> StateName:
        return self.moves[-1].state if self.moves else "closed"

    @property
    def entered(self) -> int:
        return self.moves[-1].now if self.moves else 0

    def look(self) -> None:
        self.primary = self.paths["primary"].look(self.now)
        self.backup = self.paths["backup"].look(self.now)

    def take(self, step: Step) -> None:
        if isinstance(step, Reported):
            if self.paths[step.path].accept(step.report, step.generation):
                self._settle(step.report.now)
            return
        if isinstance(step, Woken):
            self._settle(step.now)
            return
        self.now = max(self.now, step.now)
        self.look()
        target: StateName = "open" if isinstance(step, Forced) else "closed"
        if self.state != target:
            self._go(target, "forced" if isinstance(step, Forced) else "reset")
        if isinstance(step, Forced):
            self.forced = True
            return
        for record in self.paths.values():
            record.drop(self.now)
        self.fresh = len(self.moves)
        self.look()

    def _settle(self, now: int) -> None:
        self.now = max(self.now, now)
        self.look()
        while True:
            move = {"closed": self._closed, "suspect": self._suspect, "open": self._open, "half-open": self._half}
            decided = move[self.state]()
            if decided is None:
                return
            self._go(*decided)

    def _go(self, state: StateName, reason: str) -> None:
        self.moves.append(Move(self.now, self.state, state, reason))
        self.forced = False
        if state == "half-open":
            self.paths["primary"].drop(self.now)
            self.look()

    def _closed(self) -> tuple[StateName, str] | None:
        if self.primary.level and self.primary.reason != "unknown":
            return "suspect", f"doubted: {self.primary.reason}"
        return None

    def _suspect(self) -> tuple[StateName, str] | None:
        fit = self._beats(self.backup, self.primary) and self.backup.reason != "silence"
        if self.primary.level == 2 and fit and self._free():
            return "open", f"tripped: {self.primary.reason}"
        good = self.paths["primary"].good_from()
        if good is not None and self.now - max(good, self.entered) >= _us(self.settings.suspect_s):
            return "closed", "doubt_passed"
        return None

    def _open(self) -> tuple[StateName, str] | None:
        if fallback := self._fallback():
            return fallback
        reports = self.paths["primary"].reports
        connected = bool(reports) and not reports[-1].closed
        if connected and not self.forced and self.now - self.entered >= self._hold():
            return "half-open", "hold_over"
        return None

    def _half(self) -> tuple[StateName, str] | None:
        if fallback := self._fallback():
            return fallback
        settings, record = self.settings, self.paths["primary"]
        limit = settings.rtt_limit_ms * 1000
        samples = [rtt <= limit for _, rtt in record.samples()]
        if not all(samples):
            return "open", "probe_failed: rtt"
        if self.primary.level == 2:
            return "open", f"probe_failed: {self.primary.reason}"
        settled, lost = sum(row[1] for row in record.rows()), sum(row[2] for row in record.rows())
        share = Fraction(100 * lost, settled) if settled else Fraction(0)
        if settled >= settings.probe_packets and share > Fraction(settings.loss_percent):
            return "open", "probe_failed: loss"
        enough = len(samples) >= settings.probe_samples and settled >= settings.probe_packets
        if enough and share <= Fraction(settings.loss_percent) / 2:
            return ("closed", "probe_passed") if self._free() else None
        if self.now - self.entered >= _us(settings.half_open_timeout_s):
            return "open", "probe_failed: timeout"
        return None

    def _fallback(self) -> tuple[StateName, str] | None:
        if self.backup.level == 2 and not self._beats(self.backup, self.primary):
            return "suspect", f"backup_failed: {self.backup.reason}"
        return None

    def _beats(self, one: Look, other: Look) -> bool:
        if one.level == 2 and other.level == 2:
            return Fraction(one.score) < Fraction(2, 3) * other.score
        if one.level == 2 or other.level == 2:
            return other.level == 2
        return Fraction(one.score) < Fraction(2, 3) * other.score

    def _free(self) -> bool:
        """Whether there were few enough switches within the last minute."""
        times = [m.now for m in self.moves[self.fresh :] if (m.previous in _RESTING) != (m.state in _RESTING)]
        return len([time for time in times if time > self.now - _MINUTE]) < self.settings.switches_per_minute

    def _hold(self) -> int:
        """Return the hold, from the story of all failures since the last reset."""
        doublings, returned = 0, None
        for move in self.moves[self.fresh :]:
            if move.state == "open" and move.reason not in ("forced", "probe_failed: timeout"):
                if move.previous == "half-open":
                    doublings += 1
                elif returned is not None:
                    spells = (move.now - returned) // _us(self.settings.quiet_s)
                    doublings = doublings + 1 if spells == 0 else max(0, doublings - spells)
            if move.previous in _RESTING and move.state not in _RESTING:
                returned = move.now
        hold: int = _us(self.settings.hold_s) << min(doublings, 20)
        return min(hold, _us(self.settings.hold_max_s))


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def expected(trace: Iterable[Step], settings: BreakerSettings) -> list[Move]:
    """Return all moves that the breaker should have made on `trace`, in order."""
    replay = _Replay(settings)
    for step in trace:
        replay.take(step)
    return replay.moves

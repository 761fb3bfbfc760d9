"""What the breaker of a link should have done, worked out afterwards from a whole trace.

Written a second time and another way, to find the first way's mistakes: nothing is kept up to date. Every judgement
goes through all raw reports since the path's evidence was last dropped, with plain lists, and windows are found by
counting backwards. Shares with `relay.link.breaker` only the types of what goes in: reports and settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from relay.link.path import PathName, PathReport
from relay.settings import BreakerSettings

StateName = Literal["closed", "suspect", "open", "half-open"]
_RESTING = ("open", "half-open")
_MINUTE = 60_000_000
_BUCKET = 50_000
_GRACE = 50_000


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


@dataclass(slots=True)
class _Look:
    """How a path looked once."""

    now: int
    overdue: bool
    news: bool  # something had been acknowledged since the look before, or the evidence was dropped
    level: int = 0
    reason: str = ""
    score: int = 0


@dataclass(slots=True)
class _Record:
    """All that is known of a path: every accepted report, and where its evidence begins."""

    settings: BreakerSettings
    generation: int = 0
    reports: list[PathReport] = field(default_factory=list)  # of this generation
    start: int = 0  # index of the first report that is evidence
    since: int = -(10**18)
    looks: list[_Look] = field(default_factory=list)
    news: bool = False

    def accept(self, step: Reported) -> bool:
        report = step.report
        if step.generation < self.generation:
            return False
        if step.generation > self.generation:
            self.generation, self.reports, self.start, self.since, self.news = step.generation, [], 0, -(10**18), True
        elif self.reports:
            last = self.reports[-1]
            if last.closed or report.now < last.now or report.sent < last.sent or report.acked < last.acked:
                return False
        self.news = self.news or report.acked > (self.reports[-1].acked if self.reports else 0)
        self.reports.append(report)
        return True

    def drop(self, now: int) -> None:
        self.start, self.since, self.news = len(self.reports), now, True

    def samples(self) -> list[tuple[int, int]]:
        """Return (when reported, round trip) of all samples that are evidence."""
        rows = [(report.now, rtt) for report in self.reports[self.start :] for rtt in report.rtt_us]
        return [(now, rtt) for now, rtt in rows if now - rtt >= self.since]

    def rows(self) -> list[tuple[int, int, int]]:
        """Return (when reported, settled, lost) of each report, without what had been in flight at the start."""
        before = self.reports[self.start - 1] if self.start else PathReport(0, (), 0, 0, 0, None, 0)
        backlog = max(0, before.sent - before.acked - before.lost)
        rows = []
        for report in self.reports[self.start :]:
            acked, lost = report.acked - before.acked, report.lost - before.lost
            while backlog and lost > 0:
                backlog, lost = backlog - 1, lost - 1
            while backlog and acked > 0:
                backlog, acked = backlog - 1, acked - 1
            if report.oldest_unacked is None or report.oldest_unacked >= self.since:
                backlog = 0
            rows.append((report.now, max(0, acked + lost), lost))
            before = report
        return rows

    def look(self, now: int) -> _Look:
        look = _Look(now, self._overdue(now), self.news)
        self.news = False
        self.looks.append(look)
        look.level, look.reason, look.score = self._judge(now)
        return look

    def good_from(self) -> int | None:
        """Return since when every look was good."""
        begun = None
        for look in reversed(self.looks):
            if look.level:
                break
            begun = look.now
        return begun

    def _overdue(self, now: int) -> bool:
        last = self.reports[-1] if self.reports else None
        if last is None or last.closed or last.oldest_unacked is None:
            return False
        settings = self.settings
        patience = min(last.pto_us, settings.rtt_limit_ms * 1000 + _GRACE)
        rule = min(round(settings.silence_ptos * last.pto_us), settings.silence_max_ms * 1000)
        wait = sorted([settings.silence_min_ms * 1000, rule, patience])[-1]
        return now - max(last.oldest_unacked, self.since) >= wait

    def _quiet(self) -> int | None:
        """Return when the present silence was first seen."""
        begun = None
        for look in reversed(self.looks):
            if not look.overdue:
                break
            begun = look.now
            if look.news:
                break
        return begun

    def _judge(self, now: int) -> tuple[int, str, int]:
        if not self.reports:
            return 2, "unknown", 2_000_000
        if self.reports[-1].closed:
            return 2, "closed", 2_000_000
        settings = self.settings
        quiet = self._quiet()
        if quiet is not None and now - quiet >= settings.silence_confirm_ms * 1000:
            return 2, "silence", 1_000_000
        limit = settings.rtt_limit_ms * 1000
        least = self._least(now)
        buckets = self._buckets(now)
        long, _ = _newest(buckets, settings.loss_packets, 1_000_000)
        near, rest = _newest(buckets, settings.suspect_packets, 250_000)
        before, _ = _newest(rest, settings.suspect_packets, 250_000, near[0][0] if near else 0)
        percent = Fraction(settings.loss_percent)
        score = 0 if least is None else 1000 * least // limit
        shown = long or near
        if _settled(shown):
            score = max(score, int(Fraction(100_000 * _lost(shown)) / (percent * _settled(shown))))
        score = min(score, 999_999)
        if least is not None and least > limit:
            return 2, "rtt", score
        if _above(long, percent):
            return 2, "loss", score
        if quiet is not None:
            return 1, "silence", score
        if _above(near, percent) and _above(before, percent):
            return 1, "loss", score
        return 0, "", score

    def _least(self, now: int) -> int | None:
        age = round(self.settings.evidence_s * 1_000_000)
        run: list[tuple[int, int]] = []
        for at, rtt in self.samples():
            if run and at - run[-1][0] >= age:
                run = []
            run.append((at, rtt))
        newest = run[-self.settings.rtt_samples :]
        if len(newest) < self.settings.rtt_samples or now - newest[-1][0] >= age:
            return None
        return min(rtt for _, rtt in newest)

    def _buckets(self, now: int) -> list[tuple[int, int, int]]:
        """Return (start, settled, lost) of the buckets that are young enough, oldest first."""
        age = round(self.settings.evidence_s * 1_000_000)
        sums: dict[int, list[int]] = {}
        for at, settled, lost in self.rows():
            if settled or lost:
                entry = sums.setdefault(at // _BUCKET * _BUCKET, [0, 0])
                entry[0] += settled
                entry[1] += lost
        young = [start for start in sorted(sums) if start + _BUCKET + age > now]
        return [(start, sums[start][0], sums[start][1]) for start in young]


Buckets = list[tuple[int, int, int]]


def _newest(buckets: Buckets, packets: int, span: int, end: int | None = None) -> tuple[Buckets, Buckets]:
    """Return the fewest newest buckets that hold enough and reach back far enough, and the others; else nothing."""
    if not buckets:
        return [], []
    end = buckets[-1][0] + _BUCKET if end is None else end
    settled = 0
    for count, (start, of_bucket, _) in enumerate(reversed(buckets), 1):
        settled += of_bucket
        if settled >= packets and end - start >= span:
            return buckets[-count:], buckets[:-count]
    return [], []


def _settled(buckets: Buckets) -> int:
    return sum(settled for _, settled, _ in buckets)


def _lost(buckets: Buckets) -> int:
    return max(0, sum(lost for _, _, lost in buckets))


def _above(buckets: Buckets, percent: Fraction) -> bool:
    return bool(buckets) and 100 * _lost(buckets) > percent * _settled(buckets)


class _Replay:
    """Goes through the trace once; what happened before is looked up in `moves`, not carried along."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.paths: dict[PathName, _Record] = {"primary": _Record(settings), "backup": _Record(settings)}
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
            if self.paths[step.path].accept(step):
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

    def _beats(self, one: _Look, other: _Look) -> bool:
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

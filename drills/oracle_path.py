"""What the reports of one path of a link said, worked out from all of them anew at each look: see `drills.oracle`."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from relay.link.path import PathReport
from relay.settings import BreakerSettings

_BUCKET = 50_000
_GRACE = 50_000


@dataclass(slots=True)
class Look:
    """How a path looked once."""

    now: int
    overdue: bool
    news: bool  # something had been acknowledged since the look before, or the evidence was dropped
    level: int = 0
    reason: str = ""
    score: int = 0


@dataclass(slots=True)
class Record:
    """All that is known of a path: every accepted report, and where its evidence begins."""

    settings: BreakerSettings
    generation: int = 0
    reports: list[PathReport] = field(default_factory=list)  # of this generation
    start: int = 0  # index of the first report that is evidence
    since: int = -(10**18)
    looks: list[Look] = field(default_factory=list)
    news: bool = False

    def accept(self, report: PathReport, generation: int) -> bool:
        if generation < self.generation:
            return False
        if generation > self.generation:
            self.generation, self.reports, self.start, self.since, self.news = generation, [], 0, -(10**18), True
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

    def look(self, now: int) -> Look:
        look = Look(now, self._overdue(now), self.news)
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
        percent = Fraction(settings.loss_percent)
        long, _ = _newest(buckets, settings.loss_packets, 1_000_000)
        middle, _ = _newest(buckets, settings.spread_packets, 1_000_000)
        near, rest = _newest(buckets, settings.suspect_packets, 250_000)
        before, _ = _newest(rest, settings.suspect_packets, 250_000, near[0][0] if near else 0)
        thinned = {start: min(lost, settings.spread_burst) for start, _, lost in buckets}
        spread = [
            bool(window) and 100 * max(0, sum(thinned[start] for start, _, _ in window)) > percent * _settled(window)
            for window in (middle, near)
        ]
        condemned = _above(long, percent) or spread[0]
        shown = middle if spread[0] and not _above(long, percent) else long or middle or near
        score = 0 if least is None else 1000 * least // limit
        if _settled(shown):
            score = max(score, int(Fraction(100_000 * _lost(shown)) / (percent * _settled(shown))))
        score = min(score, 999_999)
        if least is not None and least > limit:
            return 2, "rtt", score
        if condemned:
            return 2, "loss", score
        if quiet is not None:
            return 1, "silence", score
        if spread[1] or (_above(near, percent) and _above(before, percent)):
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

"""What one path's reports say about it: good, in doubt, or bad, and by which of the rules.

Pure: reports and times in, verdicts out. The rules, each with its figures in `BreakerSettings`:

  round trip  so many samples in a row above the limit: bad. A good one between starts the count anew.
  loss        more than the limit of the newest 2000 packets: bad. More than the limit in each of two windows of 500,
              one after the other: in doubt. Where losses are spread, less is enough: more than the limit of the newest
              500 in doubt, of the newest 1000 bad, counting no more than 3 lost per 50 ms. Lost is what QUIC declared
              lost and has not seen acknowledged since.
  silence     an acknowledgement overdue: in doubt; and nothing acknowledged for silence_confirm_ms after: bad. In a
              black hole neither of the other rules fires: without acknowledgements there are no samples and QUIC
              declares nothing lost. The doubt has to have been *seen* to stand so long: when this process slept, what
              waits in its socket is read before the path is blamed.
  closed      the connection is gone: bad.

Evidence expires (`evidence_s`): what an idle path did half a minute ago says nothing about now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from relay.link.loss import LossWindows, Window
from relay.settings import BreakerSettings

PathName = Literal["primary", "backup"]
Reason = Literal["", "rtt", "loss", "silence", "closed", "unknown"]

ACK_GRACE_US = 50_000  # an acknowledgement may be delayed by 25 ms (RFC 9000 section 18.2) and noticed a tick later
SCORE_SILENT = 1_000_000
SCORE_CLOSED = 2_000_000
_EVER = -(1 << 62)


@dataclass(frozen=True, slots=True)
class PathReport:
    """What one path's transport reports. Times are microseconds on the monotonic clock.

    `sent`, `acked` and `lost` count packets that carried datagrams or pings since the connection began. A packet that
    was declared lost and is acknowledged after all (it was overtaken) moves from `lost` to `acked`. `pto_us` is the
    probe timeout of RFC 9002 section 6.2.1 without back-off.
    """

    now: int
    rtt_us: tuple[int, ...]  # RTT samples since the previous report, oldest first
    sent: int
    acked: int
    lost: int
    oldest_unacked: int | None  # send time of the oldest ack-eliciting packet still in flight
    pto_us: int
    closed: bool = False


class Level(IntEnum):
    """How a path looks."""

    GOOD = 0
    SUSPICIOUS = 1
    BAD = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a path looks at one moment, and by which figures.

    `score` compares paths, less is better: thousandths of the limit that the worse of round trip and loss reaches, and
    beyond all of those a path that is silent, and then one that is closed or was never heard of.
    """

    level: Level
    reason: Reason
    rtt_us: int | None  # least of the newest samples that the rule looks at
    settled: int  # packets in the loss window that condemns, or else in the widest that is full, else 0
    lost: int
    silence_us: int  # since the oldest packet without an answer was sent
    score: int


@dataclass(slots=True)
class Tally:
    """What came in since the path was last told to forget."""

    good_samples: int = 0  # in a row
    bad_samples: int = 0
    settled: int = 0
    lost: int = 0


class PathMonitor:
    """Collects one path's reports. A new connection for the same path comes with a higher generation number."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._rtt_limit = settings.rtt_limit_ms * 1000
        self._confirm = settings.silence_confirm_ms * 1000
        self._age = round(settings.evidence_s * 1_000_000)
        self._windows = LossWindows(
            settings.loss_packets, settings.spread_packets, settings.suspect_packets, settings.spread_burst, self._age
        )
        self.generation = 0
        self._last: PathReport | None = None
        self._since = _EVER  # what was sent before does not count
        self._backlog = 0  # packets sent before `_since` whose fate is open
        self._recent: list[int] = []  # newest samples, at most `rtt_samples`
        self._sampled_at = 0
        self._quiet_from: int | None = None  # when an overdue acknowledgement was first seen
        self.tally = Tally()
        self.ignored = 0  # reports that came late: out of order, of an old connection, after the end

    def report(self, report: PathReport, generation: int = 0) -> bool:
        """Take a report. False, and counted, when it is late: older than one seen, or of an earlier connection."""
        if generation < self.generation or (generation == self.generation and self._is_late(report)):
            self.ignored += 1
            return False
        if generation > self.generation:
            self.generation = generation
            self._last = None
            self.forget(_EVER)
        acked, lost = (self._last.acked, self._last.lost) if self._last else (0, 0)
        self._count(report, report.acked - acked, report.lost - lost)
        if report.acked > acked:
            self._quiet_from = None
        self._last = report
        for sample in report.rtt_us:
            if report.now - sample >= self._since:  # else sent before it
                self._sample(report.now, sample)
        return True

    def forget(self, now: int) -> None:
        """Drop all evidence. What was sent before `now` does not count either, whenever its fate becomes known."""
        self._since = now
        self._windows.clear()
        self._recent.clear()
        self._quiet_from = None
        self.tally = Tally()
        last = self._last
        self._backlog = max(0, last.sent - last.acked - last.lost) if last else 0

    def judge(self, now: int) -> Verdict:
        """Return how the path looks. `now` is not before the last report's."""
        last = self._last
        if last is None:
            return Verdict(Level.BAD, "unknown", None, 0, 0, 0, SCORE_CLOSED)
        silence = self._silence(last, now)
        rtt = self._least_rtt(now)
        shown, lossy = self._lossy(now)
        level, reason = self._level(last, now, rtt, lossy)
        score = self._score(level, reason, rtt, shown)
        return Verdict(level, reason, rtt, shown.settled, shown.lost, silence, score)

    def next_change(self, now: int) -> int | None:
        """Return when the verdict of `now` may change if no report comes, later than `now`; None: never."""
        last = self._last
        if last is None or last.closed:
            return None
        times = [self._windows.expiry()]
        if last.oldest_unacked is not None:
            seen = self._quiet_from
            times.append(self._overdue_at(last, last.oldest_unacked) if seen is None else seen + self._confirm)
        if self._recent:
            times.append(self._sampled_at + self._age)
        return min((time for time in times if time is not None and time > now), default=None)

    @property
    def usable(self) -> bool:
        """Whether there is a connection."""
        return self._last is not None and not self._last.closed

    def _is_late(self, report: PathReport) -> bool:
        last = self._last
        if last is None:
            return False
        rewound = report.sent < last.sent or report.acked < last.acked
        return last.closed or report.now < last.now or rewound

    def _count(self, report: PathReport, acked: int, lost: int) -> None:
        """Put newly settled packets into the windows, except those sent before `_since`.

        Counters do not say which packets they count. QUIC settles the older first, and declares the backlog lost when
        the first newer packet is acknowledged: so the backlog takes the lost ones first.
        """
        if self._backlog:
            old_lost = min(self._backlog, max(0, lost))
            old_acked = min(self._backlog - old_lost, acked)
            self._backlog -= old_lost + old_acked
            lost, acked = lost - old_lost, acked - old_acked
            if report.oldest_unacked is None or report.oldest_unacked >= self._since:
                self._backlog = 0
        settled = max(0, acked + lost)
        self._windows.add(report.now, settled, lost)
        self.tally.settled += settled
        self.tally.lost += lost

    def _sample(self, now: int, sample: int) -> None:
        if self._recent and now >= self._sampled_at + self._age:
            self._recent.clear()
        self._sampled_at = now
        self._recent.append(sample)
        del self._recent[: -self._settings.rtt_samples]
        if sample > self._rtt_limit:
            self.tally.good_samples = 0
            self.tally.bad_samples += 1
        else:
            self.tally.good_samples += 1

    def _least_rtt(self, now: int) -> int | None:
        """Return the least of the newest samples; all of them are above the limit exactly if it is."""
        expired = now >= self._sampled_at + self._age
        return None if expired or len(self._recent) < self._settings.rtt_samples else min(self._recent)

    def _lossy(self, now: int) -> tuple[Window, Level]:
        """Return the window that condemns the path, or else the widest that is full, and how the path looks by loss."""
        windows, percent = self._windows, self._settings.loss_percent
        long, middle, near = windows.long(now), windows.middle(now), windows.near(now)
        widest = long or middle or near or Window(0, 0, 0)
        if long is not None and long.above(percent):
            return long, Level.BAD
        if middle is not None and middle.spread_above(percent):
            return middle, Level.BAD
        if near is None:
            return widest, Level.GOOD
        doubted = near.spread_above(percent)
        if not doubted and near.above(percent):
            before = windows.before(now)
            doubted = before is not None and before.above(percent)
        return widest, Level.SUSPICIOUS if doubted else Level.GOOD

    def _level(self, last: PathReport, now: int, rtt: int | None, lossy: Level) -> tuple[Level, Reason]:
        if last.closed:
            return Level.BAD, "closed"
        if self._quiet_from is not None and now >= self._quiet_from + self._confirm:
            return Level.BAD, "silence"
        if rtt is not None and rtt > self._rtt_limit:
            return Level.BAD, "rtt"
        if lossy is Level.BAD:
            return Level.BAD, "loss"
        if self._quiet_from is not None:
            return Level.SUSPICIOUS, "silence"
        return (lossy, "loss") if lossy is not Level.GOOD else (lossy, "")

    def _score(self, level: Level, reason: Reason, rtt: int | None, window: Window) -> int:
        if reason == "closed":
            return SCORE_CLOSED
        if level is Level.BAD and reason == "silence":
            return SCORE_SILENT
        of_rtt = 1000 * rtt // self._rtt_limit if rtt is not None else 0
        of_loss = int(100_000 * window.lost / (self._settings.loss_percent * window.settled)) if window.settled else 0
        return min(max(of_rtt, of_loss), SCORE_SILENT - 1)

    def _silence(self, last: PathReport, now: int) -> int:
        """Return how long the oldest open packet waits, and note when it is first seen to be overdue."""
        if last.oldest_unacked is None or last.closed:
            self._quiet_from = None
            return 0
        if now < self._overdue_at(last, last.oldest_unacked):
            self._quiet_from = None
        elif self._quiet_from is None:
            self._quiet_from = now
        return max(0, now - max(last.oldest_unacked, self._since))

    def _overdue_at(self, last: PathReport, oldest: int) -> int:
        """Return when an acknowledgement of the oldest open packet is overdue.

        Not before the probe timeout has run out: a path of 190 ms is slow, and good. Nor later than a good round trip
        may take: a jittery path's probe timeout is longer than that, but an answer after that would be a bad sample.
        """
        settings = self._settings
        least, most = settings.silence_min_ms * 1000, settings.silence_max_ms * 1000
        wait = min(round(settings.silence_ptos * last.pto_us), most)
        patience = min(last.pto_us, self._rtt_limit + ACK_GRACE_US)
        return max(oldest, self._since) + max(least, wait, patience)

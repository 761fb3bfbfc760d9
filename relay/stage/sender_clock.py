"""When what a sender's streams carry was captured, by the sender's own clock: its RTCP sender reports (RFC 3550 6.4.1).

A report says which NTP time one RTP timestamp of its stream is. All streams of a session have one CNAME and go by one
NTP clock, so their capture times can be compared with each other, whatever that clock is off by. All times here are
microseconds; `captured` is of the sender's clock since 1970, and nothing but differences of it mean anything.

A stream's line is the least `NTP time - media time` of its last reports: some senders (aiortc) give the time at which
they sent a packet instead of that of its capture, which is never earlier. A report that is off the line by more than
noise and drift explain is doubted and not used. The next ones decide what it was:

- the session's other streams say the same, or there is none that could: the sender's wall clock was stepped. The step
  is taken off all that this session reports from now on, so that nothing changes for who aligns its streams;
- another stream has reported since and was on its line: this one's RTP timestamps were moved, and its line begins anew;
- it is on the line again: that one report was damaged, or late.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from relay.errors import UsageError
from relay.plane.reference.rtcp import wall_us_from_ntp
from relay.plane.reference.rtp import timestamp_delta

NEAR_US = 10_000_000
"""A report's RTP timestamp is of about now: further than this from where the stream's frames are it is damaged."""
NOISE_US = 60_000
"""What a report may be off its line by: a sender that tells when it sent a packet may have encoded it for so long."""
DRIFT = 1000
"""A thousandth of the time between reports is more than any two clocks of one device go apart."""
REPORTS = 8
WINDOW_US = 20_000_000
"""The line forgets a report after so many others, or so long: clocks drift, 100 ppm by 2 ms in it."""
STALE_US = 15_000_000
"""A stream of which no report was believed for so long has no say, and no line: senders report every 5 s at the latest,
but reports may be lost, or late."""
LATE_US = 1_000_000
"""A starved sender that tells when it sent may be late by so much, now and then: such a report is no step by itself."""
LATE_TIMES = 4
"""But so many in a row that are late by the same are one, or a leap."""
YOUNG = 3
"""Reports without which a line may have begun with a late one."""
STEPS = 4
STEPS_US = 60_000_000
"""A clock that is stepped so often within a minute is none."""

SAME_TURN_S = 3600
"""An anchor is told again before RTP timestamps are half a turn on: 6.6 hours at 90 kHz."""

Stream = tuple[int, int]
"""A track's handle and a layer of it."""
Refusal = Literal["timestamp", "off the line", "clock unsteady"]


class Report(NamedTuple):
    """A sender report of stream `ssrc`: `ntp` (64 bits) is the moment of RTP timestamp `timestamp`. It came at
    `arrival` (µs, monotonic)."""

    ssrc: int
    timestamp: int
    ntp: int
    arrival: int


class Anchor(NamedTuple):
    """The frame of RTP timestamp `timestamp` of stream `ssrc` was captured at `captured`."""

    ssrc: int
    timestamp: int
    captured: int

    def is_near(self, other: Anchor | None, clock_hz: int, within: int) -> bool:
        """Whether both are of one stream, and their lines less than `within` µs apart."""
        if other is None or other.ssrc != self.ssrc:
            return False
        ticks = timestamp_delta(self.timestamp, other.timestamp)
        if abs(ticks) > SAME_TURN_S * clock_hz:
            return False
        return abs(self.captured - other.captured - ticks * 1_000_000 // clock_hz) < within


@dataclass(slots=True)
class _Doubt:
    off: int
    since: int
    times: int = 0


@dataclass(slots=True)
class _Line:
    ssrc: int
    clock_hz: int
    last: Report
    ticks: int = 0
    """RTP timestamp of the newest report that was believed, unwrapped; counted from the first one."""
    reports: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REPORTS))
    """(media time, NTP time less media time)."""
    believed: int = 0
    """Arrival of the newest report that was."""
    refused: int = 0
    """In a row."""
    doubt: _Doubt | None = None

    @property
    def base(self) -> int:
        """NTP time of media time 0."""
        return min(base for _, base in self.reports)

    def media(self, ticks: int) -> int:
        return ticks * 1_000_000 // self.clock_hz


class SenderClock:
    """That of one session. Each layer of simulcast is a stream of its own."""

    def __init__(self) -> None:
        self.refused = 0
        """Reports that were not used."""
        self._adjust = 0
        self._lines: dict[Stream, _Line] = {}
        self._steps: deque[int] = deque(maxlen=STEPS)

    def report(self, stream: Stream, clock_hz: int, report: Report, frame: tuple[int, int]) -> Refusal | None:
        """Take a stream's newest report; one that was taken already changes nothing.

        `frame` is the RTP timestamp and the arrival of a recent frame of the same SSRC. Returns why the report is not
        used, for the first of those that are refused in a row.
        """
        if clock_hz <= 0:
            raise UsageError("an RTP clock needs a rate above 0")
        line = self._lines.get(stream)
        if line is not None and line.last == report:
            return None
        if not report.ntp:  # a sender without a clock says 0
            return None
        if line is None or line.ssrc != report.ssrc:
            line = self._lines[stream] = _Line(report.ssrc, clock_hz, report)
        repeated = (report.timestamp, report.ntp) == (line.last.timestamp, line.last.ntp)
        line.last = report
        if repeated and line.reports:  # aiortc's while its track sends nothing
            if not line.refused:
                line.believed = report.arrival
            return None
        expected = frame[0] + (report.arrival - frame[1]) * clock_hz // 1_000_000
        if abs(timestamp_delta(report.timestamp, expected & 0xFFFFFFFF)) > NEAR_US * clock_hz // 1_000_000:
            return self._refuse(line, "timestamp")
        return self._place(line, report)

    def anchor(self, stream: Stream) -> Anchor | None:
        """Return when a frame of the stream was captured, by the newest reports; None while that is not known."""
        line = self._lines.get(stream)
        if line is None or not line.reports or self._is_unsteady(line.last.arrival):
            return None
        if line.last.arrival - line.believed > STALE_US:
            return None
        media, _ = line.reports[-1]
        return Anchor(line.ssrc, self._timestamp(line), line.base + media)

    def forget(self, track: int) -> None:
        """A track is gone, with all its layers."""
        for stream in [stream for stream in self._lines if stream[0] == track]:
            del self._lines[stream]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _place(self, line: _Line, report: Report) -> Refusal | None:
        wall = wall_us_from_ntp(report.ntp) + self._adjust
        if not line.reports:
            self._begin_anew(line, report)
            return None
        ticks = line.ticks + timestamp_delta(report.timestamp, self._timestamp(line))
        media = line.media(ticks)
        off = wall - media - line.base
        if abs(off) > NOISE_US + abs(media - line.reports[-1][0]) // DRIFT:
            if len(line.reports) < YOUNG and -LATE_US < off < 0:
                self._begin_anew(line, report)
                return None
            return self._doubt(line, off, report)
        self._believe(line, ticks, wall - media, report.arrival)
        return None

    def _doubt(self, line: _Line, off: int, report: Report) -> Refusal | None:
        others = [
            each
            for each in self._lines.values()
            if each is not line and each.reports and report.arrival - each.believed < STALE_US
        ]
        doubt = line.doubt
        if doubt is None or abs(doubt.off - off) > NOISE_US:
            doubt = line.doubt = _Doubt(off, report.arrival)
        doubt.times += 1
        may_be_late = 0 < off < LATE_US
        enough = doubt.times >= (LATE_TIMES if may_be_late else 2)
        agreed = any(each.doubt is not None and abs(each.doubt.off - off) <= NOISE_US for each in others)
        if (agreed and (enough or not may_be_late)) or (enough and not others):
            return self._step(line, off, report)
        if enough and any(each.believed > doubt.since for each in others):
            if not may_be_late:
                self._count_step(report.arrival)
            self._begin_anew(line, report)
            return None
        return self._refuse(line, "off the line")

    def _step(self, line: _Line, off: int, report: Report) -> Refusal | None:
        """The sender's wall clock was stepped by `off`."""
        self._adjust -= off
        self._count_step(report.arrival)
        for each in self._lines.values():
            if each.doubt is not None and abs(each.doubt.off - off) <= NOISE_US:
                each.doubt, each.refused = None, 0
        line.doubt, line.refused = None, 0
        if self._is_unsteady(report.arrival):
            return self._refuse(line, "clock unsteady")
        return self._place(line, report)

    def _count_step(self, arrival: int) -> None:
        self._steps.append(arrival)

    def _is_unsteady(self, now: int) -> bool:
        return len(self._steps) == STEPS and now - self._steps[0] < STEPS_US

    def _begin_anew(self, line: _Line, report: Report) -> None:
        line.reports.clear()
        line.ticks = report.timestamp
        base = wall_us_from_ntp(report.ntp) + self._adjust - line.media(line.ticks)
        self._believe(line, line.ticks, base, report.arrival)

    def _believe(self, line: _Line, ticks: int, base: int, arrival: int) -> None:
        media = line.media(ticks)
        line.ticks, line.believed, line.doubt, line.refused = ticks, arrival, None, 0
        line.reports.append((media, base))
        while media - line.reports[0][0] > WINDOW_US:
            line.reports.popleft()

    def _refuse(self, line: _Line, why: Refusal) -> Refusal | None:
        self.refused += 1
        line.refused += 1
        return why if line.refused == 1 else None

    def _timestamp(self, line: _Line) -> int:
        return line.ticks & 0xFFFFFFFF

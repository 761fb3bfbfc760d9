"""Is a queue growing between us and a viewer? A trendline over one-way delay differences.

The filter of draft-ietf-rmcat-gcc-02 sections 5.2 to 5.4, with the linear regression that libwebrtc put in the place of
the Kalman filter. Only + - * / on f64, in a fixed order, so that another implementation agrees to the bit.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

BURST_US = 5_000  # packets sent within 5 ms are one group
WINDOW = 20  # group deltas in the regression
_SMOOTHING = 0.9
_GAIN = 4.0
_MAX_DELTAS = 60
_THRESHOLD_MS = 12.5
_THRESHOLD_MIN_MS = 6.0
_THRESHOLD_MAX_MS = 600.0
_ADAPT_UP = 0.0087  # per ms
_ADAPT_DOWN = 0.039
_ADAPT_LIMIT_MS = 15.0  # outliers further off than this do not move the threshold
_OVERUSE_MS = 10.0  # a slope has to stay this long
_REORDERED_LIMIT = 3
_STALL_US = 3_000_000  # groups further apart than this do not belong to one trend


class Usage(IntEnum):
    NORMAL = 0
    OVERUSE = 1  # the queue grows
    UNDERUSE = 2  # the queue drains


class DelayTrend:
    """Feed acknowledged packets in sending order; read `usage`."""

    __slots__ = (
        "_accumulated",
        "_arrival",
        "_deltas",
        "_first_arrival",
        "_first_send",
        "_history",
        "_over_count",
        "_over_ms",
        "_previous_arrival",
        "_previous_send",
        "_reordered",
        "_send",
        "_slope",
        "_smoothed",
        "_threshold",
        "_updated_us",
        "usage",
    )

    def __init__(self) -> None:
        self._history: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._threshold = _THRESHOLD_MS
        self.reset()

    def reset(self) -> None:
        """Forget the past, after idling or a jump of the receiver's clock. The adapted threshold stays."""
        self._history.clear()
        self._first_send = self._previous_send = -1
        self._send = self._arrival = self._previous_arrival = self._first_arrival = 0
        self._reordered = self._deltas = self._over_count = 0
        self._accumulated = self._smoothed = self._slope = self._over_ms = 0.0
        self._updated_us = -1
        self.usage = Usage.NORMAL

    def add(self, send_us: int, arrival_us: int) -> None:
        """One packet, with our sending time and the receiver's arrival time (any offset)."""
        since = send_us - self._first_send
        if self._first_send < 0:
            self._open(send_us, arrival_us)
        elif since < 0:
            return  # older than the current group: its trend is history
        elif since <= BURST_US or (
            # A pile that left the bottleneck at once belongs together however it was sent.
            0 <= arrival_us - self._arrival <= BURST_US
            and arrival_us - self._arrival < send_us - self._send
            and arrival_us - self._previous_arrival < 100_000
        ):
            self._send = max(self._send, send_us)
            self._arrival = max(self._arrival, arrival_us)
        else:
            if self._previous_send >= 0:
                self._compare()
            self._previous_send, self._previous_arrival = self._send, self._arrival
            self._open(send_us, arrival_us)

    def _open(self, send_us: int, arrival_us: int) -> None:
        self._first_send = self._send = send_us
        self._arrival = arrival_us

    def _compare(self) -> None:
        """The current group is complete: compare it with the one before."""
        sent = self._send - self._previous_send
        arrived = self._arrival - self._previous_arrival
        if sent > _STALL_US or arrived > _STALL_US:
            self.reset()
            return
        if arrived < 0:
            self._reordered += 1
            if self._reordered >= _REORDERED_LIMIT:
                self.reset()
            return
        self._reordered = 0
        if not self._deltas:
            self._first_arrival = self._arrival
        self._deltas += 1
        self._accumulated += (arrived - sent) / 1000.0
        self._smoothed = _SMOOTHING * self._smoothed + (1.0 - _SMOOTHING) * self._accumulated
        self._history.append(((self._arrival - self._first_arrival) / 1000.0, self._smoothed))
        slope = self._regress() if len(self._history) == WINDOW else self._slope
        self._judge(slope, sent / 1000.0)

    def _regress(self) -> float:
        """Least-squares slope of smoothed delay over arrival time; the old slope when all arrived at once."""
        sum_x = sum_y = 0.0
        for x, y in self._history:
            sum_x += x
            sum_y += y
        mean_x, mean_y = sum_x / WINDOW, sum_y / WINDOW
        numerator = denominator = 0.0
        for x, y in self._history:
            numerator += (x - mean_x) * (y - mean_y)
            denominator += (x - mean_x) * (x - mean_x)
        return numerator / denominator if denominator > 0.0 else self._slope

    def _judge(self, slope: float, sent_ms: float) -> None:
        scaled = min(self._deltas, _MAX_DELTAS) * slope * _GAIN
        if scaled > self._threshold:
            self._over_ms += sent_ms
            self._over_count += 1
            if self._over_ms > _OVERUSE_MS and self._over_count > 1 and slope >= self._slope:
                self._over_ms, self._over_count = 0.0, 0
                self.usage = Usage.OVERUSE
        else:
            self._over_ms, self._over_count = 0.0, 0
            self.usage = Usage.UNDERUSE if scaled < -self._threshold else Usage.NORMAL
        self._slope = slope
        self._adapt(scaled if scaled >= 0.0 else -scaled)

    def _adapt(self, size: float) -> None:
        """Let the threshold follow the noise (section 5.4), so that jitter is not taken for a queue."""
        elapsed = 0.0 if self._updated_us < 0 else min((self._arrival - self._updated_us) / 1000.0, 100.0)
        self._updated_us = self._arrival
        if size > self._threshold + _ADAPT_LIMIT_MS:
            return
        gain = _ADAPT_DOWN if size < self._threshold else _ADAPT_UP
        threshold = self._threshold + gain * (size - self._threshold) * elapsed
        self._threshold = min(max(threshold, _THRESHOLD_MIN_MS), _THRESHOLD_MAX_MS)

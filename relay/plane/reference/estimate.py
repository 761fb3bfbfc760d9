"""How much may be sent to one viewer: send-side bandwidth estimation.

Delay: draft-ietf-rmcat-gcc-02 (trend of one-way delay, then additive/multiplicative increase, decrease to 0.85 of what
arrived). Loss: a ceiling that sinks above 10 % loss and rises 8 % a second below 2 %. Probes: short trains sent faster
than the estimate; what arrives of them lifts it at once. REMB is a ceiling, or the estimate itself for clients without
transport-cc. Rates are integers in bit/s, times microseconds.
"""

from __future__ import annotations

from array import array

from relay.plane.reference.delay_trend import DelayTrend, Usage
from relay.plane.reference.transport_cc import REFERENCE_WRAP_US, Feedback

MIN_BITRATE = 50_000
START_BITRATE = 600_000
MAX_BITRATE = 30_000_000
HISTORY = 2048  # packets in flight: 2 s at 10 Mbit/s of 1200 bytes; older ones are unknown
PROBE_US = 15_000  # a train lasts this long,
PROBE_PACKETS = 5  # and has at least so many packets

_MASK = HISTORY - 1
_IDLE_US = 2_000_000  # without feedback for this long, delay and rate start anew
_REMB_US = 5_000_000  # a REMB is good for this long
_CLOCK_JUMP_US = 10_000_000
_BUCKET_US = 50_000
_BUCKETS = 10  # the acknowledged rate is taken over 500 ms
_MIN_SPAN_US = 150_000
_LOSS_PACKETS = 20  # a verdict on loss needs so many packets
_LOSS_US = 200_000  # and so much time
_HEADROOM = 10_000  # bit/s beyond 1.5 × what arrived, so that a trickle can grow
_NO_LIMIT = 1 << 62
_UNSENT = -1
_STATE_ACKED = 1
_STATE_LOST = 2


class AckedRate:
    """Bytes per arrival time in a sliding window of 500 ms."""

    __slots__ = ("_bucket", "_bytes", "_first", "_last", "_total")

    def __init__(self) -> None:
        self._bytes = array("q", [0]) * _BUCKETS
        self.reset()

    def reset(self) -> None:
        for at in range(_BUCKETS):
            self._bytes[at] = 0
        self._bucket = self._first = self._last = self._total = 0

    def add(self, arrival_us: int, size: int) -> None:
        bucket = arrival_us // _BUCKET_US
        if not self._total:
            self.reset()
            self._bucket, self._first, self._last = bucket, arrival_us, arrival_us
        elif bucket > self._bucket:
            for passed in range(max(self._bucket + 1, bucket - _BUCKETS + 1), bucket + 1):
                self._total -= self._bytes[passed % _BUCKETS]
                self._bytes[passed % _BUCKETS] = 0
            self._bucket = bucket
        elif bucket <= self._bucket - _BUCKETS:
            return
        self._bytes[bucket % _BUCKETS] += size
        self._total += size
        if arrival_us > self._last:
            self._last = arrival_us

    def bitrate(self) -> int:
        """Bit/s, 0 while less than 150 ms were seen."""
        span = self._last - max(self._first, (self._bucket - _BUCKETS + 1) * _BUCKET_US)
        return self._total * 8_000_000 // span if span >= _MIN_SPAN_US else 0


class Probe:
    """One train: which sequence numbers belong to it, and what came of them."""

    __slots__ = ("_arrivals", "_bytes", "_sends", "bitrate", "first", "last", "started_us")

    def __init__(self, first: int, bitrate: int, now: int) -> None:
        self.first = first  # 16-bit sequence number of its first packet
        self.last = -1  # of its last one, -1 while it is being sent
        self.bitrate = bitrate
        self.started_us = now
        self._sends: list[int] = []
        self._arrivals: list[int] = []
        self._bytes: list[int] = []

    def add(self, seq16: int, send_us: int, arrival_us: int, size: int) -> None:
        ahead = (seq16 - self.first) & 0xFFFF
        if ahead < HISTORY and (self.last < 0 or ahead <= (self.last - self.first) & 0xFFFF):
            self._sends.append(send_us)
            self._arrivals.append(arrival_us)
            self._bytes.append(size)

    def result(self) -> int:
        """Bit/s that the path has shown it can carry, 0 when the train says nothing."""
        count = len(self._sends)
        if count < PROBE_PACKETS or count * 10 < (((self.last - self.first) & 0xFFFF) + 1) * 8:
            return 0
        total = sum(self._bytes)
        sending = max(self._sends) - min(self._sends)
        arriving = max(self._arrivals) - min(self._arrivals)
        if not (0 < sending <= 1_000_000 and 0 < arriving <= 1_000_000):
            return 0
        # The last packet's bytes are sent after the sending interval, the first one's arrive before the other.
        sent = (total - self._bytes[-1]) * 8_000_000 // sending
        got = (total - self._bytes[0]) * 8_000_000 // arriving
        if got > 2 * sent:
            return 0  # released in a clump: the times measure a scheduler, not a path
        return got * 95 // 100 if got * 10 < sent * 9 else min(sent, got)


class BandwidthEstimator:
    """One per viewer session; its transport-wide sequence numbers are consecutive over all SSRCs."""

    __slots__ = (
        "_acked",
        "_backoff_us",
        "_capacity",
        "_decreased_us",
        "_delay_bps",
        "_feedback_us",
        "_increased_us",
        "_keys",
        "_last_seq",
        "_loss_bps",
        "_loss_changed_us",
        "_loss_since_us",
        "_lost",
        "_max_bps",
        "_min_bps",
        "_probe",
        "_probe_next_us",
        "_received",
        "_reference",
        "_reference_raw",
        "_remb_bps",
        "_remb_us",
        "_report_us",
        "_rtt_us",
        "_sent_bytes",
        "_sent_us",
        "_trend",
        "bitrate",
        "loss_permil",
        "probe_result",
    )

    def __init__(self, start_bps: int = START_BITRATE, max_bps: int = MAX_BITRATE, min_bps: int = MIN_BITRATE) -> None:
        self._min_bps, self._max_bps = min_bps, max_bps
        self.bitrate = start_bps  # the estimate, bit/s
        self.loss_permil = 0  # of the last verdict
        self.probe_result = 0  # bit/s that the last finished probe showed, 0 when none or inconclusive
        self._sent_us = array("q", [_UNSENT]) * HISTORY
        self._keys = array("q", [_UNSENT]) * HISTORY  # size << 18 | sequence number << 2 | state
        self._last_seq = -1
        self._sent_bytes = 0  # since the last receiver report
        self._trend = DelayTrend()
        self._acked = AckedRate()
        self._delay_bps, self._loss_bps, self._remb_bps = start_bps, _NO_LIMIT, _NO_LIMIT
        self._capacity = 0  # bit/s at which the path was last seen full, 0 unknown
        self._rtt_us = 100_000
        self._feedback_us = self._remb_us = self._report_us = self._loss_since_us = -1
        self._increased_us = self._decreased_us = self._loss_changed_us = -1
        self._reference = self._reference_raw = -1
        self._lost = self._received = 0
        self._probe: Probe | None = None
        self._probe_next_us, self._backoff_us = 0, 0

    def set_max(self, bps: int) -> None:
        """Change the ceiling, e.g. to what the viewer's layers can use at most."""
        self._max_bps = bps
        self._settle()

    def on_sent(self, seq16: int, size_bytes: int, now: int) -> None:
        """A packet left, `size_bytes` below 65536 including its overhead."""
        at = seq16 & 2047
        self._sent_us[at] = now
        self._keys[at] = size_bytes << 18 | seq16 << 2
        self._last_seq = seq16
        self._sent_bytes += size_bytes

    def on_rtt(self, us: int) -> None:
        """A round trip measured from RTCP or STUN."""
        self._rtt_us = min(max(us, 1_000), 2_000_000)

    def on_feedback(self, feedback: Feedback, now: int) -> None:
        """Take one parsed transport-cc packet. What is unknown or was known already has no effect."""
        if self._feedback_us < 0 or now - self._feedback_us > _IDLE_US:
            self._restart(now)
        offset = self._unwrap(feedback.reference_us)
        sent_us, keys, trend, acked, probe = self._sent_us, self._keys, self._trend, self._acked, self._probe
        received = lost = 0
        for seq16, arrival in feedback.packets:
            at = seq16 & _MASK
            key = keys[at]
            if (key >> 2) & 0xFFFF != seq16 or key < 0 or key & _STATE_ACKED:
                continue
            if arrival is None:
                if not key & _STATE_LOST:
                    keys[at] = key | _STATE_LOST
                    lost += 1
                continue
            keys[at] = key | _STATE_ACKED
            received += 1
            if key & _STATE_LOST:
                lost -= 1  # reported lost before, it was only late
            arrival += offset
            acked.add(arrival, key >> 18)
            trend.add(sent_us[at], arrival)
            if probe is not None:
                probe.add(seq16, sent_us[at], arrival, key >> 18)
        if not received and not lost:
            return
        self._feedback_us = now
        self._expire_remb(now)
        self._received += received
        self._lost = max(0, self._lost + lost)
        if received:
            self._adjust(now)
        self._weigh_loss(now)
        if probe is not None:
            self._finish_probe(probe, feedback, now)
        self._settle()

    def _restart(self, now: int) -> None:
        """First feedback, or the first after idling: keep the rate, measure delay and throughput anew."""
        self._trend.reset()
        self._acked.reset()
        self._increased_us = now
        self._lost = self._received = 0
        self._loss_since_us = now

    def _unwrap(self, raw_us: int) -> int:
        """Reference time without its wrap; a jump of the receiver's clock restarts the delay filter."""
        if self._reference_raw < 0:
            self._reference = raw_us
        else:
            step = (raw_us - self._reference_raw) % REFERENCE_WRAP_US
            if step >= REFERENCE_WRAP_US // 2:
                step -= REFERENCE_WRAP_US
            if not -_CLOCK_JUMP_US < step < _CLOCK_JUMP_US:
                self._trend.reset()
                self._acked.reset()
            self._reference += step
        self._reference_raw = raw_us
        return self._reference

    def _adjust(self, now: int) -> None:
        """Additive increase, multiplicative decrease (section 6 of the draft)."""
        acked = self._acked.bitrate()
        usage = self._trend.usage
        if usage is Usage.OVERUSE:
            pause = min(max(self._rtt_us, 10_000), 200_000)
            if acked and (now - self._decreased_us >= pause or acked * 2 < self._delay_bps):
                self._capacity = acked if not self._capacity else (self._capacity * 7 + acked) >> 3
                self._delay_bps = max(min(acked * 85 // 100, self._delay_bps), self._min_bps)
                self._decreased_us = now
                self._probe_next_us = max(self._probe_next_us, now + 1_000_000)
        elif usage is Usage.NORMAL and acked:
            self._increase(acked, min(now - self._increased_us, 1_000_000))
        self._increased_us = now

    def _increase(self, acked: int, elapsed_us: int) -> None:
        """8 % a second while the limit is unknown, about one packet a response time near a known limit."""
        ceiling = acked * 3 // 2 + _HEADROOM
        if self._delay_bps >= ceiling:
            return
        if self._capacity and acked * 4 > self._capacity * 5:
            self._capacity = 0  # far above the old limit: it is gone
        if self._capacity and acked * 4 > self._capacity * 3:
            per_second = max(4_000, 1200 * 8 * 1_000_000 // (self._rtt_us + 100_000))
            per_second = min(per_second, self._delay_bps * 8 // 100 + 4_000)
        else:
            per_second = self._delay_bps * 8 // 100 + 1_000
        self._delay_bps = min(self._delay_bps + per_second * elapsed_us // 1_000_000, ceiling)

    def _weigh_loss(self, now: int) -> None:
        total = self._received + self._lost
        if total >= _LOSS_PACKETS and now - self._loss_since_us >= _LOSS_US:
            self._apply_loss(self._lost * 1000 // total, now, now - self._loss_since_us)
            self._received = self._lost = 0
            self._loss_since_us = now

    def _apply_loss(self, permil: int, now: int, elapsed_us: int) -> None:
        """Above 10 %: shrink by half the loss; below 2 %: 8 % a second; between: leave it (section 6 of the draft)."""
        self.loss_permil = permil
        if permil > 100:
            if now - self._loss_changed_us >= 300_000 + self._rtt_us or self._loss_changed_us < 0:
                self._loss_bps = max(self.bitrate * (2000 - permil) // 2000, self._min_bps)
                self._loss_changed_us = now
        elif permil < 20 and self._loss_bps < _NO_LIMIT:
            self._loss_bps += (self._loss_bps * 8 // 100 + 1_000) * min(elapsed_us, 1_000_000) // 1_000_000
            if self._loss_bps > self._max_bps:
                self._loss_bps = _NO_LIMIT

    def on_receiver_report(self, fraction_lost: int, now: int) -> None:
        """Loss from a report block, in 1/256. Only for clients without transport-cc, which knows better."""
        elapsed = 1_000_000 if self._report_us < 0 else min(max(now - self._report_us, 0), 5_000_000)
        sent = self._sent_bytes * 8_000_000 // elapsed if elapsed else 0
        self._report_us = now
        self._sent_bytes = 0
        if self._hears_feedback(now) or not elapsed:
            return
        permil = fraction_lost * 1000 >> 8
        self._apply_loss(permil, now, elapsed)
        ceiling = sent * 3 // 2 + _HEADROOM
        if permil < 20 and self._delay_bps < ceiling:
            step = (self._delay_bps * 8 // 100 + 1_000) * min(elapsed, 1_000_000) // 1_000_000
            self._delay_bps = min(self._delay_bps + step, ceiling)
        self._expire_remb(now)
        self._settle()

    def on_remb(self, bps: int, now: int) -> None:
        """The receiver's own estimate: a ceiling for 5 s; without transport-cc it is the estimate."""
        self._remb_bps, self._remb_us = bps, now
        if not self._hears_feedback(now):
            self._delay_bps = min(max(bps, self._min_bps), self._max_bps)
        self._settle()

    def _hears_feedback(self, now: int) -> bool:
        return self._feedback_us >= 0 and now - self._feedback_us <= _IDLE_US

    def _expire_remb(self, now: int) -> None:
        if self._remb_us >= 0 and now - self._remb_us > _REMB_US:
            self._remb_bps, self._remb_us = _NO_LIMIT, -1

    def probe_wanted(self, wanted_bps: int, now: int) -> int:
        """Bit/s at which to send a probe train now, 0 for none. `wanted_bps` is what there would be use for.

        0 before the first packet was sent. The first trains go at three times the estimate, later ones at twice; a
        train that showed nothing new doubles the pause (1 s … 16 s).
        """
        if self._probe is not None and now - self._probe.started_us > 2_000_000:
            self._probe = None  # its feedback never came
        if self._last_seq < 0 or self._probe is not None or now < self._probe_next_us or wanted_bps <= self.bitrate:
            return 0
        if self._trend.usage is Usage.OVERUSE or self.loss_permil > 100:
            return 0
        factor = 2 if self._capacity or self._backoff_us else 3
        return min(self.bitrate * factor, max(wanted_bps, self.bitrate * 5 // 4), self._max_bps)

    def on_probe_started(self, cluster_bps: int, now: int) -> None:
        """All packets sent from now until `on_probe_ended` are one train at `cluster_bps`: PROBE_US, PROBE_PACKETS."""
        self._probe = Probe((self._last_seq + 1) & 0xFFFF, cluster_bps, now)

    def on_probe_ended(self) -> None:
        """The train is sent; its verdict comes with the feedback."""
        if self._probe is not None:
            self._probe.last = self._last_seq

    def _finish_probe(self, probe: Probe, feedback: Feedback, now: int) -> None:
        if probe.last < 0 or (feedback.packets[-1][0] - probe.last) & 0xFFFF >= 0x8000:
            return
        self._probe = None
        result = self.probe_result = probe.result()
        if result * 10 > self.bitrate * 11:
            self._delay_bps = max(min(result, self._max_bps), self._delay_bps)
            if self._loss_bps < result:
                self._loss_bps = result
            self._capacity = 0
            saturated = result * 10 < probe.bitrate * 8
            self._backoff_us = 1_000_000 if saturated else 0
            self._probe_next_us = now + (self._backoff_us or 100_000)
        else:
            self._backoff_us = min(max(self._backoff_us * 2, 1_000_000), 16_000_000)
            self._probe_next_us = now + self._backoff_us

    def _settle(self) -> None:
        lowest = min(self._delay_bps, self._loss_bps, self._remb_bps, self._max_bps)
        self.bitrate = max(lowest, self._min_bps)

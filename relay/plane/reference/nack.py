"""Loss detection for one received SSRC: what is missing, when to ask for it, and RFC 3550 reception statistics.

A missing number is asked for when one three or more ahead of it has come (overtaken by at most two is reordering,
by far the most common kind) or 10 ms after the gap was seen, whichever is first: inside a video frame packets follow
within microseconds, so the count decides at once; at the end of a frame and for audio nothing follows for 20 ms, so
the clock decides.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum

REORDER_PACKETS = 2
REORDER_US = 10_000
MIN_RETRY_US = 20_000
MAX_TRIES = 10
MAX_AGE_US = 1_000_000
MAX_JUMP = 1000  # a longer jump, either way, is a restarted stream
MAX_MISSING = 512  # more outstanding than this: only a keyframe helps, the oldest count as lost
_RING = 1024  # ≥ MAX_JUMP + 1, so that every packet still accepted has its own place
_NEVER = -(1 << 62)
_FAR = 1 << 62


class Arrival(IntEnum):
    """What one packet turned out to be."""

    NEW = 0  # ahead of all others
    RECOVERED = 1  # late or retransmitted, not seen before
    DUPLICATE = 2
    RESET = 3  # a jump: the stream starts anew with this packet


@dataclass(frozen=True, slots=True)
class Reception:
    """Fields of a report block (RFC 3550 6.4.1): fraction in 1/256, jitter in clock units."""

    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int


class LossDetector:
    """One per received SSRC. Times are microseconds, sequence numbers 16 bits at the border."""

    __slots__ = (
        "_base",
        "_clock_rate",
        "_expected_prior",
        "_fresh",
        "_jitter",
        "_missing",
        "_next",
        "_received",
        "_received_prior",
        "_seen",
        "_transit",
        "duplicates",
        "given_up",
        "highest",
        "recovered_count",
    )

    def __init__(self, clock_rate: int = 90_000) -> None:
        self._clock_rate = clock_rate
        self._missing: dict[int, list[int]] = {}  # extended sequence → [seen at, due at, tries], ascending
        self.highest = -1  # extended sequence number, -1 before the first packet
        self.duplicates = 0
        self.recovered_count = 0
        self.given_up = 0
        self._start(0)
        self.highest = -1

    def _start(self, seq16: int) -> None:
        """RFC 3550 A.1 init_seq."""
        self._seen = array("q", [_NEVER]) * _RING
        self.given_up += len(self._missing)
        self._missing.clear()
        self._fresh = self._next = _FAR
        self._base = self.highest = seq16
        self._received = self._received_prior = self._expected_prior = 0
        self._transit = _NEVER
        self._jitter = 0  # scaled by 16, RFC 3550 A.8

    def received(self, seq16: int, now: int, timestamp: int = -1) -> Arrival:
        """Account for one packet. `timestamp` (32 bits) feeds the jitter; -1 leaves it out."""
        highest = self.highest
        delta = (seq16 - highest) & 0xFFFF
        if delta == 1 and highest >= 0:
            self.highest = highest = highest + 1
            self._seen[highest & 1023] = highest
            self._received += 1
            if highest > self._fresh:
                self._next = now
        else:
            arrival = self._irregular(seq16, delta, now)
            if arrival is Arrival.RECOVERED or arrival is Arrival.DUPLICATE:
                return arrival
            if arrival is Arrival.RESET:
                self._note_jitter(timestamp, now)
                return arrival
        if timestamp >= 0:
            self._note_jitter(timestamp, now)
        return Arrival.NEW

    def _irregular(self, seq16: int, delta: int, now: int) -> Arrival:
        """Everything that is not the next packet in order. `delta` is 16 bits ahead of the highest."""
        highest = self.highest
        if highest < 0:
            self._start(seq16)
            arrival = Arrival.NEW
        elif delta == 0:
            self.duplicates += 1
            self._received += 1  # RFC 3550 A.3 counts them, so that loss can be negative
            return Arrival.DUPLICATE
        elif delta <= MAX_JUMP:
            self._gap(highest + 1, highest + delta, now)
            self.highest = highest + delta
            if self.highest > self._fresh:
                self._next = now
            arrival = Arrival.NEW
        elif delta >= 0x10000 - MAX_JUMP:
            self._received += 1
            return self._late(highest + delta - 0x10000)
        else:
            self._start(seq16)
            arrival = Arrival.RESET
        self._seen[self.highest & 1023] = self.highest
        self._received += 1
        return arrival

    def _late(self, seq: int) -> Arrival:
        """A packet behind the highest one, by its extended sequence number."""
        if self._seen[seq & 1023] == seq:
            self.duplicates += 1
            return Arrival.DUPLICATE
        self._seen[seq & 1023] = seq
        self._missing.pop(seq, None)
        self.recovered_count += 1
        return Arrival.RECOVERED

    def recovered(self, seq16: int) -> Arrival:
        """A packet restored by RTX or parity: no longer missing, not counted as received (RFC 4588 section 4)."""
        behind = (self.highest - seq16) & 0xFFFF
        if self.highest < 0 or behind > MAX_JUMP:
            return Arrival.DUPLICATE
        return self._late(self.highest - behind)

    def _gap(self, first: int, end: int, now: int) -> None:
        """first … end - 1 are missing."""
        missing = self._missing
        due = now + REORDER_US
        for seq in range(max(first, end - MAX_MISSING), end):
            missing[seq] = [now, due, 0]
        self.given_up += max(0, end - MAX_MISSING - first)
        while len(missing) > MAX_MISSING:
            del missing[next(iter(missing))]
            self.given_up += 1
        if self._next > due:
            self._next = due
        if self._fresh == _FAR:
            self._fresh = max(first, end - MAX_MISSING) + REORDER_PACKETS

    def due(self, now: int, rtt_us: int = 100_000) -> list[int]:
        """Sequence numbers (16 bits) to ask for now, ascending. Empty and cheap before `next_timeout`.

        Each is asked for again after max(`rtt_us`, 20 ms), at most ten times and for at most 1 s; then it is lost.
        """
        if now < self._next or not self._missing:
            return []
        retry = rtt_us if rtt_us > MIN_RETRY_US else MIN_RETRY_US
        overtaken = self.highest - REORDER_PACKETS
        out: list[int] = []
        dead: list[int] = []
        soonest, fresh = _FAR, _FAR
        for seq, entry in self._missing.items():
            since, at, tries = entry
            if now - since > MAX_AGE_US or (tries >= MAX_TRIES and now >= at):
                dead.append(seq)
                continue
            if now >= at or (not tries and seq < overtaken):
                out.append(seq & 0xFFFF)
                entry[1] = at = now + retry
                entry[2] = tries + 1
            elif not tries and fresh == _FAR:
                fresh = seq + REORDER_PACKETS
            if at < soonest:
                soonest = at
        for seq in dead:
            del self._missing[seq]
        self.given_up += len(dead)
        self._next, self._fresh = soonest, fresh
        return out

    def next_timeout(self) -> int | None:
        """When `due` has something to do, in microseconds; None while nothing is missing. May be in the past."""
        return self._next if self._missing else None

    @property
    def missing(self) -> int:
        """How many sequence numbers are outstanding."""
        return len(self._missing)

    def keyframe(self, seq16: int) -> None:
        """A decodable frame starts at `seq16`: what is missing before it is not needed any more."""
        if self.highest < 0:
            return
        seq = self.highest - ((self.highest - seq16) & 0xFFFF)
        stale = [old for old in self._missing if old < seq]
        for old in stale:
            del self._missing[old]
        self.given_up += len(stale)

    def _note_jitter(self, timestamp: int, now: int) -> None:
        """RFC 3550 A.8, in integers; transit wraps at 32 bits with the timestamp."""
        if timestamp < 0:
            return
        transit = (now * self._clock_rate // 1_000_000 - timestamp) & 0xFFFFFFFF
        if self._transit >= 0:
            difference = (transit - self._transit) & 0xFFFFFFFF
            if difference & 0x80000000:
                difference = 0x100000000 - difference
            self._jitter += difference - ((self._jitter + 8) >> 4)
        self._transit = transit

    def report(self) -> Reception:
        """Statistics for a report block; starts the next interval of `fraction_lost` (RFC 3550 A.3)."""
        if self.highest < 0:
            return Reception(0, 0, 0, 0)
        expected = self.highest - self._base + 1
        expected_interval = expected - self._expected_prior
        lost_interval = expected_interval - (self._received - self._received_prior)
        self._expected_prior = expected
        self._received_prior = self._received
        fraction = (lost_interval << 8) // expected_interval if expected_interval > 0 and lost_interval > 0 else 0
        cumulative = max(-0x800000, min(expected - self._received, 0x7FFFFF))
        return Reception(min(fraction, 255), cumulative, self.highest & 0xFFFFFFFF, (self._jitter >> 4) & 0xFFFFFFFF)

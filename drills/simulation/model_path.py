"""A lossy path in virtual time with QUIC's view of it: packet by packet, seeded, one heap of arrivals.

The sender's half keeps what RFC 9002 keeps: round trips with the peer's delay taken off, smoothed and varied, loss by
packet threshold (3) and time threshold (9/8), a probe timeout that sends a ping. The receiver acknowledges every second
packet, and a lone one after `ack_delay`. Times are microseconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.link.path import PathReport

MS = 1_000
SECOND = 1_000_000
PACKET_THRESHOLD = 3
MAX_ACK_DELAY = 25 * MS


class Bursts:
    """Gilbert–Elliott: all is lost in the bad state, nothing in the good one. `burst` is the mean length of a loss."""

    def __init__(self, rate: float, burst: float, dice: random.Random) -> None:
        self._leave = 1 / burst
        self._enter = rate * self._leave / (1 - rate) if rate < 1 else 1.0
        self._dice = dice
        self._bad = False

    def lost(self) -> bool:
        """Say whether the next packet is lost."""
        self._bad = self._dice.random() >= self._leave if self._bad else self._dice.random() < self._enter
        return self._bad


@dataclass
class Direction:
    """One way: what delays, and what drops. Both may be replaced while it runs."""

    delay: Callable[[], int] = lambda: 5 * MS
    lost: Callable[[], bool] = lambda: False
    in_order: bool = False  # a queue: nobody overtakes
    last: int = field(default=0, init=False)

    def arrival(self, now: int) -> int | None:
        """Return when what leaves now arrives, or None."""
        if self.lost():
            return None
        arrival = now + self.delay()
        if self.in_order:
            arrival = self.last = max(arrival, self.last)
        return arrival


def black_hole() -> bool:
    """Drop everything."""
    return True


class ModelPath:
    """Both ends of one QUIC connection, as far as acknowledgements go. Call `run` before you look at it."""

    def __init__(self, forth: Direction, back: Direction, ack_delay: int = 5 * MS) -> None:
        self.forth, self.back = forth, back
        self.now = 0
        self.sent = self.acked = self.lost = self.delivered = 0
        self.overtaken = 0  # declared lost, acknowledged after all
        self._ack_delay = ack_delay
        self._open: dict[int, int] = {}  # number: send time
        self._declared: dict[int, int] = {}
        self._heap: list[tuple[int, int, str, tuple[int, ...], int]] = []
        self._kinds = {"packet": self._received, "ack": self._acknowledged, "timer": self._ack_timer,
                       "again": self._acknowledge_again}  # fmt: skip
        self._order = 0
        self._waiting: list[int] = []  # received, not yet acknowledged
        self._waiting_since = 0
        self._again_is_due = False
        self._largest = -1
        self._samples: list[int] = []
        self._latest = self._smoothed = self._variance = 0
        self._least = 1 << 60
        self._last_sent = 0
        self._backoff = 1

    @property
    def pto(self) -> int:
        """Probe timeout, RFC 9002 section 6.2.1, before back-off."""
        if not self._smoothed:
            return 200 * MS
        return self._smoothed + max(4 * self._variance, MS) + MAX_ACK_DELAY

    def send(self, now: int) -> int:
        """Send one ack-eliciting packet; returns its number."""
        self.run(now)
        number = self.sent
        self.sent += 1
        self._open[number] = now
        self._last_sent = now
        arrival = self.forth.arrival(now)
        if arrival is not None:
            self._push(arrival, "packet", (number,), 0)
        return number

    def run(self, now: int) -> None:
        """Let everything happen that happens until `now`."""
        while True:
            timer = self._next_timer()
            due = self._heap[0][0] if self._heap else None
            if due is not None and due <= now and (timer is None or due <= timer):
                at, _, kind, numbers, delay = heapq.heappop(self._heap)
                self.now = max(self.now, at)
                self._kinds[kind](numbers, delay)
            elif timer is not None and timer <= now:
                self.now = max(self.now, timer)
                self._timer()
            else:
                break
        self.now = now

    def next_event(self) -> int | None:
        """Return when `run` has something to do; None for not before something is sent."""
        due = self._heap[0][0] if self._heap else None
        timer = self._next_timer()
        return timer if due is None else due if timer is None else min(due, timer)

    def report(self, now: int) -> PathReport:
        """Return what a transport would report, and start a new list of samples."""
        self.run(now)
        samples, self._samples = tuple(self._samples), []
        oldest = next(iter(self._open.values()), None)
        return PathReport(now, samples, self.sent, self.acked, self.lost, oldest, self.pto)

    def _push(self, at: int, kind: str, numbers: tuple[int, ...], delay: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, kind, numbers, delay))

    def _received(self, numbers: tuple[int, ...], _: int) -> None:
        self.delivered += 1
        if not self._waiting:
            self._waiting_since = self.now
            self._push(self.now + self._ack_delay, "timer", numbers, 0)
        self._waiting += numbers
        if len(self._waiting) >= 2:
            self._acknowledge()

    def _ack_timer(self, numbers: tuple[int, ...], _: int) -> None:
        if numbers[0] in self._waiting:
            self._acknowledge()

    def _acknowledge(self) -> None:
        arrival = self.back.arrival(self.now)
        newest = self._waiting[-1] == max(self._waiting)
        delay = 0 if newest and len(self._waiting) > 1 else self.now - self._waiting_since
        if arrival is not None:
            self._push(arrival, "ack", tuple(self._waiting), delay)
            self._waiting = []
        else:  # the next acknowledgement has these ranges too
            self._waiting = self._waiting[-64:]
            self._waiting_since = self.now
            if not self._again_is_due:
                self._again_is_due = True
                self._push(self.now + self._ack_delay, "again", (), 0)

    def _acknowledge_again(self, numbers: tuple[int, ...], _: int) -> None:
        self._again_is_due = False
        if self._waiting:
            self._acknowledge()

    def _acknowledged(self, numbers: tuple[int, ...], delay: int) -> None:
        newly = [number for number in numbers if number in self._open]
        for number in numbers:
            if self._declared.pop(number, None) is not None:
                self.overtaken += 1
                self.lost -= 1
                self.acked += 1
        if newly and max(newly) > self._largest:
            self._measure(self.now - self._open[max(newly)], delay)
        self._largest = max(self._largest, *numbers)
        for number in newly:
            del self._open[number]
            self.acked += 1
            self._backoff = 1
        self._detect()

    def _measure(self, sample: int, delay: int) -> None:
        self._least = min(self._least, sample)
        self._latest = sample - delay if sample > self._least + delay else sample
        self._samples.append(self._latest)
        if not self._smoothed:
            self._smoothed, self._variance = self._latest, self._latest // 2
        self._variance = (3 * self._variance + abs(self._smoothed - self._latest)) // 4
        self._smoothed = (7 * self._smoothed + self._latest) // 8

    def _loss_delay(self) -> int:
        return max(9 * max(self._latest, self._smoothed) // 8, MS)

    def _detect(self) -> None:
        delay = self._loss_delay()
        for number, at in list(self._open.items()):
            if number >= self._largest:
                break
            if self._largest - number >= PACKET_THRESHOLD or self.now >= at + delay:
                del self._open[number]
                self._declared[number] = at
                self._declare_lost(number)
        while self._declared and self.now - next(iter(self._declared.values())) > 3 * SECOND:
            del self._declared[next(iter(self._declared))]

    def _declare_lost(self, number: int) -> None:
        self.lost += 1

    def _next_timer(self) -> int | None:
        oldest = next(iter(self._open.items()), None)
        if oldest is None:
            return None
        if oldest[0] < self._largest:
            return oldest[1] + self._loss_delay()
        return self._last_sent + self.pto * self._backoff

    def _timer(self) -> None:
        number = next(iter(self._open))
        if number < self._largest:
            self._detect()
            return
        self._backoff = min(self._backoff * 2, 64)
        ping, self.sent = self.sent, self.sent + 1
        self._open[ping] = self._last_sent = self.now
        arrival = self.forth.arrival(self.now)
        if arrival is not None:
            self._push(arrival, "packet", (ping,), 0)

"""How many hands a program gets, and what it gives up before it would be late. Pure: measurements in, a plan out.

A *hand* is a thread of the stage's worker: decoding, placing and encoding release the GIL, and a decoded frame never
leaves its process. The rule to start with is one hand per 15 frames a second. From there on, windows of measured
lateness decide, with hysteresis:

| | a stage is late for `LATE_WINDOWS` windows in a row | it had room for `hold` windows in a row |
| --- | --- | --- |
| 1 | one more hand, while there are cores | take the size back, one step |
| 2 | half, then a third and a quarter of the frames | take the frame rate back, one step |
| 3 | three quarters, then half of the size | give back the hands above the rule |

`hold` doubles each time that going back is regretted, and halves after a long quiet time. A window is late when its
p95 of lateness is above half of a frame's time, or frames were skipped; it has room when p95 is below a fifth and the
worker was busy for less than `ROOM_BUSY` of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay.errors import UsageError

FPS_PER_WORKER = 15
MAX_WORKERS = 8
WINDOW_US = 1_000_000
LATE_WINDOWS = 2
HOLD_WINDOWS = 10
MAX_HOLD_WINDOWS = 160
REGRET_WINDOWS = 5
"""Late again this soon after a step back: it was taken too early."""
ROOM_BUSY = 0.55
DIVISORS = (1, 2, 3, 4)
"""Every frame, every other one …: the timeline stays the same."""
SIZES = (4, 3, 2)
"""Quarters of the output size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage is made with. `divisor`: only every n-th frame of the program; `quarters`: of its size."""

    workers: int
    divisor: int = 1
    quarters: int = 4

    @property
    def degraded(self) -> bool:
        return self.divisor > 1 or self.quarters < 4


def starting_workers(target_fps: int) -> int:
    """The rule: one per 15 frames a second, 1 to 8."""
    return max(1, min(MAX_WORKERS, target_fps // FPS_PER_WORKER))


class Scaler:
    """One stage's plan. Feed it a measurement per output frame; it answers with a new plan or None."""

    def __init__(self, target_fps: int, cores: int, now: int) -> None:
        if target_fps < 1 or cores < 1:
            raise UsageError("frames a second and cores are at least 1")
        self._period = 1_000_000 // target_fps
        self._rule = min(starting_workers(target_fps), cores)
        self._most = min(MAX_WORKERS, cores)
        self.plan = Plan(self._rule)
        self._start = now
        self._lateness: list[int] = []
        self._busy = self._skipped = 0
        self._late = self._room = 0
        self._hold = HOLD_WINDOWS
        self._since_back: int | None = None

    def measured(self, now: int, lateness: int, busy: int, skipped: int = 0) -> Plan | None:
        """A frame was finished `lateness` µs after it was due, for `busy` µs of work, after `skipped` that were not
        made."""
        self._lateness.append(lateness)
        self._busy += busy
        self._skipped += skipped
        if now - self._start < WINDOW_US:
            return None
        return self._window(now)

    def _window(self, now: int) -> Plan | None:
        ordered = sorted(self._lateness)
        high = ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]
        period = self._period * self.plan.divisor
        busy = self._busy / (now - self._start)
        late = high > period // 2 or self._skipped > len(ordered) // 20
        room = high < period // 5 and not self._skipped and busy < ROOM_BUSY
        self._late = self._late + 1 if late else 0
        self._room = self._room + 1 if room else 0
        if self._since_back is not None:
            self._since_back += 1
        self._start, self._lateness, self._busy, self._skipped = now, [], 0, 0
        if self._late >= LATE_WINDOWS:
            return self._move(self._less())
        if self._room >= self._hold:
            return self._back()
        return None

    def _less(self) -> Plan:
        plan = self.plan
        if self._since_back is not None and self._since_back <= REGRET_WINDOWS:
            self._hold = min(2 * self._hold, MAX_HOLD_WINDOWS)
        self._since_back = None
        if plan.workers < self._most:
            return replace(plan, workers=plan.workers + 1)
        if (place := DIVISORS.index(plan.divisor) + 1) < len(DIVISORS):
            return replace(plan, divisor=DIVISORS[place])
        if (place := SIZES.index(plan.quarters) + 1) < len(SIZES):
            return replace(plan, quarters=SIZES[place])
        return plan

    def _back(self) -> Plan | None:
        if self._since_back is not None and self._since_back > 4 * self._hold:
            self._hold = max(HOLD_WINDOWS, self._hold // 2)
        plan = self.plan
        if plan.quarters < SIZES[0]:
            wanted = replace(plan, quarters=SIZES[SIZES.index(plan.quarters) - 1])
        elif plan.divisor > 1:
            wanted = replace(plan, divisor=DIVISORS[DIVISORS.index(plan.divisor) - 1])
        else:
            wanted = replace(plan, workers=max(self._rule, plan.workers - 1))
        moved = self._move(wanted)
        self._since_back = 0 if moved is not None else self._since_back
        return moved

    def _move(self, wanted: Plan) -> Plan | None:
        self._late = self._room = 0
        if wanted == self.plan:
            return None
        self.plan = wanted
        return wanted

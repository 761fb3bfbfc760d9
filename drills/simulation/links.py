"""Links in virtual time: the breaker between two modelled paths with seeded faults, and a day of losses in bursts.

    never-neither    while a path is whole, media gets through: no gap longer than GAP_S, whatever the other one does
    switches         media leaves or comes back to the primary at most twice in any minute
    no-false-trip    a path that loses 2 % in bursts is not left, in a whole day

What the link's sender and receiver make of the breaker's word is told in `tests/link`, packet by packet.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from drills.simulation.model_path import MS, SECOND, Bursts, Direction, ModelPath, black_hole
from drills.simulation.trace import Trace, Violation
from relay.link.breaker import Breaker, BreakerMoved, BreakerState
from relay.link.path import PathName, PathReport
from relay.settings import BreakerSettings

GAP_S = 1.0
"""Longer than it takes to notice a black hole (decision 10: 0.44 s at the worst), and a good path's round trip."""
MINUTE = 60 * SECOND
_REPORT = 20 * MS
_PING = 500 * MS
_RESTING = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN})
_NAMES: tuple[PathName, ...] = ("primary", "backup")


@dataclass(frozen=True, slots=True)
class LinkOutcome:
    """What came of a link's simulation."""

    violation: Violation | None
    hash: str
    moves: list[BreakerMoved] = field(default_factory=list)
    took_s: float = 0.0
    """CPU seconds."""
    virtual_s: float = 0.0


def no_loss() -> bool:
    """Lose nothing."""
    return False


class LinkWorld:
    """One link with media at a steady rate. Faults come and go on both paths, often on one and then the other."""

    def __init__(self, seed: int, make: Callable[[BreakerSettings], Breaker] = Breaker, *, rate: int = 100,
                 out: TextIO | None = None) -> None:  # fmt: skip
        self._dice = random.Random(f"{seed}/link")
        self.now = 0
        self.trace = Trace(lambda: self.now / SECOND, out)
        self.breaker = make(BreakerSettings())
        self.paths: dict[PathName, ModelPath] = {name: ModelPath(Direction(), Direction()) for name in _NAMES}
        self.moves: list[BreakerMoved] = []
        self._broken: dict[PathName, int] = dict.fromkeys(_NAMES, 0)
        """Until when; what is whole has a time that is past."""
        self._interval = SECOND // rate
        self._pinged: dict[PathName, int] = dict.fromkeys(_NAMES, 0)
        self._delivered: dict[PathName, int] = dict.fromkeys(_NAMES, 0)
        self._media_at = 0
        self._switches: deque[int] = deque()

    def run(self, seconds: float) -> LinkOutcome:
        """Let time pass."""
        began, violation = time.process_time(), None
        try:
            self._run(round(seconds * SECOND))
        except Violation as found:
            violation = found
            self.trace.tell(f"VIOLATION {found}")
        return LinkOutcome(violation, self.trace.hash, self.moves, time.process_time() - began, self.now / SECOND)

    def _run(self, until: int) -> None:
        packet = report = 0
        fault = 5 * SECOND
        while True:
            timeout = self.breaker.next_timeout()
            now = min(packet, report, fault, timeout if timeout is not None else packet)
            if now > until:
                return
            self.now = now
            if now == fault:
                fault = now + self._strike()
            if now == packet:
                self._send()
                packet += self._interval
            if now in (report, timeout):
                self._report()
                report = now + _REPORT
            self._check()

    def _send(self) -> None:
        names = list(self.breaker.carrying)
        if self.breaker.take_probe() and "primary" not in names:
            names.append("primary")
        for name in names:
            self.paths[name].send(self.now)
            self._pinged[name] = self.now
        self._note_media(names)

    def _note_media(self, names: list[PathName]) -> None:
        """Media gets through when a path that carries is delivering: what it was given arrives."""
        for name in names:
            path = self.paths[name]
            if path.delivered > self._delivered[name]:
                self._delivered[name] = path.delivered
                if name in self.breaker.carrying:
                    self._media_at = self.now

    def _report(self) -> None:
        for name, path in self.paths.items():
            if self.now - self._pinged[name] >= _PING:
                path.send(self.now)
                self._pinged[name] = self.now
            self.breaker.report(name, path.report(self.now))
        self.breaker.handle_timeout(self.now)
        for move in self.breaker.events():
            self.moves.append(move)
            self.trace.tell(f"{move.previous.value} -> {move.state.value}: {move.reason}")
            if (move.previous in _RESTING) != (move.state in _RESTING) and "backup_failed" not in move.reason:
                self._switches.append(move.now)

    def _check(self) -> None:
        while self._switches and self._switches[0] <= self.now - MINUTE:
            self._switches.popleft()
        if len(self._switches) > BreakerSettings().switches_per_minute:
            raise Violation("switches", self.now / SECOND, f"{len(self._switches)} within a minute")
        whole = [name for name, until in self._broken.items() if until <= self.now - GAP_S * SECOND]
        if whole and self.now - self._media_at > GAP_S * SECOND:
            gap = (self.now - self._media_at) / SECOND
            text = f"no media for {gap:.2f} s in {self.breaker.state.value} while {whole} is whole"
            raise Violation("never-neither", self.now / SECOND, text)

    def _strike(self) -> int:
        """Break one path, or both, or let one flap; returns when to do the next thing."""
        dice = self._dice
        name = dice.choice(_NAMES)
        kind = dice.choice(["hole", "hole", "flap", "loss", "storm", "one-way", "both"])
        seconds = min(20.0, dice.expovariate(1 / 4))
        self.trace.tell(f"{kind} on {name} for {seconds:.3f} s")
        if kind == "flap":
            self._break(name, "hole", 0.6)
            return round(dice.uniform(2.0, 4.0) * SECOND)
        for each in _NAMES if kind == "both" else (name,):
            self._break(each, "hole" if kind == "both" else kind, seconds)
        return round((seconds + dice.uniform(0.5, 15.0)) * SECOND)

    def _break(self, name: PathName, kind: str, seconds: float) -> None:
        path, dice = self.paths[name], self._dice
        usual = Direction(lambda: 5 * MS + dice.randrange(2 * MS))
        forth, back = usual, Direction(lambda: 5 * MS)
        until = self.now + round(seconds * SECOND)
        match kind:
            case "hole":
                forth, back = Direction(lost=black_hole), Direction(lost=black_hole)
            case "one-way":
                back = Direction(lost=black_hole)
            case "loss":
                forth = Direction(usual.delay, Bursts(dice.uniform(0.05, 0.4), dice.uniform(1.5, 8.0), dice).lost)
            case _:
                forth = Direction(lambda: 150 * MS + dice.randrange(100 * MS))
                back = Direction(lambda: 150 * MS)
        path.forth, path.back = _until(forth, usual, until, path), _until(back, Direction(), until, path)
        self._broken[name] = max(self._broken[name], until)


class _until(Direction):
    """One way until a time, another one from then on."""

    def __init__(self, first: Direction, then: Direction, until: int, path: ModelPath) -> None:
        super().__init__()
        self._first, self._then, self._until, self._path = first, then, until, path

    def arrival(self, now: int) -> int | None:
        return (self._first if now < self._until else self._then).arrival(now)


# --- a day of losses --------------------------------------------------------------------------------------------------

RTT = 15 * MS


def a_day_of_bursts(seed: int, hours: float, settings: BreakerSettings | None = None, *, loss: float = 0.02,
                    burst: float = 3.0, rate: int = 500, tick: int = 100 * MS) -> LinkOutcome:  # fmt: skip
    """A healthy path that loses `loss` in bursts of `burst` packets (Gilbert–Elliott), as QUIC would report it each
    `tick`. A trip is a violation of `no-false-trip`."""
    began = time.process_time()
    breaker = Breaker(settings or BreakerSettings())
    breaker.report("backup", PathReport(0, (RTT,), 1, 1, 0, None, 27 * MS))
    now, trace, moves = 0, Trace(lambda: now / SECOND), list[BreakerMoved]()
    violation = None
    for report in _reports(seed, hours, loss, burst, rate, tick):
        now = report.now
        breaker.report("primary", report)
        for move in breaker.events():
            moves.append(move)
            trace.tell(f"{move.previous.value} -> {move.state.value}: {move.reason}")
            if move.state is BreakerState.OPEN:
                violation = Violation(
                    "no-false-trip", now / SECOND, f"{loss:.1%} in bursts of {burst:g}: {move.reason}"
                )
        if violation is not None:
            break
    return LinkOutcome(violation, trace.hash, moves, time.process_time() - began, now / SECOND)


def _reports(seed: int, hours: float, loss: float, burst: float, rate: int, tick: int) -> Iterator[PathReport]:
    """An hour at a time, so that a day needs little memory."""
    dice = np.random.default_rng([seed, 2])
    interval, packets = SECOND // rate, round(3600 * rate * min(hours, 1.0))
    acked = gone = 0
    for part in range(max(1, round(hours))):
        lost = _losses(dice, packets, loss, burst)
        begin = part * packets
        times = np.arange(RTT + interval, packets * interval, tick)
        newest = (times - RTT) // interval
        arrived = np.maximum.accumulate(np.where(lost, -1, np.arange(packets)))[newest]
        declared = np.concatenate([[0], np.cumsum(lost)])[arrived + 1]
        samples = np.maximum(MS, dice.normal(RTT, 2 * MS, len(times)).astype(np.int64))
        shift = part * packets * interval
        for at, last, down, sample in zip(times.tolist(), arrived.tolist(), declared.tolist(), samples.tolist(),
                                          strict=True):  # fmt: skip
            yield PathReport(shift + at, (sample,), begin + at // interval, acked + last + 1 - down, gone + down,
                             shift + (last + 1) * interval, 45 * MS)  # fmt: skip
        gone += int(declared[-1])
        acked = begin + packets - gone


def _losses(dice: np.random.Generator, packets: int, loss: float, burst: float) -> np.ndarray:
    """Which packets are lost, run by run."""
    leave = 1 / burst
    enter = loss * leave / (1 - loss)
    runs = int(packets * enter * 1.2) + 200
    lengths = np.empty(2 * runs, dtype=np.int64)
    lengths[0::2], lengths[1::2] = dice.geometric(enter, runs), dice.geometric(leave, runs)
    lost: np.ndarray = np.repeat(np.tile(np.array([False, True]), runs), lengths)[:packets]
    return lost

"""A day of losses in bursts, of which a breaker must make nothing: one that loses 2 % is not left (`no-false-trip`)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from drills.simulation.links import LinkOutcome
from drills.simulation.model_path import MS, SECOND
from drills.simulation.trace import Trace, Violation
from relay.link.breaker import Breaker, BreakerMoved, BreakerState
from relay.link.path import PathReport
from relay.settings import BreakerSettings

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

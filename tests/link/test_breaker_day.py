"""A day of bursty loss on a healthy path: nothing may trip. Six parts of four hours, each with its own seed."""

from __future__ import annotations

import numpy as np
import pytest

from drills.simulation.model_path import MS, SECOND
from relay.link.breaker import Breaker, BreakerState
from relay.link.path import PathReport
from relay.settings import BreakerSettings

HOUR = 3600
RATE = 500  # packets a second
LOSS = 0.02
BURST = 3.0  # packets, mean
RTT = 15 * MS
TICK = 40 * MS


def losses(seed: int, packets: int, burst: float = BURST) -> np.ndarray:
    """Return which packets Gilbert and Elliott lose, run by run."""
    dice = np.random.default_rng(seed)
    leave = 1 / burst
    enter = LOSS * leave / (1 - LOSS)
    runs = int(packets * enter * 1.1) + 100
    lengths = np.empty(2 * runs, dtype=np.int64)
    lengths[0::2] = dice.geometric(enter, runs)
    lengths[1::2] = dice.geometric(leave, runs)
    lost = np.repeat(np.tile(np.array([False, True]), runs), lengths)
    assert len(lost) >= packets
    return lost[:packets]


def reports(lost: np.ndarray, seed: int) -> list[tuple[int, int, int, int, int, int]]:
    """Return (now, sent, acked, lost, oldest open, RTT sample) for each tick, as QUIC would count them.

    A packet is declared lost when a later one is acknowledged; what was lost last is still open.
    """
    interval = SECOND // RATE
    now = np.arange(SECOND, len(lost) * interval, TICK)
    newest = (now - RTT) // interval
    arrived = np.maximum.accumulate(np.where(lost, -1, np.arange(len(lost))))[newest]
    declared = np.concatenate([[0], np.cumsum(lost)])[arrived + 1]
    samples = np.random.default_rng(seed).normal(RTT, 2 * MS, len(now)).astype(np.int64)
    columns = (now, now // interval, arrived + 1 - declared, declared, (arrived + 1) * interval, samples)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(6))
def test_two_percent_in_bursts_never_trip(part: int) -> None:
    lost = losses(part, 4 * HOUR * RATE)
    assert abs(lost.mean() - LOSS) < 0.001
    assert abs(lost.sum() / (np.diff(lost.astype(np.int8)) == 1).sum() - BURST) < 0.05
    breaker = Breaker(BreakerSettings())
    breaker.report("backup", PathReport(0, (RTT,), 1, 1, 0, None, 27 * MS))
    moves = []
    for now, sent, acked, gone, oldest, sample in reports(lost, part):
        breaker.report("primary", PathReport(now, (sample,), sent, acked, gone, oldest, 45 * MS))
        moves += breaker.events()
    doubts = [move.reason for move in moves if move.state is BreakerState.SUSPECT]
    trips = [move for move in moves if move.state is BreakerState.OPEN]
    print(f"4 h of {LOSS:.0%} in bursts of {BURST:.0f}: {len(doubts)} doubts {sorted(set(doubts))}, {len(trips)} trips")
    assert breaker.ignored["primary"] == 0
    assert breaker.verdict("primary").settled >= 2000
    assert trips == []


@pytest.mark.timeout(120)
def test_the_spread_count_alone_stays_calm_in_longer_bursts() -> None:
    """Two hours of 2 % in bursts of eight, at which the window of 2000 does trip: it is told to wait for longer."""
    breaker = Breaker(BreakerSettings(loss_packets=20_000))
    breaker.report("backup", PathReport(0, (RTT,), 1, 1, 0, None, 27 * MS))
    trips = []
    for now, sent, acked, gone, oldest, sample in reports(losses(7, 2 * HOUR * RATE, burst=8.0), 7):
        breaker.report("primary", PathReport(now, (sample,), sent, acked, gone, oldest, 45 * MS))
        trips += [move for move in breaker.events() if move.state is BreakerState.OPEN]
    assert trips == []

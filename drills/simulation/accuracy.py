"""How often the breaker does what it should: seeded trials of a link to whose primary one thing happens.

A trial is right when two judges agree with the breaker. The oracle replays what the breaker was told, and says which
moves it should have made when. The truth: we know what was done to the path, and what is bad is left within its time,
what is not is not left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drills.oracle import expected
from drills.simulation.model_path import MS, SECOND, Bursts, Direction, ModelPath, black_hole
from drills.simulation.one_link import OneLink
from relay.link.breaker import Breaker
from relay.settings import BreakerSettings

_HEALTHY_US = 3 * SECOND // 2
_WATCHED_US = 9 * SECOND // 2
_RATES = (400, 700, 1000)
"""Packets per second. With fewer, losses in long bursts take longer to tell from bad luck (decision 10)."""
ENOUGH = 0.999
"""The share of right trials that a breaker must reach."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What happens to a primary. `within_us`: how soon media has to leave it; None: media has to stay."""

    name: str
    within_us: int | None
    strike: Callable[[ModelPath, random.Random], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one: `tripped_us` after the strike, None if media stayed."""

    seed: int
    condition: str
    tripped_us: int | None
    as_oracle: bool
    as_truth: bool

    @property
    def right(self) -> bool:
        return self.as_oracle and self.as_truth


def trials(count: int, seed: int = 0, make: Callable[[BreakerSettings], Breaker] = Breaker) -> Iterator[Trial]:
    """Run trials, one condition after the other. `make` is the breaker that is tried."""
    for number in range(count):
        yield trial(seed + number, CONDITIONS[number % len(CONDITIONS)], make)


def trial(seed: int, condition: Condition, make: Callable[[BreakerSettings], Breaker] = Breaker) -> Trial:
    """One link, healthy at first, then struck."""
    dice = random.Random(f"{seed}/accuracy/{condition.name}")
    link = OneLink(rate=dice.choice(_RATES), make=make)
    one_way = dice.uniform(0.2, 60.0)
    for path in link.paths.values():
        path.forth, path.back = Direction(_around(one_way, 2.0, dice)), Direction(_around(one_way, 0.5, dice))
    link.run(_HEALTHY_US)
    condition.strike(link.paths["primary"], dice)
    link.run(_HEALTHY_US + _WATCHED_US)
    tripped = link.tripped_after(0)
    after = None if tripped is None else tripped - _HEALTHY_US
    late = after is None or not 0 <= after <= (condition.within_us or 0)
    as_truth = after is None if condition.within_us is None else not late
    made = [(move.now, move.previous.value, move.state.value) for move in link.moves]
    wanted = [(move.now, move.previous, move.state) for move in expected(link.steps, BreakerSettings())]
    return Trial(seed, condition.name, after, made == wanted, as_truth)


def _around(ms: float, jitter_ms: float, dice: random.Random) -> Callable[[], int]:
    return lambda: round((ms + jitter_ms * dice.random()) * MS)


def _storm(path: ModelPath, dice: random.Random) -> None:
    one_way = dice.uniform(110.0, 250.0)
    path.forth.delay, path.back.delay = _around(one_way, 20.0, dice), _around(one_way, 0.5, dice)


def _hole(path: ModelPath, dice: random.Random) -> None:
    path.forth.lost = black_hole
    if dice.random() < 0.5:
        path.back.lost = black_hole


def _loss(path: ModelPath, dice: random.Random) -> None:
    path.forth.lost = Bursts(dice.uniform(0.12, 0.4), dice.uniform(1.001, 5.0), dice).lost


def _bursts(path: ModelPath, dice: random.Random) -> None:
    path.forth.lost = Bursts(dice.uniform(0.001, 0.02), dice.uniform(1.001, 3.0), dice).lost


def _slower(path: ModelPath, dice: random.Random) -> None:
    one_way = dice.uniform(60.0, 92.0)
    path.forth.delay, path.back.delay = _around(one_way, 5.0, dice), _around(one_way, 0.5, dice)


def _nothing(path: ModelPath, dice: random.Random) -> None:
    """A day like any other."""


CONDITIONS = (
    Condition("nothing", None, _nothing),
    Condition("storm: RTT 220 to 540 ms", SECOND, _storm),
    Condition("2 % lost, in bursts", None, _bursts),
    Condition("black hole", 600 * MS, _hole),
    Condition("RTT 120 to 190 ms", None, _slower),
    Condition("12 to 40 % lost", 4 * SECOND, _loss),
)

"""Random stories of two paths, told step by step to a breaker, and recorded for the oracle."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from drills.oracle import Forced, Reported, Restored, Step, Woken
from drills.simulation.model_path import MS, SECOND
from relay.link.breaker import Breaker, BreakerMoved
from relay.link.path import PathName, PathReport
from relay.settings import BreakerSettings

WEATHERS = (
    "fine",
    "fine",
    "fine",
    "slow",
    "edge",
    "lossy",
    "lossy",
    "lossy",
    "silent",
    "idle",
    "overtaking",
    "crawling",
    "closed",
)


def random_settings(dice: random.Random) -> BreakerSettings:
    """Return settings so small that a short trace reaches every rule."""
    near = dice.choice([50, 80, 200])
    long = near * dice.choice([2, 3, 4])
    hold = dice.choice([0.2, 1.0, 3.0])
    return BreakerSettings(
        rtt_limit_ms=dice.choice([50, 200]),
        rtt_samples=dice.choice([2, 3, 5]),
        loss_percent=dice.choice([4.0, 8.0, 12.5]),
        loss_packets=long,
        suspect_packets=near,
        spread_packets=dice.choice([near, long, (near + long) // 2]),
        spread_burst=dice.choice([1, 2, 8]),
        evidence_s=dice.choice([1.0, 5.0, 30.0]),
        silence_min_ms=dice.choice([20, 60]),
        silence_confirm_ms=dice.choice([50, 180]),
        suspect_s=dice.choice([0.1, 0.5, 2.0]),
        hold_s=hold,
        hold_max_s=hold * dice.choice([1, 4, 16]),
        quiet_s=dice.choice([2.0, 10.0, 300.0]),
        switches_per_minute=dice.choice([2, 4, 30]),
        probe_packets=dice.choice([5, 50]),
        probe_samples=dice.choice([1, 4]),
        half_open_timeout_s=dice.choice([0.5, 3.0]),
    )


@dataclass
class Weather:
    """One path's counters, as they go in a weather that changes now and then."""

    dice: random.Random
    limit: int
    kind: str = "fine"
    generation: int = 0
    sent: int = 0
    acked: int = 0
    lost: int = 0
    oldest: int | None = None
    told: list[PathReport] = field(default_factory=list)

    def report(self, now: int) -> PathReport:
        """Return the next report; the counters are those of a connection that could exist."""
        dice = self.dice
        if dice.random() < 0.08:
            self.kind = dice.choice(WEATHERS)
        if self.told and self.told[-1].closed and self.kind != "closed":
            self.generation += 1
            self.sent = self.acked = self.lost = 0
            self.oldest, self.told = None, []
        if self.kind != "idle":
            self.sent += dice.choice([0, 1, 20, 40])
        if self.kind in {"silent", "closed"}:
            if self.sent > self.acked + self.lost and self.oldest is None:
                self.oldest = now - dice.randrange(1, 30 * MS)
            return self._told(now, ())
        open_packets = self.sent - self.acked - self.lost
        settled = open_packets if dice.random() < 0.8 and self.kind != "crawling" else dice.randrange(open_packets + 1)
        lost = sum(dice.random() < self._loss() for _ in range(settled))
        back = min(self.lost, dice.randrange(6)) if self.kind == "overtaking" else 0
        self.acked += settled - lost + back
        self.lost += lost - back
        waiting = self.sent > self.acked + self.lost
        age = 300 * MS if self.kind == "crawling" else 40 * MS
        self.oldest = max(self.oldest or 0, now - dice.randrange(1, age)) if waiting else None
        count = dice.randrange(4) if settled > lost else 0
        return self._told(now, tuple(self._rtt() for _ in range(count)))

    def _told(self, now: int, samples: tuple[int, ...]) -> PathReport:
        pto = self.dice.choice([27 * MS, 80 * MS, 275 * MS])
        closed = self.kind == "closed"
        self.told.append(PathReport(now, samples, self.sent, self.acked, self.lost, self.oldest, pto, closed))
        return self.told[-1]

    def _loss(self) -> float:
        return {"lossy": 0.15, "overtaking": 0.1, "edge": 0.08}.get(self.kind, 0.01)

    def _rtt(self) -> int:
        dice, limit = self.dice, self.limit
        if self.kind == "slow":
            return dice.randrange(limit, 3 * limit)
        if self.kind == "edge":
            return limit + dice.choice([-1, 0, 0, 0, 1])
        return dice.randrange(1 * MS, limit)


class Telling:
    """Tells a story to a breaker; keeps the steps and the moves."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.breaker = Breaker(settings)
        self.steps: list[Step] = []
        self.moves: list[BreakerMoved] = []
        self.now = 0

    def tell(self, step: Step) -> None:
        """Hand one step to the breaker."""
        self.steps.append(step)
        match step:
            case Reported(path, report, generation):
                ignored = self.breaker.ignored
                self.breaker.report(path, report, generation)
                if self.breaker.ignored == ignored:
                    self.now = max(self.now, report.now)
            case Woken(now):
                self.now = max(self.now, now)
                self.breaker.handle_timeout(now)
            case Forced(now):
                self.now = max(self.now, now)
                self.breaker.force_open(now)
            case Restored(now):
                self.now = max(self.now, now)
                self.breaker.reset(now)
        self.moves += self.breaker.events()

    def wake_until(self, now: int) -> None:
        """Pass all deadlines up to `now`, each when it is due."""
        while (due := self.breaker.next_timeout()) is not None and due <= now:
            self.tell(Woken(due))


def random_story(seed: int, length: int = 42) -> tuple[BreakerSettings, list[Step], list[BreakerMoved]]:
    """Return settings, the steps of a story, and what the breaker did."""
    dice = random.Random(seed)
    settings = random_settings(dice)
    telling = Telling(settings)
    limit = settings.rtt_limit_ms * MS
    paths: dict[PathName, Weather] = {"primary": Weather(dice, limit), "backup": Weather(dice, limit)}
    pace = dice.choice([10 * MS, 30 * MS, 150 * MS, SECOND])
    now = dice.randrange(10 * SECOND)
    for _ in range(length):
        now += dice.choice([0, 1, pace // 3, pace, pace, 3 * pace])
        if dice.random() < 0.01:
            now += dice.randrange(40 * SECOND)
        if dice.random() < 0.8:
            telling.wake_until(now)
        name: PathName = dice.choice(("primary", "primary", "backup"))
        weather, chance = paths[name], dice.random()
        if chance < 0.92:
            report = weather.report(now)
            telling.tell(Reported(name, report, weather.generation))
        elif chance < 0.97:
            late = dice.choice(weather.told) if weather.told else weather.report(now)
            telling.tell(Reported(name, late, max(0, weather.generation - dice.randrange(2))))
        elif chance < 0.98:
            telling.tell(dice.choice([Forced, Restored])(now))
        else:
            telling.tell(Woken(now - dice.randrange(2 * SECOND)))
    return settings, telling.steps, telling.moves

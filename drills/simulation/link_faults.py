"""Seeded faults of a link's two paths: one breaks, or both, or one flaps; some break the connection itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from drills.simulation.model_path import MS, SECOND, Bursts, Direction, ModelPath, black_hole
from relay.link.path import PathName
from relay.link.paths import PATHS

KINDS = ("hole", "hole", "flap", "loss", "storm", "one-way", "both", "jitter", "narrow", "cut")
NARROW_US = 40 * MS
"""A path that is too slow takes a datagram every so often: less than its media."""
WIDE = 128
"""Datagrams that any other takes in a turn."""


def usual(dice: random.Random) -> Direction:
    """A path on a good day: 5 to 7 ms."""
    return Direction(lambda: 5 * MS + dice.randrange(2 * MS))


class LinkFaults:
    """`strike` begins the next one. `room` is what each path takes in a turn; `cut` is called with a path whose
    connection ends and when there is another one."""

    def __init__(self, dice: random.Random, paths: Mapping[PathName, ModelPath], tell: Callable[[str], None],
                 cut: Callable[[PathName, int], None]) -> None:  # fmt: skip
        self._dice, self._paths, self._tell, self._cut = dice, paths, tell, cut
        self._until: dict[PathName, int] = dict.fromkeys(PATHS, 0)
        self._narrow: dict[PathName, int] = dict.fromkeys(PATHS, 0)
        self._taken_at: dict[PathName, int] = dict.fromkeys(PATHS, 0)

    def whole_since(self, name: PathName) -> int:
        """When a path became whole; later than now while it is not."""
        return self._until[name]

    def room(self, name: PathName, now: int) -> int:
        """How many datagrams a path takes now."""
        if now >= self._narrow[name]:
            return WIDE
        if now - self._taken_at[name] < NARROW_US:
            return 0
        self._taken_at[name] = now
        return 1

    def strike(self, now: int) -> int:
        """Break something; returns when to do the next thing."""
        dice = self._dice
        name, kind = dice.choice(PATHS), dice.choice(KINDS)
        seconds = min(20.0, dice.expovariate(1 / 4))
        self._tell(f"{kind} on {name} for {seconds:.3f} s")
        if kind == "flap":
            self._break(name, "hole", now, 0.6)
            return now + round(dice.uniform(2.0, 4.0) * SECOND)
        for each in PATHS if kind == "both" else (name,):
            self._break(each, "hole" if kind == "both" else kind, now, seconds)
        return now + round((seconds + dice.uniform(0.5, 15.0)) * SECOND)

    def _break(self, name: PathName, kind: str, now: int, seconds: float) -> None:
        path, dice = self._paths[name], self._dice
        until = now + round(seconds * SECOND)
        self._until[name] = max(self._until[name], until)
        forth, back = usual(dice), usual(dice)
        match kind:
            case "hole":
                forth, back = Direction(lost=black_hole), Direction(lost=black_hole)
            case "one-way":
                back = Direction(lost=black_hole)
            case "loss":
                forth.lost = Bursts(dice.uniform(0.05, 0.4), dice.uniform(1.5, 8.0), dice).lost
                back.lost = Bursts(dice.uniform(0.001, 0.1), 2.0, dice).lost
            case "jitter":  # packets overtake each other by far
                most = round(dice.uniform(20, 80) * MS)
                forth.delay = lambda: 5 * MS + dice.randrange(most)
            case "storm":
                forth = Direction(lambda: 150 * MS + dice.randrange(100 * MS))
                back = Direction(lambda: 150 * MS)
            case "narrow":
                self._narrow[name] = until
            case _:
                self._cut(name, until)
                return
        path.forth, path.back = (
            _Until(forth, usual(dice), until), _Until(back, usual(dice), until))  # fmt: skip


class _Until(Direction):
    """One way until a time, another one from then on."""

    def __init__(self, first: Direction, then: Direction, until: int) -> None:
        super().__init__()
        self._first, self._then, self._until = first, then, until

    def arrival(self, now: int) -> int | None:
        return (self._first if now < self._until else self._then).arrival(now)

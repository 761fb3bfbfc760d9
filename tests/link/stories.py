"""Short stories for one breaker, told by hand: steady traffic of which only what matters is said."""

from __future__ import annotations

from drills.simulation.model_path import MS, SECOND
from relay.link.breaker import Breaker, BreakerMoved, BreakerState
from relay.link.path import PathName, PathReport
from relay.settings import BreakerSettings


class Line:
    """One path's counters."""

    def __init__(self) -> None:
        self.sent = self.acked = self.lost = self.generation = 0
        self.oldest: int | None = None

    def report(self, now: int, *, rtt: tuple[int, ...] = (), acked: int = 0, lost: int = 0, **rest: bool) -> PathReport:
        """Count packets whose fate is known and return the report of `now`. Round trips are milliseconds."""
        self.sent += acked + max(0, lost)
        self.acked += acked
        self.lost += lost
        samples = tuple(value * MS for value in rtt)
        return PathReport(now, samples, self.sent, self.acked, self.lost, self.oldest, 27 * MS, **rest)


class Story:
    """A breaker and its two paths. `moves` has everything that happened."""

    def __init__(self, settings: BreakerSettings | None = None, now: int = 1_000 * SECOND) -> None:
        self.settings = settings or BreakerSettings()
        self.breaker = Breaker(self.settings)
        self.lines: dict[PathName, Line] = {"primary": Line(), "backup": Line()}
        self.moves: list[BreakerMoved] = []
        self.now = now
        self.told("backup", rtt=(20,), acked=1)
        self.told("primary", rtt=(20,), acked=1)

    @property
    def state(self) -> BreakerState:
        return self.breaker.state

    def told(self, name: PathName, *, rtt: tuple[int, ...] = (), acked: int = 0, lost: int = 0, **rest: bool) -> None:
        """One report of one path."""
        line = self.lines[name]
        report = line.report(self.now, rtt=rtt, acked=acked, lost=lost, **rest)
        self.breaker.report(name, report, line.generation)
        self.moves += self.breaker.events()

    def wait(self, duration: int) -> None:
        """Let time pass, with every deadline of the breaker when it is due."""
        until = self.now + duration
        while (due := self.breaker.next_timeout()) is not None and due <= until:
            self.now = due
            self.breaker.handle_timeout(due)
            self.moves += self.breaker.events()
        self.now = until

    def flow(
        self, name: PathName, duration: int, *, rtt: int = 20, lost: int = 0, acked: int = 10, every: int = 20 * MS
    ) -> None:
        """Report steady traffic: so many acknowledged and lost per report."""
        for _ in range(duration // every):
            self.wait(every)
            self.told(name, rtt=(rtt,), acked=acked, lost=lost)

    def trip(self) -> None:
        """Make the primary slow."""
        self.told("primary", rtt=(300, 300, 300), acked=3)

    def half_open(self) -> None:
        """Trip, and wait until the primary is tried again."""
        self.trip()
        self.wait(self.breaker.hold_us)

    def path(self) -> list[str]:
        """Return the states entered, in order."""
        return [move.state.value for move in self.moves]

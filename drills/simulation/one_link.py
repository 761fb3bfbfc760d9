"""A link's sender in virtual time: media at a steady rate over two model paths, with the breaker between them."""

from __future__ import annotations

from collections.abc import Callable

from drills.oracle import Reported, Step, Woken
from drills.simulation.model_path import MS, SECOND, Direction, ModelPath
from relay.link.breaker import Breaker, BreakerMoved, BreakerState
from relay.link.path import PathName
from relay.settings import BreakerSettings

TICK = 20 * MS  # between reports
PING = 500 * MS  # on a path that carries nothing


class OneLink:
    """Drive it with `run`; all moves are in `moves`, all that the breaker was told in `steps`, for the oracle."""

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        rate: int = 500,
        make: Callable[[BreakerSettings], Breaker] = Breaker,
    ) -> None:
        self.paths: dict[PathName, ModelPath] = {
            "primary": ModelPath(Direction(), Direction()),
            "backup": ModelPath(Direction(), Direction()),
        }
        self.breaker = make(settings or BreakerSettings())
        self.moves: list[BreakerMoved] = []
        self.steps: list[Step] = []
        self.now = 0
        self._interval = SECOND // rate
        self._next_packet = 0
        self._next_report = 0
        self._pinged: dict[PathName, int] = {"primary": 0, "backup": 0}

    def run(self, until: int) -> None:
        """Let time pass."""
        while True:
            due = [self._next_packet, self._next_report]
            timeout = self.breaker.next_timeout()
            now = min([*due, timeout] if timeout is not None else due)
            if now > until:
                break
            self.now = now
            if now == self._next_packet:
                self._send(now)
                self._next_packet += self._interval
            if now == self._next_report or now == timeout:
                self._report(now)
                self.breaker.handle_timeout(now)
                self.steps.append(Woken(now))
                self._next_report = now + TICK
            self.moves += self.breaker.events()
        self.now = until

    def tripped_after(self, at: int) -> int | None:
        """Return how long after `at` the breaker first went OPEN."""
        return self._first(at, BreakerState.OPEN)

    def doubted_after(self, at: int) -> int | None:
        """Return how long after `at` media first went on both paths."""
        return self._first(at, BreakerState.SUSPECT)

    def switches(self) -> list[int]:
        """Return when media moved: OPEN was entered, or left for another path."""
        rest = {BreakerState.OPEN, BreakerState.HALF_OPEN}
        return [move.now for move in self.moves if (move.previous in rest) != (move.state in rest)]

    def _first(self, at: int, state: BreakerState) -> int | None:
        return next((move.now - at for move in self.moves if move.now >= at and move.state is state), None)

    def _send(self, now: int) -> None:
        names = set(self.breaker.carrying)
        if self.breaker.take_probe():
            names.add("primary")
        for name in names:
            self.paths[name].send(now)
            self._pinged[name] = now

    def _report(self, now: int) -> None:
        for name, path in self.paths.items():
            if now - self._pinged[name] >= PING:
                path.send(now)
                self._pinged[name] = now
            report = path.report(now)
            self.breaker.report(name, report)
            self.steps.append(Reported(name, report))

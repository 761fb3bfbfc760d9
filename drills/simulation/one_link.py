"""A link's origin in virtual time: media at a steady rate over two model paths, with the breaker between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from drills.oracle import Reported, Step, Woken
from drills.simulation.model_path import MS, SECOND, Direction, ModelPath
from relay.link.breaker import Breaker, BreakerMoved, BreakerState
from relay.link.path import PathName
from relay.link.paths import PATHS
from relay.settings import BreakerSettings

TICK = 20 * MS  # between reports
PING = 500 * MS  # on a path that carries nothing
RESTING = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN})
"""Media is not on the primary."""


class OneLink:
    """Drive it with `run`; all moves are in `moves`, all that the breaker was told in `steps`, for the oracle.

    Media is a packet every so often, of which nothing is known but that it was sent: enough for the breaker.
    `MediaLink` is one with real packets.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        rate: int = 500,
        make: Callable[[BreakerSettings], Breaker] = Breaker,
        tick: int = TICK,
    ) -> None:
        self.paths: Mapping[PathName, ModelPath] = {name: ModelPath(Direction(), Direction()) for name in PATHS}
        self.breaker = make(settings or BreakerSettings())
        self.moves: list[BreakerMoved] = []
        self.steps: list[Step] = []
        self.now = 0
        self._interval = SECOND // rate
        self._tick = tick
        self._next_packet = 0
        self._next_report = 0
        self._pinged: dict[PathName, int] = dict.fromkeys(PATHS, 0)

    def run(self, until: int) -> None:
        """Let time pass."""
        while True:
            timeout = self.breaker.next_timeout()
            now = min(self._due())
            if timeout is not None and timeout < now:
                now = timeout
            if now > until:
                break
            self.now = now
            self._arrive(now)
            if now == self._next_packet:
                self._send(now)
                self._next_packet += self._interval
            if now == self._next_report or now == timeout:
                self._report(now)
                self.breaker.handle_timeout(now)
                self._next_report = now + self._tick
            moves = self.breaker.events()
            self.moves += moves
            self._moved(moves, now)
        self.now = until

    def tripped_after(self, at: int) -> int | None:
        """Return how long after `at` the breaker first went OPEN."""
        return self._first(at, BreakerState.OPEN)

    def doubted_after(self, at: int) -> int | None:
        """Return how long after `at` media first went on both paths."""
        return self._first(at, BreakerState.SUSPECT)

    def switches(self) -> list[int]:
        """Return when media moved: OPEN was entered, or left for another path."""
        return [move.now for move in self.moves if (move.previous in RESTING) != (move.state in RESTING)]

    def _first(self, at: int, state: BreakerState) -> int | None:
        return next((move.now - at for move in self.moves if move.now >= at and move.state is state), None)

    # --- what a link with packets does otherwise ----------------------------------------------------------------------

    def _due(self) -> Iterable[int]:
        """When something is to be done next, beside the breaker's timeout."""
        return (self._next_packet, self._next_report)

    def _arrive(self, now: int) -> None:
        """What the network does before anything else."""

    def _send(self, now: int) -> None:
        names = set(self.breaker.carrying)
        if self.breaker.take_probe():
            names.add("primary")
        for name in names:
            self.paths[name].send(now)
            self._pinged[name] = now

    def _report(self, now: int) -> None:
        for name, path in self.paths.items():
            self._ping(name, now)
            report = path.report(now)
            self.breaker.report(name, report)
            self.steps.append(Reported(name, report))
        self.steps.append(Woken(now))

    def _ping(self, name: PathName, now: int) -> None:
        if now - self._pinged[name] >= PING:
            self.paths[name].send(now)
            self._pinged[name] = now

    def _moved(self, moves: list[BreakerMoved], now: int) -> None:
        """At the end of a step; `moves` are the breaker's in it."""

"""Who reaches whom, how late and how surely: seeded, per pair of nodes and between each node and the store."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

TIMEOUT_S = 0.5
"""After which a call to the store is given up (`store.timeout_s`)."""
_USUAL_S = 0.001
_STRAGGLERS = 0.001
"""Share of messages that a queue or a retransmission holds up for longer than the call's time-out."""
_STRAGGLER_S = 4.0


class Network:
    """Faults are counted, so that two that overlap end when the second one does."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._away = 0
        self._cut: Counter[str] = Counter()
        self._apart: Counter[tuple[str, str]] = Counter()
        self._slow: Counter[str] = Counter()
        self._lossy: Counter[str] = Counter()
        self.on_heal: Callable[[str | None], None] = lambda node: None
        """Called with a node that may reach the store again; None: all may."""

    @property
    def store_is_away(self) -> bool:
        """For everybody."""
        return self._away > 0

    def reaches_store(self, node: str) -> bool:
        """Whether what a node sends now gets there."""
        return not self._away and not self._cut[node]

    def reaches(self, one: str, other: str) -> bool:
        """Whether two nodes hear each other."""
        return not self._apart[(one, other) if one < other else (other, one)]

    def is_lost(self, node: str) -> bool:
        """Whether an answer of the store is lost on its way."""
        return self._dice.random() < (0.25 if self._lossy[node] else 0.0002)

    def delay(self, node: str) -> float:
        """Seconds one way between a node and the store, or another node."""
        if self._dice.random() < _STRAGGLERS:
            return self._dice.uniform(0, _STRAGGLER_S)
        usual = self._dice.expovariate(1 / _USUAL_S)
        return usual + self._dice.uniform(0.05, 0.6) if self._slow[node] else usual

    # --- faults ------------------------------------------------------------------------------------------------------

    def store_away(self, on: bool) -> None:
        self._away += 1 if on else -1
        self._healed(None, on)

    def cut_off(self, node: str, on: bool) -> None:
        """From the store."""
        self._cut[node] += 1 if on else -1
        self._healed(node, on)

    def part(self, one: str, other: str, on: bool) -> None:
        """Two nodes."""
        self._apart[(one, other) if one < other else (other, one)] += 1 if on else -1

    def slow_down(self, node: str, on: bool) -> None:
        self._slow[node] += 1 if on else -1

    def lose(self, node: str, on: bool) -> None:
        self._lossy[node] += 1 if on else -1

    def _healed(self, node: str | None, on: bool) -> None:
        if not on:
            self.on_heal(node)

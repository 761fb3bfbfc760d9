"""Whether the steady state holds before anything is broken: on a machine that is too busy no drill says anything."""

from __future__ import annotations

import time
from collections.abc import Mapping

from drills.record import Recorder
from drills.run.figures import Told, client_figures, probe_figures
from drills.run.load import Load
from drills.run.room_figures import room_figures
from drills.scenario.units import Bound


class Steady:
    """Judges a span that is just over."""

    def __init__(self, load: Load, record: Recorder, begin: float, end: float) -> None:
        wall = time.time() - time.monotonic()
        told = Told(load.lines(), list(record.lines), load.watching.expected, load.near, wall)
        self._figures = client_figures(told, begin, end) | probe_figures(told, begin, end)
        self._figures |= room_figures(told, begin, end)

    def failures(self, bounds: Mapping[str, Bound]) -> list[str]:
        """Which of these do not hold, with what was measured."""
        return [
            f"{name} is {_shown(self._figures.get(name))}, wanted {bound.text}"
            for name, bound in bounds.items()
            if name in self._figures and not bound.holds(self._figures[name])
        ]


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"

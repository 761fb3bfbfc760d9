"""Two runs of one drill beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from drills.scenario.figures import FIGURES
from relay.errors import CostreamError

_NOTABLE = 0.1  # of the former value
_FLOOR_MS = 20.0  # below that a difference is one picture's time


class ReportError(CostreamError):
    """A result cannot be read, or two are not of one drill."""


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a phase in both runs, and whether a hypothesis about it held (None where there is none)."""

    phase: str
    figure: str
    before: float | None
    after: float | None
    held_before: bool | None = None
    holds_after: bool | None = None

    @property
    def is_better(self) -> bool:
        if self.before is None or self.after is None:
            return self.after is not None
        more = FIGURES[self.figure].better == "more"
        return self.after >= self.before if more else self.after <= self.before

    @property
    def is_notable(self) -> bool:
        """Whether somebody should look: a tenth or more, and more than a picture's time."""
        if self.held_before != self.holds_after or (self.before is None) != (self.after is None):
            return True
        if self.before is None or self.after is None:
            return False
        least = _FLOOR_MS if FIGURES[self.figure].unit == "ms" else 0.0
        return abs(self.after - self.before) > max(least, _NOTABLE * abs(self.before))

    @property
    def percent(self) -> str:
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        if not self.before:
            return f"{self.after:+g}"
        return f"{100 * (self.after - self.before) / abs(self.before):+.0f} %"


def read_result(path: Path) -> dict[str, Any]:
    """A run's result.json, given itself or its directory. Raises ReportError."""
    file = path / "result.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{file}: no result of a drill: {error}") from None
    if not isinstance(found, dict) or not {"name", "figures", "verdicts"} <= found.keys():
        raise ReportError(f"{file}: no result of a drill")
    return found


def compare_files(first: Path, second: Path) -> list[Change]:
    """All figures of both. Raises ReportError, also when they are of different drills."""
    a, b = read_result(first), read_result(second)
    if a["name"] != b["name"]:
        raise ReportError(f"{first} is a run of {a['name']}, {second} one of {b['name']}")
    return compare_results(a, b)


def compare_results(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """All figures that both know the name of, phase by phase."""
    held, holds = (_held(result) for result in (before, after))
    found = []
    for phase, figures in after["figures"].items():
        earlier = before["figures"].get(phase, {})
        for name, value in figures.items():
            if name in FIGURES and (name in earlier):
                key = (phase, name)
                found.append(Change(phase, name, earlier[name], value, held.get(key), holds.get(key)))
    return found


def has_worsened(changes: Sequence[Change]) -> bool:
    """Whether something held before and does not now."""
    return any(change.held_before and change.holds_after is False for change in changes)


def comparison_table(changes: Sequence[Change]) -> Table:
    """The figures of hypotheses, and others that changed."""
    table = Table("phase", "figure", "A", "B", "change", "", box=None)
    for change in changes:
        if change.holds_after is None and not change.is_notable:
            continue
        colour = "green" if change.is_better else "red"
        mark = {True: "holds", False: "[bold red]fails[/]", None: ""}[change.holds_after]
        figures = ("–" if value is None else f"{value:g}" for value in (change.before, change.after))
        shown = f"[{colour}]{change.percent}[/]" if change.is_notable else "="
        table.add_row(change.phase, change.figure, *figures, shown, mark)
    return table


def _held(result: Mapping[str, Any]) -> dict[tuple[str, str], bool]:
    return {(each["phase"], each["figure"]): each["holds"] for each in result["verdicts"]}

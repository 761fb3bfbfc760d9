"""Figures, the table they print and the JSON they leave in `bench/results/`."""

from __future__ import annotations

import json
import math
import operator
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `goal` reads like `"<= 0.9"`; empty when the figure only informs.

    `beside` names the peer or limit that was measured in the same run, `beside_value` is its number in the same unit,
    and `ratio` is value / beside_value.
    """

    figure: str
    value: float
    unit: str
    goal: str
    holds: bool | None
    beside: str
    beside_value: float | None
    ratio: float | None
    runs: int
    command: str
    machine: str


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    goal: str = "",
    beside: str = "",
    beside_values: Sequence[float] = (),
    command: str = "make bench",
) -> Figure:
    """Make a figure of several runs: the median of each side, and their ratio."""
    value = statistics.median(values)
    peer = statistics.median(beside_values) if beside_values else None
    holds = None
    if goal:
        sign, limit = goal.split()
        holds = _COMPARE[sign](value, float(limit))
    ratio = round(value / peer, 3) if peer else None
    rounded = None if peer is None else round(peer, 3)
    return Figure(name, round(value, 3), unit, goal, holds, beside, rounded, ratio, len(values), command, machine())


def machine() -> str:
    """Describe the machine in a few words: a figure without it says nothing."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} × {model}, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"


def publish(name: str, figures: Sequence[Figure]) -> Path:
    """Print the table and write `bench/results/<name>.json`. Returns the file's path."""
    table = Table(title=f"{name} — {machine()}", title_justify="left")
    for column in ("figure", "value", "unit", "goal", "holds", "beside", "its value", "ratio", "runs"):
        table.add_column(column, justify="right" if column in {"value", "its value", "ratio", "runs"} else "left")
    for row in figures:
        holds = {True: "[green]yes", False: "[red]no", None: ""}[row.holds]
        peer = "" if row.beside_value is None else f"{row.beside_value:g}"
        ratio = "" if row.ratio is None else f"{row.ratio:g}"
        shown, beside = escape(row.figure), escape(row.beside)
        table.add_row(shown, f"{row.value:g}", row.unit, row.goal, holds, beside, peer, ratio, str(row.runs))
    console = Console(width=None if Console().is_terminal else 170)
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in figures], indent=2) + "\n")
    console.print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; `share` is 0..1. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = math.ceil(share * len(ordered) - 1e-9)  # 0.07 * 100 is a little more than 7
    return ordered[max(rank, 1) - 1]

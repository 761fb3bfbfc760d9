"""A drill on the terminal: what it does now, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from drills.run.result import Result


class Progress:
    """One line that says what is being done; faults stay on the screen above it."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
        self._bars = Bars(*columns, console=console, transient=True)
        self._task = self._bars.add_task(title, total=None)

    def tell(self, text: str, seconds: float) -> None:
        """A phase that takes `seconds`; below 0 a remark."""
        if seconds < 0 or not self._console.is_terminal:
            self._console.print(f"  {text}", markup=False, highlight=False)
        if seconds >= 0:
            lasts = f", {seconds:g} s at most" if seconds else ""
            self._bars.reset(self._task, description=f"{text}{lasts}", total=None)

    def __enter__(self) -> Self:
        self._console.print(self._title, style="bold", markup=False)
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def show_result(result: Result, directory: Path, console: Console) -> None:
    """A table of the hypotheses, and where the report is."""
    table = Table("", "phase", "figure", "wanted", "measured", box=None)
    for each in result.verdicts:
        mark = "[green]holds[/]" if each.holds else "[bold red]fails[/]"
        table.add_row(mark, each.phase, each.figure, each.bound, "unknown" if each.value is None else f"{each.value:g}")
    console.print(table)
    for oracle, found in result.oracles.items():
        for line in found:
            console.print(f"oracle {oracle}: {line}", style="red", markup=False)
    if result.causes:
        console.print("freezes by cause: " + ", ".join(f"{cause} {count}" for cause, count in result.causes.items()))
    for reason in result.left_out:
        console.print(f"LEFT OUT: {reason}", style="bold yellow", markup=False)
    if result.failure:
        console.print(f"not carried out: {result.failure}", style="bold red", markup=False)
    console.print("passed" if result.passed else "NOT passed", style="bold green" if result.passed else "bold red")
    console.print(f"report  {directory / 'report.html'}", markup=False, soft_wrap=True)

"""`costream drill`: what its commands do. Exit codes: 0 passed, 1 not passed or not carried out, 2 wrong usage."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from drills.interrupts import interruptible
from drills.record import Recorder
from drills.report import write_reports
from drills.report.screen import Progress, show_result
from drills.run.guard import require_possible
from drills.run.result import Result, assess
from drills.run.runner import Drill
from drills.scenario.loading import find, load
from drills.scenario.model import Scenario

OUT = Path(".costream/drills")


def run(names: Sequence[str], out: Path, seed: int | None, console: Console) -> bool:
    """Run drills, one after the other; returns whether all passed. Raises ScenarioError, Refused before the first."""
    scenarios = [(path.stem, _seeded(load(path), seed), path) for path in map(find, names)]
    for _, scenario, _ in scenarios:
        require_possible(scenario)
    results = [_one(name, scenario, path, out, console) for name, scenario, path in scenarios]
    return all(result.passed for result in results)


def _one(name: str, scenario: Scenario, path: Path, out: Path, console: Console) -> Result:
    before = previous(out / name)
    directory = out.resolve() / name / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    directory.mkdir(parents=True)
    with contextlib.suppress(ValueError):
        path = path.resolve().relative_to(Path.cwd())
    command = shlex.join(["costream", "drill", "run", str(path), "--seed", str(scenario.seed)])
    with (
        interruptible(),
        Recorder(directory / "record.jsonl") as record,
        Progress(console, scenario.title) as progress,
    ):
        evidence = Drill(scenario, directory, record, progress.tell).carry_out()
        progress.tell("measuring and judging", 0.0)
        result = assess(scenario, name, evidence, record, directory, command)
    write_reports(result.to_json(), before, directory)
    show_result(result, directory, console)
    if evidence.interrupted:
        sys.exit(130)
    return result


def previous(directory: Path) -> dict[str, Any] | None:
    """The result of the newest run below a directory; None where there is none that can be read."""
    for path in sorted(directory.glob("*/result.json"), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
    return None


def _seeded(scenario: Scenario, seed: int | None) -> Scenario:
    return scenario if seed is None else scenario.model_copy(update={"seed": seed})

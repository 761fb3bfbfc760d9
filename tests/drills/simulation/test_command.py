"""`costream simulate` as people run it: the same seed gives the same trace in another process."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from drills.simulation.command import run
from drills.simulation.world import Plan
from relay.node.attendance import Attendance
from tests.drills.simulation.test_planted import never_resume

ROOT = Path(__file__).parents[3]
FEW = "--seed 4 --nodes 5 --hours 0.03 --faults-per-hour 600 --common-per-hour 60 --link-minutes 0.1"


def simulated(options: str, hash_seed: str, trace: Path) -> tuple[int, list[str]]:
    argv = [sys.executable, "-m", "costream.cli", "simulate", *options.split(), "--trace", str(trace)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, re.findall(r"trace ([0-9a-f]{32})", done.stdout)


def test_another_process_repeats_it_line_by_line(tmp_path: Path) -> None:
    first = simulated(FEW, "1", tmp_path / "first")
    second = simulated(FEW, "random", tmp_path / "second")
    assert first == second
    assert first[0] == 0
    assert len(first[1]) == 3  # the cluster, a link with faults, a day of losses
    assert (tmp_path / "first").read_text() == (tmp_path / "second").read_text() != ""


def test_a_seed_that_fails_says_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attendance, "tick", never_resume)
    out = io.StringIO()
    plan = Plan(nodes=6, hours=0.05, faults_per_hour=900.0)
    assert not run(plan, 6, 0.0, None, Console(file=out, width=400))
    (again,) = re.findall(r"again: (.*)", out.getvalue())
    assert re.fullmatch(r"costream simulate --seed \d --nodes 6 --hours 0\.05 --faults-per-hour 900", again.strip())
    assert "heals, at" in out.getvalue()

"""The command line of the benches, with the quickest of them run for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.report import RESULTS
from relay.plane import native_missing

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "bench"]
PATIENCE_S = 300


def test_an_unknown_bench_is_named_with_those_there_are() -> None:
    done = subprocess.run([*RUN, "plain"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "no bench 'plain'" in done.stderr
    assert "latency" in done.stderr


@pytest.mark.interop
@pytest.mark.timeout(PATIENCE_S + 30)
def test_the_plane_bench_leaves_figures() -> None:
    (RESULTS / "plane.json").unlink(missing_ok=True)
    done = subprocess.run(
        [*RUN, "plane", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((RESULTS / "plane.json").read_text())
    fan_outs = [row for row in rows if row["figure"].startswith("packets out at fan-out")]
    assert len(fan_outs) == 3
    for row in fan_outs:
        assert row["value"] > 0
        assert row["beside_value"] > 0
        assert row["machine"]
    assert "packets out at fan-out 100" in done.stdout


@pytest.mark.interop
@pytest.mark.timeout(PATIENCE_S + 30)
@pytest.mark.parametrize("kind", ["reference", "native"])
def test_every_forwarded_packet_of_the_cost_bench_is_authentic(kind: str) -> None:
    if kind == "native" and native_missing():
        pytest.skip("the native plane is not built: see rust/README.md")
    words = ["cost", kind, "--rooms", "2", "--viewers", "5", "--packets", "2000"]
    run = [sys.executable, "-m", "bench.native_plane", *words]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lost"] == 0
    assert found["us"] > 0


@pytest.mark.interop
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_no_process_behind(number: signal.Signals) -> None:
    bench = subprocess.Popen([*RUN, "dtls", "--quick"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        children = _children_within(bench.pid, PATIENCE_S)
        bench.send_signal(number)
        _, told = bench.communicate(timeout=PATIENCE_S)
    finally:
        bench.kill()
    assert bench.returncode == 130, told
    assert not [pid for pid in children if _runs(pid)]


def _children_within(pid: int, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            time.sleep(0.5)
            return [int(child) for child in found]
        time.sleep(0.02)
    raise AssertionError("the bench started nothing")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

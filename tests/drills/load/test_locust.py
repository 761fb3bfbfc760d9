"""The locust file on a real node for a few seconds, without a browser page."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.drills.load.test_run import relay  # noqa: F401 - a fixture
from tests.interop.relays import KEYS, ROOT, token

LOCUSTFILE = ROOT / "drills" / "locustfile.py"

if importlib.util.find_spec("locust") is None:
    if os.environ.get("CI") == "true":
        pytest.fail("locust is not installed: pip install 'costream[load]'", pytrace=False)
    pytest.skip("locust is not installed: pip install 'costream[load]'", allow_module_level=True)


def run(host: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host, "--headless", "-u", "3", "-r", "3",
            "-t", "6s", "--stop-timeout", "10", "--csv", str(directory / "figures"), "--only-summary"]  # fmt: skip
    return subprocess.run(argv, cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, text=True,
                          capture_output=True, timeout=100, check=False)  # fmt: skip


@pytest.mark.timeout(240)
def test_every_call_is_answered_as_wanted(relay: str, tmp_path: Path) -> None:  # noqa: F811
    (name, secret), *_ = KEYS.items()
    done = run(relay, tmp_path, COSTREAM_KEY_ID=name, COSTREAM_SECRET=secret)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "figures_stats.csv").open(newline="") as file:
        rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}
    assert rows["", "Aggregated"]["Failure Count"] == "0", done.stdout
    assert int(rows["", "Aggregated"]["Request Count"]) >= 9
    assert int(rows["POST", "/v1/rooms"]["Request Count"]) == 3
    for method, path in (("PUT", ""), ("POST", "/layout"), ("GET", ""), ("DELETE", "")):
        assert int(rows[method, f"/v1/rooms/{{room}}/program{path}"]["Request Count"]) >= 3
    answer = httpx2.get(f"{relay}/v1/rooms", headers={"Authorization": f"Bearer {token('*', 'tests', 'service')}"},
                        trust_env=False)  # fmt: skip
    assert [room["id"] for room in answer.json()["rooms"] if room["id"].startswith("locust")] == []


def test_no_other_cluster_is_loaded(tmp_path: Path) -> None:
    done = run("http://192.0.2.1:7080", tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "not labelled as a test cluster" in done.stdout

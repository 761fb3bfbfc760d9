"""A viewer in Chromium on a cluster: what it saw is in the record and the report, and nothing of it stays."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from costream.painting import CLOCK_MODULUS
from drills import ownership
from drills.fabric.base import ROOT
from tests.drills.fabrics import need
from tests.drills.test_drill_run import CHROMIUM, command, left_by, until_the_fault
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(480)]
NAME = "chromium-1-relay-b"
FIELDS = {
    "frame": {"slot", "publisher", "counter", "clock_ms", "width"},
    "joining": {"url"},
    "joined": {"url", "session", "took"},
    "stats": {"over", "bits", "plis", "dropped", "concealed"},
    "left": set(),
}


def started(directory: Path, text: str) -> subprocess.Popen[str]:
    for client in ("wrtc", "chromium"):
        need_client(client)
    need("tun")
    (directory / "small.yaml").write_text(text)
    words = command("run", str(directory / "small.yaml"), "--out", str(directory / "runs"))
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def files(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result and the record."""
    (run,) = (directory / "runs" / "small").iterdir()
    lines = (run / "record.jsonl").read_text().splitlines()
    return json.loads((run / "result.json").read_text()), [json.loads(line) for line in lines]


def of_browser(owner: int) -> list[str]:
    """Processes that name a directory of this owner: of a browser even those that hide their environment do."""
    prefix = f"csd-{ownership.this_process().pid_namespace}-{owner}-"
    found = (each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"]))
    return [" ".join(words)[:200] for words in found if any(prefix in word for word in words)]


def test_what_chromium_showed_is_recorded_and_judged(tmp_path: Path) -> None:
    with started(tmp_path, CHROMIUM) as process:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert left_by(process.pid) == []
    assert of_browser(process.pid) == []
    result, record = files(tmp_path)
    assert (result["passed"], result["left_out"]) == (True, [])
    of = result["timeline"]["viewers"][NAME]
    assert sum(of["frames"]) > 20
    assert max(rate for rate in of["kbps"] if rate is not None) > 0
    lines = [line for line in record if line.get("viewer") == NAME]
    for event, fields in FIELDS.items():
        assert {line["event"] for line in lines} >= {event}
        assert all(
            line.keys() - {"at", "kind", "viewer", "event"} == fields for line in lines if line["event"] == event
        )
    assert not any("token" in str(line.get("url")) for line in lines)
    wall = time.time() - time.monotonic()
    delays = [
        (round(1000 * (line["at"] + wall)) - line["clock_ms"]) % CLOCK_MODULUS
        for line in lines
        if line["event"] == "frame" and line["clock_ms"] is not None
    ]
    assert len(delays) > 20
    assert max(delays) < 60_000, "a picture is shown after it was painted, by the same clock"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_drill_leaves_no_browser(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, CHROMIUM.replace("lasts: 3s", "lasts: 60s")) as process:
        said = until_the_fault(process)
        assert of_browser(process.pid), "the browser was there"
        process.send_signal(number)
        said += process.stdout.read()
        assert process.wait(60) == 130, said
    assert left_by(process.pid) == []
    assert of_browser(process.pid) == []
    result, _ = files(tmp_path)
    assert result["failure"] == "interrupted"

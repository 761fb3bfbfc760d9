"""The process of viewers in Chromium by itself: addresses that do not answer, plans that are none, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from drills.chromium.finding import executable
from drills.fabric.base import ROOT
from tests.drills.fabrics import eventually
from tests.interop.clients.requirements import need as need_client
from tests.interop.relays import free_ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
TOKEN = "a.b.c"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path: pytest's own are too long for a browser's socket."""
    with tempfile.TemporaryDirectory(prefix="cs-") as directory:
        yield Path(directory)


def started(directory: Path, plan: Any) -> subprocess.Popen[str]:
    need_client("chromium")
    need_client("wrtc")
    path = directory / "plan.json"
    path.write_text(json.dumps(plan))
    words = [sys.executable, "-m", "drills.chromium.viewer", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True)


def plan(scratch: Path) -> dict[str, Any]:
    """Two pages that do not open."""
    nowhere = f"https://127.0.0.1:{free_ports()[0]}/watch.html#room=show&token={TOKEN}"
    pages = [[name, [nowhere]] for name in ("vera", "victor")]
    return {"executable": executable(), "pages": pages, "scratch": str(scratch), "out": str(scratch / "out.jsonl")}


def lines(directory: Path) -> list[dict[str, Any]]:
    try:
        text = (directory / "out.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def browsers(directory: Path) -> list[int]:
    """Processes of a browser that has its profile below a directory."""
    return [
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if any(str(directory) in word and "user-data-dir" in word for word in each.info["cmdline"] or [])
    ]


def test_a_page_that_does_not_open_is_tried_again_and_told_without_its_token(scratch: Path) -> None:
    with started(scratch, plan(scratch)) as process:
        eventually(lambda: len(lines(scratch)) >= 4 or process.poll() is not None, 60)
        assert process.poll() is None
        assert browsers(scratch)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
        assert process.returncode == 0, said
    told = lines(scratch)
    assert {line["viewer"] for line in told} == {"vera", "victor"}
    assert {line["event"] for line in told} == {"failed"}
    assert all(line["url"].endswith("/watch.html") for line in told)
    assert "the page does not open: " in told[0]["reason"]
    assert "CONNECTION_REFUSED" in told[0]["reason"]
    assert TOKEN not in json.dumps(told)
    assert browsers(scratch) == []
    assert sorted(path.name for path in scratch.iterdir()) == ["out.jsonl", "plan.json"], "the profile is gone"


def test_a_viewer_that_is_killed_takes_its_browser_with_it(scratch: Path) -> None:
    with started(scratch, plan(scratch)) as process:
        eventually(lambda: (lines(scratch) and browsers(scratch)) or process.poll() is not None, 60)
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=30)
    eventually(lambda: browsers(scratch) == [], 30)


@pytest.mark.parametrize(
    "wrong", [{}, [], {"executable": "chromium", "pages": [], "scratch": "", "out": "", "page": 1}]
)
def test_a_plan_that_is_none_is_refused(scratch: Path, wrong: Any) -> None:
    with started(scratch, wrong) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "plan.json: " in said
    assert "Traceback" not in said


def test_a_browser_that_cannot_be_started_is_said(scratch: Path) -> None:
    with started(scratch, {**plan(scratch), "executable": str(scratch / "none")}) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "executable doesn't exist" in said.lower()
    assert lines(scratch) == []
    assert sorted(path.name for path in scratch.iterdir()) == ["out.jsonl", "plan.json"]

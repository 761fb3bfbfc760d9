"""A drill from the command line: it runs, judges, reports and leaves nothing; what cannot be is refused first."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from drills import ownership
from drills.chromium import finding
from drills.fabric import namespaces
from drills.fabric.base import ROOT
from drills.run import guard
from drills.run.guard import Refused, left_out, require_possible
from drills.scenario.loading import parse
from tests.drills.fabrics import need
from tests.interop.clients.chromium import launched
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(480)]

SMALL = """\
title: A small drill
about: One host, one viewer, and a path that goes dark for a moment.
dimension: path failover
seed: 3
cluster: {relays: 2}
load:
  hosts: {count: 1, size: [160, 90], fps: 10}
  viewers: {count: 1, rejoin: false}
steady_state:
  before: {freeze.max: "<= 60 s"}
  during: {freeze.max: "<= 60 s", frames.repeated: "== 0"}
  after: {freeze.max: "<= 60 s"}
  whole: {owners.violations: "== 0", breaker.disagreements: "== 0", packets.unaccounted: "== 0"}
watch: 2s
method:
  - {at: 500ms, for: 2s, fault: partition, from: [relay-a/1], to: [relay-b/1]}
lasts: 3s
settle: 2s
calm: 2s
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "costream.cli", "drill", *words]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip


def left_by(pid: int) -> list[str]:
    """Directories, namespaces and processes whose names tell that a process was their owner."""
    here = ownership.this_process().pid_namespace
    prefix = f"csd-{here}-{pid}-"
    found = [path.name for path in Path(tempfile.gettempdir()).glob(f"{prefix}*")]
    found += [name for name in namespaces._names() if name.startswith(prefix)]
    return found + [mark for _, mark in ownership._marked() if mark.startswith(prefix)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with two runs of the small drill; the second is compared with the first."""
    need("tun")
    need_client("wrtc")
    out = tmp_path_factory.mktemp("drills")
    (out / "small.yaml").write_text(SMALL)
    for _ in range(2):
        process = subprocess.Popen(
            command("run", str(out / "small.yaml"), "--out", str(out / "runs")),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert "passed" in said
        assert left_by(process.pid) == []
    return out


def runs(small: Path) -> list[Path]:
    return sorted((small / "runs" / "small").iterdir())


def test_a_drill_runs_and_says_what_came_of_it(small: Path) -> None:
    first, second = runs(small)
    result = json.loads((first / "result.json").read_text())
    assert (result["passed"], result["failure"], result["seed"]) == (True, "", 3)
    assert "costream drill run" in result["command"]
    assert "--seed 3" in result["command"]
    assert len(result["verdicts"]) == 7
    assert all(each["holds"] for each in result["verdicts"])
    assert result["oracles"] == {"breaker": [], "owners": [], "packets": []}
    assert [fault["name"] for fault in result["timeline"]["faults"]] == ["partition"]
    (far,) = (of for of in result["timeline"]["viewers"].values() if not of["near"])
    assert sum(far["frames"]) > 20
    assert max(rate for rate in far["kbps"] if rate is not None) > 0
    suite = Xml.fromstring((second / "junit.xml").read_text())[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "0")
    kinds = {json.loads(line)["kind"] for line in (first / "record.jsonl").read_text().splitlines()}
    assert kinds >= {"run", "fault", "api", "sample", "machine", "event", "client", "breaker"}


def test_runs_are_compared(small: Path) -> None:
    first, second = runs(small)
    done = run("compare", str(first), str(second / "result.json"))
    assert done.returncode == 0, done.stderr
    assert "freeze.max" in done.stdout
    worse = json.loads((second / "result.json").read_text())
    worse["verdicts"][0]["holds"] = False
    (small / "worse.json").write_text(json.dumps(worse))
    assert run("compare", str(first), str(small / "worse.json")).returncode == 1
    (small / "other.json").write_text(json.dumps({**worse, "name": "other"}))
    refused = run("compare", str(first), str(small / "other.json"))
    assert (refused.returncode, "is a run of small" in refused.stderr) == (2, True)
    assert "no result of a drill" in run("compare", str(small), str(first)).stderr


async def test_the_report_is_a_page_that_needs_nothing_else(small: Path) -> None:
    need_client("chromium")
    asked: list[str] = []
    async with launched() as chromium:
        for scheme in ("light", "dark"):
            context = await chromium.browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
            page = await context.new_page()
            errors: list[Any] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(error))
            page.on("request", lambda request: asked.append(request.url))
            await page.goto((runs(small)[1] / "report.html").as_uri())
            assert await page.evaluate("() => document.documentElement.dataset.theme") == scheme
            headings = await page.eval_on_selector_all("h2", "all => all.map(each => each.textContent)")
            assert {"What was supposed to hold", "Faults, and which path carried", "Freezes and their causes"} <= set(
                headings
            )
            assert any(heading.startswith("Beside the run of") for heading in headings)
            assert await page.locator(".score").count() == 12
            assert await page.locator(".score.passed.here").count() == 1
            assert await page.locator("svg.chart").count() >= 5
            wide = "() => document.documentElement.scrollWidth <= innerWidth"
            assert await page.evaluate(wide), "it has to be scrolled sideways"
            spilt = """() => [...document.querySelectorAll('svg.chart text')].filter(text => {
                const a = text.getBoundingClientRect(), b = text.ownerSVGElement.getBoundingClientRect();
                return a.left < b.left - 1 || a.right > b.right + 1;
            }).map(text => text.textContent)"""
            assert await page.evaluate(spilt) == []
            assert errors == []
            await context.close()
    assert [url for url in asked if not url.startswith("file:")] == []


def until_the_fault(process: subprocess.Popen[str]) -> str:
    """Read what a drill says until it has done something; returns that."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "fault: partition" in line:
            break
    assert "fault: partition" in said
    return said


def test_an_interrupted_drill_leaves_nothing(tmp_path: Path) -> None:
    """By either signal; two drills at once."""
    need("tun")
    need_client("wrtc")
    (tmp_path / "small.yaml").write_text(SMALL.replace("lasts: 3s", "lasts: 100s"))
    with contextlib.ExitStack() as stack:
        drills = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            words = command("run", str(tmp_path / "small.yaml"), "--out", str(tmp_path / number.name))
            drills[number] = stack.enter_context(
                subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        said = {number: until_the_fault(process) for number, process in drills.items()}
        for number, process in drills.items():
            process.send_signal(number)
        for number, process in drills.items():
            assert process.stdout is not None
            said[number] += process.stdout.read()
            assert process.wait(60) == 130, said[number]
    for number, process in drills.items():
        assert left_by(process.pid) == []
        result = json.loads(next((tmp_path / number.name / "small").glob("*/result.json")).read_text())
        assert (result["failure"], result["passed"]) == ("interrupted", False)
        lines = map(json.loads, next((tmp_path / number.name).glob("*/*/record.jsonl")).read_text().splitlines())
        assert [line["what"] for line in lines if line["kind"] == "fault"] == ["applied", "taken back"]


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("to: [relay-b/1]", "to: [relay-z/1]", "method.0 (partition): 'relay-z' is no member; did you mean relay-b?"),
        ("to: [relay-b/1]", "to: [relay-b/3]", "'relay-b/3': relay-b has the paths 1 to 2"),
        ("to: [relay-b/1]", "to: [store/2]", "'store/2': store has the paths 1 to 1"),
        ("viewers: {count: 1,", "viewers: {count: 1, at: [relay-c],", "load.viewers.at: 'relay-c' is no member"),
        ("rejoin: false}", "rejoin: false}\n  chromium: {count: 1, at: [relay-d]}",
         "load.chromium.at: 'relay-d' is no member"),
        ("count: 1, size", "count: 60, voices: 9, size", "69 hosts with and without pictures; a room has 64 seats"),
        ("fault: partition, from: [relay-a/1], to: [relay-b/1]", "fault: cpu-storm, members: [store]",
         "method.0 (cpu-storm): store is a store, and this is done to a relay or signaling"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reason(old: str, new: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        require_possible(parse(SMALL.replace(old, new)))
    assert said in str(caught.value)


CHROMIUM = SMALL.replace("rejoin: false}", "rejoin: false}\n  chromium: {count: 1}")


def test_without_chromium_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "why_no_chromium", lambda: "there is none")
    with pytest.raises(Refused, match=r"load\.chromium: there is none"):
        require_possible(parse(CHROMIUM))
    assert left_out(parse(CHROMIUM)) == left_out(parse(SMALL)) == []
    require_possible(parse(SMALL))


def test_without_chromium_it_goes_on_where_that_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    need("tun")
    scenario = parse(CHROMIUM.replace("chromium: {count: 1}", "chromium: {count: 1, optional: true}"))
    monkeypatch.setattr(guard, "why_no_chromium", lambda: None)
    assert left_out(scenario) == []
    monkeypatch.setattr(guard, "why_no_chromium", lambda: "there is none")
    require_possible(scenario)
    assert left_out(scenario) == ["load.chromium: no viewer in Chromium (1 wanted in each room): there is none"]


@pytest.mark.parametrize("missing", ["browser", "playwright"])
def test_why_chromium_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    if missing == "browser":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setitem(sys.modules, "playwright", None)
    assert finding.executable() is None
    assert missing.replace("browser", "Debian package chromium") in str(finding.why_not())


def test_the_command_refuses_a_drill_with_viewers_in_chromium_where_there_is_none(tmp_path: Path) -> None:
    for name in ("ip", "unshare"):
        if path := shutil.which(name):
            (tmp_path / name).symlink_to(path)
    (tmp_path / "small.yaml").write_text(CHROMIUM)
    done = run("run", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "runs"), PATH=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "load.chromium: there is no Chromium (Debian package chromium)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_root_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "why_no_namespaces", lambda: "this needs root")
    with pytest.raises(Refused, match="root: this drill needs network namespaces, and this needs root"):
        require_possible(parse(SMALL))
    require_possible(parse(SMALL + "root: false\n"))


@pytest.mark.parametrize("text", [SMALL.replace("partition", "tornado"), SMALL.replace("lasts: 3s", "lasts: 2s"), ""])
def test_the_command_refuses_before_anything_is_started(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = run("run", str(tmp_path / "bad.yaml"), "--out", str(tmp_path / "runs"))
    assert done.returncode == 2, done.stderr
    assert "bad.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()

"""What a report says besides figures: what was left out on a machine is seen by whoever looks, in each of its forms."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as Xml

from rich.console import Console

from drills.report.junit import junit
from drills.report.page import page
from drills.report.screen import show_result
from drills.run.result import Result, Verdict

REASON = "load.chromium: no viewer in Chromium (1 wanted in each room): <there is none>"


def result(*left_out: str) -> Result:
    verdict = Verdict("during", "freeze.max", "<= 1 s", 80.0, True)
    return Result(
        name="small", scenario={"title": "Small", "about": "It is small."}, seed=1, command="costream drill run small",
        began="2026-01-01T12:00:00Z", machine="this one", dimension="loss", failure="", verdicts=[verdict], figures={},
        oracles={}, causes={}, freezes=[], left_out=list(left_out),
    )  # fmt: skip


def test_what_was_left_out_is_on_the_page() -> None:
    said = page(result(REASON).to_json(), None, {})
    assert "Left out on this machine" in said
    assert "(1 wanted in each room): &lt;there is none&gt;" in said
    assert "Left out" not in page(result().to_json(), None, {})
    before = result().to_json()
    del before["left_out"]
    assert "Left out" not in page(before, before, {}), "a result of before there was such a thing"


def test_what_was_left_out_is_a_skipped_test() -> None:
    suite = Xml.fromstring(junit(result(REASON).to_json()))[0]
    assert [suite.get(key) for key in ("tests", "failures", "skipped")] == ["3", "0", "1"]
    (skipped,) = suite.iter("skipped")
    assert skipped.get("message") == REASON
    assert not list(Xml.fromstring(junit(result().to_json()))[0].iter("skipped"))


def test_what_was_left_out_is_said_on_the_terminal(tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=StringIO())
    show_result(result(REASON), tmp_path, console)
    assert f"LEFT OUT: {REASON}" in console.export_text()

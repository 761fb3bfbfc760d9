"""What a drill leaves behind: result.json, report.html, junit.xml, and the raw record beside them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drills.report.compare import ReportError, read_result
from drills.report.junit import junit
from drills.report.page import page


def write_reports(result: Mapping[str, Any], before: Mapping[str, Any] | None, directory: Path) -> None:
    """Write all reports of a result into its directory; `before` is the result of the previous run.

    The scorecard has the newest results of all drills that were run beside this one (`…/NAME/TIME`).
    """
    (directory / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (directory / "junit.xml").write_bytes(junit(result))
    scores = newest(directory.parent.parent)
    (directory / "report.html").write_text(page(result, before, scores), encoding="utf-8")


def newest(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """The newest result of each drill below a directory, by dimension."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for drill in sorted(path for path in directory.iterdir() if path.is_dir()):
        for run in sorted(drill.iterdir(), reverse=True):
            try:
                result = read_result(run)
            except ReportError:
                continue
            found[result["dimension"]].append(result)
            break
    return dict(found)

"""What a drill leaves behind: result.json, report.html, junit.xml, and the raw record beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_reports(result: dict[str, Any], before: dict[str, Any] | None, directory: Path) -> None:
    """Write all reports of a result; `before` is the result of the previous run."""
    (directory / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

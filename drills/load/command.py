"""`costream load`: run a load, show what came of it, write it down."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from drills.interrupts import interruptible
from drills.load.guard import require_test_cluster
from drills.load.plan import LoadPlan
from drills.load.run import Load
from drills.load.summary import Summary
from drills.measure import Spread
from drills.record import Recorder

INTERRUPTED_EXIT = 130


def run(plan: LoadPlan, urls: Sequence[str], key: tuple[str, str], out: Path, label: Path | None, *, sure: bool,
        console: Console) -> int:  # fmt: skip
    """Return the exit code: 0 when it ran to its end, 130 when it was interrupted. Raises NoTestCluster, LoadFailed."""
    require_test_cluster(urls, label, sure=sure)
    directory = out / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    directory.mkdir(parents=True, exist_ok=True)
    with interruptible(), Recorder(directory / "record.jsonl") as record:
        if console.is_terminal:
            with console.status("starting") as status:
                summary = Load(plan, urls, key, record, status.update).run()
        else:
            summary = Load(plan, urls, key, record).run()
    (directory / "summary.json").write_text(json.dumps(summary.to_json(), indent=1) + "\n", encoding="utf-8")
    console.print(_table(summary))
    console.print(f"record     {directory / 'record.jsonl'}", highlight=False)
    return INTERRUPTED_EXIT if summary.interrupted else 0


def _table(summary: Summary) -> Table:
    table = Table(box=None, show_header=False)
    statuses = ", ".join(f"{status or 'no answer'}: {count}" for status, count in sorted(summary.api_statuses.items()))
    switches = ", ".join(f"{status}: {count}" for status, count in sorted(summary.switches.items()))
    for name, text in (
        ("ran", f"{summary.seconds:.1f} s{', interrupted' if summary.interrupted else ''}"),
        ("joins", f"{summary.joins}, refused {summary.refused}, failed {summary.failed}, left {summary.left}"),
        ("join time", f"{_took(summary.join)}  (p50 / p99 / max)"),
        ("freezes", f"{_took(summary.freeze)}  (of {summary.frames} frames)"),
        ("layers", switches or "none changed"),
        ("API", f"{_took(summary.api)}  ({statuses or 'not asked'})"),
        ("this tool", f"late by {summary.late:.3f} s at most"),
    ):  # fmt: skip
        table.add_row(name, text)
    return table


def _took(found: Spread) -> str:
    return f"{found.p50:.3f} / {found.p99:.3f} / {found.most:.3f} s"

"""The raw record of a load: JSON lines, each with `at` (CLOCK_MONOTONIC, seconds) and `kind`, as those of a drill.

| kind | further fields |
| --- | --- |
| `run` | `what`: `begun` (with the plan), `all have come`, `over` |
| `api` | `took` in seconds, `status` (0: no answer), `what` |
| `machine` | `busy`: processes that want a CPU for each there is, `late` in seconds: how late our own clock ran |
| `client` | a line of a publisher or viewer, with `viewer`, `event`, … (see `drills.viewer`, `drills.load.viewers`) |
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Self


class Recorder:
    """Writes lines; of those it keeps what is no client's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._file = path.open("w", encoding="utf-8")

    def write(self, kind: str, at: float | None = None, **fields: Any) -> None:
        """Write a line, of now unless `at` says otherwise."""
        line = {"at": round(time.monotonic() if at is None else at, 6), "kind": kind, **fields}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        if kind != "client":
            self.lines.append(line)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind, in the order of writing."""
        return [line for line in self.lines if line["kind"] == kind]

    def flush(self) -> None:
        """Put everything into the file."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tail:
    """A file of JSON lines that somebody is writing; what was read is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the new lines. One in the making is left for the next time."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return [json.loads(line) for line in data.splitlines()]

"""The raw record of a run: JSON lines, each with `at` (CLOCK_MONOTONIC, seconds) and `kind`; and reading such files.

| kind | in | further fields |
| --- | --- | --- |
| `run` | both | `what`: phases of a drill (`begun`, `watching`, `method`, `rollback`, `settling`, `calm`, `over`) |
| | | or of a load (`begun` with the plan, `all have come`, `over`); a drill's `left out`, with `text` |
| `fault` | drill | `what` (`applied`, `taken back`, or a step of a fault), `fault` (its number), `text`, `targets` |
| `api` | both | `took` in seconds, `status` (0: no answer); a drill's: `member`, a load's: `what` |
| `sample` | drill | `member` and figures from its metrics |
| `machine` | both | `late` in seconds: how late our own clock ran; a drill's: `cpu` in percent of all cores, |
| | | a load's: `busy`, processes that want a CPU for each there is |
| `event` | drill | `sent`, `took`: an application's event at a follower |
| `newcomer` | drill | `took`, `status`: an offer made during the method |
| `room` | drill | `room`, `type`, `data`: an event of a program or a PK that a room was told |
| `pk` | drill | `room`, `viewer`, `shows`: whether the viewer is shown the other room's stage; null: nobody says |
| `breaker` | drill | `relay`, `peer`, `previous`, `state`, `reason` |
| `client` | both | a publisher's or viewer's line: `viewer`, `event`, … (`drills.viewer`, `drills.load.viewers`) |
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Self


class Recorder:
    """Writes lines, from any thread, and keeps those that are no client's in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, kind: str, at: float | None = None, **fields: Any) -> None:
        """Write a line, of now unless `at` says otherwise."""
        line = {"at": round(time.monotonic() if at is None else at, 6), "kind": kind, **fields}
        with self._lock:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            if kind != "client":
                self.lines.append(line)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind that is no client's, in the order of writing."""
        with self._lock:
            return [line for line in self.lines if line["kind"] == kind]

    def flush(self) -> None:
        """Put everything into the file."""
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        with self._lock:
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

"""The raw record of a drill: JSON lines, each with `at` (CLOCK_MONOTONIC, seconds) and `kind`.

| kind | further fields |
| --- | --- |
| `run` | `what`: phases of the drill (`begun`, `watching`, `method`, `rollback`, `settling`, `calm`, `over`) |
| `fault` | `what` (`applied`, `taken back`, or a step of a fault), `fault` (its number), `text`, `targets` |
| `api` | `member`, `took` in seconds, `status` (0: no answer) |
| `sample` | `member` and figures from its metrics |
| `machine` | `cpu` in percent of all cores, `late` in seconds: how late the drill's own clock ran |
| `event` | `sent`, `took`: an application's event at a follower |
| `newcomer` | `took`, `status`: an offer made during the method |
| `room` | `room`, `type`, `data`: an event of a program or a PK that a room was told |
| `pk` | `room`, `viewer`, `shows`: whether the viewer's session shows the other room's stage; null: nobody says |
| `breaker` | `relay`, `peer`, `previous`, `state`, `reason` |
| `client` | a line of a publisher or viewer, with `viewer`, `event`, … (see `drills.viewer`) |
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
            self.lines.append(line)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind, in the order of writing."""
        with self._lock:
            return [line for line in self.lines if line["kind"] == kind]

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

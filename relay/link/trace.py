"""What a breaker was told and what it did, written down for whoever wants to judge it afterwards.

With `link.breaker.trace_dir` set, each link's origin writes `LINK.jsonl` there: a header with `link`, `peer` and the
breaker's `settings`, then one list per line, times in microseconds of CLOCK_MONOTONIC:

    ["r", path, generation, now, rtt_us, sent, acked, lost, oldest_unacked, pto_us, closed]   a report
    ["w", now]  time passed     ["f", now]  forced open     ["b", now]  reset
    ["m", now, previous, state, reason]   the breaker moved
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, TextIO

import structlog

from relay.link.breaker import Breaker, BreakerMoved
from relay.link.path import PathName, PathReport
from relay.settings import BreakerSettings

MAX_BYTES = 256 << 20  # of one link: some three hours
log = structlog.get_logger(__name__)


class TracedBreaker(Breaker):
    """A breaker that writes down what it is told. A file that cannot be written ends the trace, nothing else."""

    def __init__(self, settings: BreakerSettings, link: str, peer: str) -> None:
        self._file: TextIO | None = None
        self._left = MAX_BYTES
        super().__init__(settings)
        try:
            name = re.sub(r"[^A-Za-z0-9]", "_", link)  # the peer has chosen it
            self._file = (Path(settings.trace_dir) / f"{name}.jsonl").open("w", encoding="ascii", buffering=1)
        except OSError as error:
            log.warning("no trace of a link's breaker", link=link, reason=str(error))
        self._write({"link": link, "peer": peer, "settings": settings.model_dump(mode="json")})

    def report(self, path: PathName, report: PathReport, generation: int = 0) -> None:
        r = report
        self._write(
            ["r", path, generation, r.now, r.rtt_us, r.sent, r.acked, r.lost, r.oldest_unacked, r.pto_us, r.closed]
        )
        super().report(path, report, generation)

    def handle_timeout(self, now: int) -> None:
        self._write(["w", now])
        super().handle_timeout(now)

    def force_open(self, now: int) -> None:
        self._write(["f", now])
        super().force_open(now)

    def reset(self, now: int) -> None:
        self._write(["b", now])
        super().reset(now)

    def events(self) -> list[BreakerMoved]:
        moves = super().events()
        for move in moves:
            self._write(["m", move.now, move.previous.value, move.state.value, move.reason])
        return moves

    def _write(self, entry: Any) -> None:
        if self._file is None:
            return
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        self._left -= len(line)
        if self._left < 0:
            self._end(f"more than {MAX_BYTES} bytes")
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._end(str(error))

    def _end(self, reason: str) -> None:
        log.warning("the trace of a link's breaker ends", reason=reason)
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def breaker_of(settings: BreakerSettings, link: str, peer: str) -> Breaker:
    """A link's breaker, traced if the settings say so."""
    return TracedBreaker(settings, link, peer) if settings.trace_dir else Breaker(settings)

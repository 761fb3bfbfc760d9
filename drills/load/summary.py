"""What a load's record says: joins, refusals, freezes, the API. Pure but for the reading of the record's file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drills.load.plan import LoadPlan
from drills.measure import Spread, frames, spread, watched
from drills.record import Recorder


@dataclass(frozen=True, slots=True)
class Summary:
    """Durations in seconds."""

    interrupted: bool
    seconds: float
    """From the beginning to the end, without taking away."""
    joins: int
    join: Spread
    refused: int
    failed: int
    left: int
    switches: dict[int, int]
    """Changes of a layer by the API's status."""
    frames: int
    freeze: Spread
    """The longest of each picture of each viewer while he was there."""
    api: Spread
    api_statuses: dict[int, int]
    late: float
    """By how much this tool's own clock ran late at most: beyond some 0.1 s the machine was the limit."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def summarise(plan: LoadPlan, record: Recorder, *, interrupted: bool) -> Summary:
    """Read the whole record."""
    record.flush()
    lines = [line for line in _clients(record.path) if line["viewer"].startswith("viewer")]
    events = Counter(line["event"] for line in lines)
    joined = [line["took"] for line in lines if line["event"] == "joined"]
    asked = record.of("api")
    times = {line["what"]: line["at"] for line in record.of("run")}
    begin, end = times.get("begun", 0.0), times.get("over", 0.0)
    return Summary(
        interrupted=interrupted,
        seconds=round(end - begin, 3),
        joins=len(joined),
        join=spread(joined),
        refused=events["refused"],
        failed=events["failed"],
        left=events["left"],
        switches=dict(Counter(line["status"] for line in lines if line["event"] == "switched")),
        frames=events["frame"],
        freeze=spread(_freezes(lines)),
        api=spread(line["took"] for line in asked if line["status"]),
        api_statuses=dict(Counter(line["status"] for line in asked)),
        late=max((line["late"] for line in record.of("machine")), default=0.0),
    )


def _freezes(lines: list[dict[str, Any]]) -> Iterator[float]:
    """Between a viewer's first picture after he joined and the moment he left, for each stay by itself."""
    stays: dict[str, int] = {}
    parts: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in lines:
        stay = stays.setdefault(line["viewer"], 0)
        if line["event"] == "left":
            stays[line["viewer"]] = stay + 1
        elif line["event"] == "frame":
            parts.setdefault((line["viewer"], stay), []).append(line)
    for part in parts.values():
        seen = frames(part)
        for stream, of_stream in seen.items():
            if len(of_stream) > 1:
                yield watched({stream: of_stream}, of_stream[0][0], of_stream[-1][0])[stream].gap


def _clients(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if line["kind"] == "client":
                yield line

"""The drill over time, for the report: faults, breaker states, frames and bits of each viewer, in seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from drills.run.breakers import BreakerMove
from drills.run.figures import Told
from drills.run.runner import Evidence

_BIN_S = 0.5


def series(told: Told, moves: Sequence[BreakerMove], evidence: Evidence) -> dict[str, Any]:
    """JSON-ready; `zero` is the start, all other times are seconds since then."""
    times = evidence.times
    zero = times.watching or times.started
    end = (evidence.watched_until or times.over) - zero

    def at(moment: float) -> float:
        return round(moment - zero, 3)

    phases = {
        name: at(getattr(times, name)) for name in ("watching", "method", "rollback", "calm") if getattr(times, name)
    }
    return {
        "seconds": round(end, 3),
        "bin": _BIN_S,
        "phases": phases,
        "faults": [
            {"name": fault.fault, "text": fault.as_text(), "targets": fault.targets(),
             "begin": at(began), "end": at(ended)}
            for began, ended, fault in sorted(evidence.faults, key=lambda each: each[0])
        ],
        "notes": [{"at": at(line["at"]), "text": line["text"], "what": line["what"]}
                  for line in told.record if line["kind"] == "fault" and line["fault"] < 0],
        "breakers": _states(moves, at),
        "viewers": {viewer: _viewer(told, viewer, zero, end) for viewer in sorted({who for who, _ in told.expected})},
        "api": [[at(line["at"]), round(1000 * line["took"], 1), line["status"], line["member"]]
                for line in told.record if line["kind"] == "api"],
        "machine": [[at(line["at"]), line["cpu"], round(1000 * line["late"], 1)]
                    for line in told.record if line["kind"] == "machine"],
        "slab": _slab(told, at),
    }  # fmt: skip


def _states(moves: Sequence[BreakerMove], at: Any) -> dict[str, list[list[Any]]]:
    """[time, state, reason] of each link that moved."""
    found: defaultdict[str, list[list[Any]]] = defaultdict(list)
    for move in moves:
        found[" → ".join(move.link)].append([at(move.at), move.state, move.reason])
    return dict(found)


def _viewer(told: Told, viewer: str, zero: float, end: float) -> dict[str, Any]:
    """New pictures and kilobits per second in bins, and when it joined, failed or moved."""
    bins = max(1, round(end / _BIN_S))
    frames, kbps = [0] * bins, [None] * bins
    events = []
    for line in told.clients:
        if line["viewer"] != viewer:
            continue
        seconds = line["at"] - zero
        index = int(seconds // _BIN_S)
        if line["event"] == "frame" and 0 <= index < bins:
            frames[index] += 1
        elif line["event"] == "stats" and 0 <= index < bins:
            kbps[index] = round(line["bits"] / line["over"] / 1000)
        elif line["event"] in ("joined", "failed", "moved", "refused") and 0 <= seconds <= end:
            events.append({"at": round(seconds, 3), "event": line["event"], "to": _node(line)})
    return {"frames": frames, "kbps": kbps, "events": events, "near": viewer in told.near}


def _node(line: Mapping[str, Any]) -> str:
    return str(line.get("session", "")).split("~")[0]


def _slab(told: Told, at: Any) -> dict[str, list[list[float]]]:
    """Share of free packet places of each relay, in percent."""
    found: defaultdict[str, list[list[float]]] = defaultdict(list)
    for line in told.record:
        if line["kind"] == "sample" and line.get("slab"):
            found[line["member"]].append([at(line["at"]), round(100 * line["slab_free"] / line["slab"], 2)])
    return dict(found)

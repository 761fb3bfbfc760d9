"""Why a picture froze: each freeze is laid beside what happened around it. Pure.

Evidence of several causes is kept in this order, and the first one counts: this machine or a client on it was late, a
node, or the process of its links, was gone or somebody joined elsewhere, the program's compositor was replaced, a path
was bad, the layer changed, a keyframe was waited for. Where there is nothing else, a machine without CPU to spare
counts as `client`. What is left is `unknown`, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from drills.measure import Stream
from drills.run.breakers import BreakerMove
from drills.run.figures import Freeze, Told

Cause = Literal["client", "node", "compositor", "path", "layer", "keyframe", "unknown"]
CAUSES: tuple[Cause, ...] = ("client", "node", "compositor", "path", "layer", "keyframe", "unknown")
_LATE_SHARE = 0.5  # of the freeze's length, for a clock that was late to explain it
_AROUND_S = 0.3
_BUSY_PERCENT = 95.0
_NETWORK = ("impair", "partition", "flap")
_PROGRAM = ("kill-compositor", "kill-mixer")
_SUDDEN = ("kill", "drain", "kill-links", *_PROGRAM)
_SUDDEN_S = 3.0  # what they do to viewers is done soon; later their own lines tell
_CLOCK_MODULUS_MS = 1 << 24


@dataclass(frozen=True, slots=True)
class Explained:
    """A freeze with its cause and all the evidence, one line each."""

    freeze: Freeze
    cause: Cause
    evidence: tuple[str, ...]


def explain(
    freeze: Freeze, told: Told, moves: Sequence[BreakerMove], faults: Sequence[tuple[float, float, str]]
) -> Explained:
    """Attribute one freeze; `faults` are (began, ended, name)."""
    found: dict[Cause, list[str]] = {}
    length = freeze.end - freeze.begin
    begin, end = freeze.begin - _AROUND_S, freeze.end + _AROUND_S

    def note(cause: Cause, text: str) -> None:
        found.setdefault(cause, []).append(text)

    late = max((line["late"] for line in told.of("machine", begin, end)), default=0.0)
    if late > length * _LATE_SHARE:
        note("client", f"this machine was {1000 * late:.0f} ms late")
    for line in _of_viewer(told, freeze.viewer, begin, end):
        _from_client(line, length, note)
    _from_pictures(told, freeze, length, note)
    for began, ended, name in faults:
        until = min(ended, began + _SUDDEN_S) if name in _SUDDEN else ended
        if began < freeze.end and freeze.begin < until + _AROUND_S:
            cause: Cause = "path" if name in _NETWORK else "compositor" if name in _PROGRAM else "node"
            note(cause, f"fault {name}")
    for move in moves:
        if begin <= move.at <= end:
            note("path", f"{'→'.join(move.link)}: {move.previous} > {move.state} ({move.reason})")
    busy = [line["cpu"] for line in told.of("machine", begin, end)]
    if not found and busy and sum(busy) / len(busy) >= _BUSY_PERCENT:
        note("client", f"this machine had no CPU to spare ({sum(busy) / len(busy):.0f} %)")
    cause = next((each for each in CAUSES if each in found), "unknown")
    return Explained(freeze, cause, tuple(f"{each}: {text}" for each in CAUSES for text in found.get(each, ())))


def _of_viewer(told: Told, viewer: str, begin: float, end: float) -> list[Mapping[str, Any]]:
    wanted = ("late", "failed", "joined", "moved", "stats")
    return [
        line
        for line in told.clients
        if line["viewer"] == viewer
        and line["event"] in wanted
        and begin <= line["at"]
        and line["at"] - line.get("over", 0.0) <= end
    ]


def _from_client(line: Mapping[str, Any], length: float, note: Any) -> None:
    match line["event"]:
        case "late" if line["by"] > length * _LATE_SHARE:
            note("client", f"the viewer's process was {1000 * line['by']:.0f} ms late")
        case "failed":
            note("node", f"connection lost: {line['reason']}")
        case "joined" | "moved":
            note("node", f"{line['event']} {line['session'].split('~')[0]}")
        case "stats" if line.get("plis"):
            note("keyframe", f"{line['plis']} requests for a keyframe")


def _from_pictures(told: Told, freeze: Freeze, length: float, note: Any) -> None:
    """The painted clock says when the pictures around the gap were made, their width which layer they are of."""
    before = after = None
    for line in told.clients:
        if line["event"] != "frame" or (line["viewer"], line["publisher"]) != (freeze.viewer, freeze.publisher):
            continue
        if line["at"] <= freeze.begin:
            before = line
        elif line["at"] >= freeze.end:
            after = line
            break
    if before is None or after is None:
        return
    made = (after["clock_ms"] - before["clock_ms"]) % _CLOCK_MODULUS_MS / 1000
    if after["counter"] == before["counter"] + 1 and made > length * _LATE_SHARE:
        note("client", f"the host's own machine made no picture for {1000 * made:.0f} ms")
    if after["width"] != before["width"]:
        note("layer", f"width {before['width']} > {after['width']}")


def stream_of(freeze: Freeze) -> Stream:
    """Whose picture it was."""
    return Stream(freeze.viewer, freeze.publisher)

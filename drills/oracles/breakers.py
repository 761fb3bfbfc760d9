"""The breaker's oracle on recorded path samples: what should have happened when, beside what did.

`drills.oracle` goes through all reports for every judgement, and a minute has 36,000. So while the breaker
rests in one of its two lasting states, with no move and no fault near, reports of one path within 50 ms, the width of
the loss windows' buckets, are told as one; what could happen and be over within those is not judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drills.oracle import Forced, Move, Reported, Restored, Step, Woken, expected
from relay.errors import CostreamError
from relay.link.path import PathReport
from relay.settings import BreakerSettings

_BUCKET_US = 50_000
_FOR_EVER = 1 << 62
_FINE_BEFORE_US, _FINE_AFTER_US = 1_500_000, 1_000_000


class TraceError(CostreamError):
    """A trace cannot be read: no header, or a line that is none."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One link's breaker, at its origin `relay`. Times in microseconds of CLOCK_MONOTONIC."""

    relay: str
    peer: str
    settings: BreakerSettings
    steps: tuple[Step, ...]
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The first move at which breaker and oracle part; None for one that is missing."""

    relay: str
    peer: str
    made: Move | None
    wanted: Move | None

    def __str__(self) -> str:
        return f"{self.relay} → {self.peer}: made {_text(self.made)}, wanted {_text(self.wanted)}"


def read_traces(directory: Path) -> list[Trace]:
    """All traces below a directory, one directory per relay. Raises TraceError.

    A relay that was killed may have left one without a whole line.
    """
    return [read_trace(path) for path in sorted(directory.glob("*/*.jsonl")) if b"\n" in path.read_bytes()]


def read_trace(path: Path) -> Trace:
    """One file of `relay.link.trace`; a last line that was cut off is left out. Raises TraceError."""
    text = path.read_text(encoding="ascii")
    lines = text[: text.rfind("\n") + 1].splitlines()
    try:
        header = json.loads(lines[0])
        entries = [json.loads(line) for line in lines[1:]]
        moves = tuple(Move(*entry[1:]) for entry in entries if entry[0] == "m")
        steps = tuple(_step(entry) for entry in entries if entry[0] != "m")
        settings = BreakerSettings.model_validate(header["settings"])
        return Trace(path.parent.name, header["peer"], settings, steps, moves)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise TraceError(f"{path}: no trace of a breaker: {error}") from None


def _step(entry: Sequence[Any]) -> Step:
    match entry:
        case ["r", path, generation, now, rtt_us, *rest]:
            return Reported(path, PathReport(now, tuple(rtt_us), *rest), generation)
        case ["w", now]:
            return Woken(now)
        case ["f", now]:
            return Forced(now)
        case ["b", now]:
            return Restored(now)
        case _:
            raise ValueError(f"{entry!r} is no step")


def judge(trace: Trace, troubled: Iterable[int] = ()) -> Disagreement | None:
    """Replay a trace; `troubled` are the times of faults. None when breaker and oracle agree on every move."""
    wanted = expected(coarse(trace.steps, fine_spans(trace.moves, troubled)), trace.settings)
    if trace.steps:
        end = now_of(trace.steps[-1])
        wanted = [move for move in wanted if move.now < end or move in trace.moves]
    for index in range(max(len(wanted), len(trace.moves))):
        made = trace.moves[index] if index < len(trace.moves) else None
        want = wanted[index] if index < len(wanted) else None
        if made != want:
            return Disagreement(trace.relay, trace.peer, made, want)
    return None


def fine_spans(moves: Sequence[Move], troubled: Iterable[int]) -> list[tuple[int, int]]:
    """When every report counts: around faults and moves, and all the time in doubt or on trial, whose ends depend on
    what was seen since they began."""
    spans = [(at, at) for at in troubled]
    ends = [*(move.now for move in moves[1:]), _FOR_EVER]
    for move, end in zip(moves, ends, strict=False):
        spans.append((move.now, end if move.state in ("suspect", "half-open") else move.now))
    return [(begin - _FINE_BEFORE_US, end + _FINE_AFTER_US) for begin, end in spans]


def coarse(steps: Sequence[Step], fine: Sequence[tuple[int, int]]) -> Iterator[Step]:
    """The steps, with reports outside the spans put together."""
    held: dict[str, Reported] = {}
    for step in steps:
        now = now_of(step)
        is_calm = not any(begin <= now <= end for begin, end in fine)
        if is_calm and isinstance(step, Reported):
            before = held.get(step.path)
            if before is None or _may_join(before, step):
                held[step.path] = step if before is None else _joined(before, step)
                continue
        elif is_calm and isinstance(step, Woken) and held:
            continue
        yield from sorted(held.values(), key=now_of)
        held.clear()
        if is_calm and isinstance(step, Reported):
            held[step.path] = step
        else:
            yield step
    yield from sorted(held.values(), key=now_of)


def now_of(step: Step) -> int:
    """When it was, in microseconds."""
    return step.report.now if isinstance(step, Reported) else step.now


def _may_join(one: Reported, two: Reported) -> bool:
    a, b = one.report, two.report
    same = one.generation == two.generation and a.closed == b.closed
    ordered = b.now >= a.now and b.sent >= a.sent and b.acked >= a.acked
    return same and ordered and a.now // _BUCKET_US == b.now // _BUCKET_US


def _joined(one: Reported, two: Reported) -> Reported:
    a, b = one.report, two.report
    both = PathReport(b.now, a.rtt_us + b.rtt_us, b.sent, b.acked, b.lost, b.oldest_unacked, b.pto_us, b.closed)
    return Reported(two.path, both, two.generation)


def _text(move: Move | None) -> str:
    return "nothing" if move is None else f"{move.previous} > {move.state} ({move.reason}) at {move.now / 1e6:.3f} s"

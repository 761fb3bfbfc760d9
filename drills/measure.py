"""What viewers saw, from the lines that `drills.viewer` writes: freezes, lost, repeated and reordered frames, silence.

Everything here is pure. Times are seconds of CLOCK_MONOTONIC, as in the lines; a *stream* is one publisher's picture at
one viewer. Frames are told apart by the counter that is painted in them, so a frame counts once, whatever carried it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SILENT_DBFS = -50.0
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """A viewer, and the publisher whose pictures are meant."""

    viewer: str
    publisher: int


Seen = Mapping[Stream, Sequence[tuple[float, int]]]
"""When each frame came and its counter, in the order of coming."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What one stream was like in a span of time. `gap` is the longest time without a new frame, in seconds."""

    frames: int
    gap: float
    gap_at: float
    """When the longest gap began."""
    lost: tuple[int, ...]
    """Counters that another viewer saw and this one did not."""
    repeated: int
    """Frames that came again right after themselves."""
    reordered: int
    """Frames with a smaller counter than one before."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some durations in seconds; of none all are 0."""

    p50: float
    p99: float
    most: float


def frames(lines: Iterable[Line]) -> Seen:
    """Collect the frames whose mark could be read."""
    found: dict[Stream, list[tuple[float, int]]] = {}
    for line in lines:
        if line["event"] == "frame" and line["publisher"] is not None and line["counter"] is not None:
            stream = Stream(line["viewer"], line["publisher"])
            found.setdefault(stream, []).append((line["at"], line["counter"]))
    return found


def watched(seen: Seen, begin: float, end: float, reference: Seen | None = None) -> dict[Stream, Watched]:
    """Judge each stream from `begin` to `end`; one that was frozen all the time has a gap as long as that.

    A gap that began before `begin` counts as a whole. `reference` is what else is known to have been encoded: frames
    are lost when anybody saw them, there or in `seen`, and this stream did not.
    """
    encoded = _encoded(seen, reference or {})
    return {
        stream: _judge(of_stream, begin, end, encoded[stream.publisher])
        for stream, of_stream in seen.items()
        if any(at < end for at, _ in of_stream)
    }


def _encoded(*all_of: Seen) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for seen in all_of:
        for stream, of_stream in seen.items():
            found.setdefault(stream.publisher, set()).update(counter for _, counter in of_stream)
    return found


def _judge(of_stream: Sequence[tuple[float, int]], begin: float, end: float, encoded: set[int]) -> Watched:
    newest, newest_at = -1, begin
    gap, gap_at = 0.0, begin
    repeated = reordered = 0
    within: list[int] = []
    for at, counter in of_stream:
        if at >= end:
            break
        if at >= begin:
            within.append(counter)
            repeated += counter == newest
            reordered += counter < newest
        if counter > newest:
            if at >= begin and at - newest_at > gap:
                gap, gap_at = at - newest_at, newest_at
            newest, newest_at = counter, at
    if end - newest_at > gap:
        gap, gap_at = end - newest_at, newest_at
    least, most = min(within, default=0), max(within, default=0)
    lost = {counter for counter in encoded if least <= counter < most}.difference(counter for _, counter in of_stream)
    return Watched(len(within), gap, gap_at, tuple(sorted(lost)), repeated, reordered)


def silences(lines: Iterable[Line], begin: float, end: float, *, below: float = SILENT_DBFS) -> dict[str, float]:
    """Return for each viewer the longest time without sound on any of its slots, in seconds.

    Slots that never had sound do not count. A receiver conceals what is missing for a while, so this says what can be
    heard, not what was lost.
    """
    heard: dict[tuple[str, int], list[float]] = {}
    for line in lines:
        if line["event"] == "sound" and line["level"] >= below and line["at"] < end:
            heard.setdefault((line["viewer"], line["slot"]), []).append(line["at"])
    found: dict[str, float] = {}
    for (viewer, _), times in heard.items():
        marks = [*(at for at in times if at >= begin), end]
        before = [at for at in times if at < begin]
        marks.insert(0, before[-1] if before else begin)
        longest = max((later - earlier for earlier, later in itertools.pairwise(marks)), default=0.0)
        found[viewer] = max(found.get(viewer, 0.0), longest)
    return found


def worst(judged: Mapping[Stream, Watched]) -> dict[str, float]:
    """Return the longest gap of each viewer, whichever of its pictures froze."""
    found: dict[str, float] = {}
    for stream, of_stream in judged.items():
        found[stream.viewer] = max(found.get(stream.viewer, 0.0), of_stream.gap)
    return found


def spread(durations: Iterable[float]) -> Spread:
    """Return the middle, the 99th percentile (nearest rank) and the greatest of some durations."""
    ordered = sorted(durations)
    if not ordered:
        return Spread(0.0, 0.0, 0.0)
    return Spread(_rank(ordered, 0.50), _rank(ordered, 0.99), ordered[-1])


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]

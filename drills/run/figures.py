"""Figures of a span of time, from what clients and probes wrote. Pure; names: `drills.scenario.figures`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drills.measure import Seen, Stream, silences, watched, worst
from drills.run.spread import spread_ms

Figures = dict[str, float | None]
_FRESH_S = 1.0
_CLOCK_MODULUS_MS = 1 << 24  # the painted clock has 24 bits
_HALF_MS = _CLOCK_MODULUS_MS // 2
_PER_MS = 64
_SERVER_ERROR = 500
_REFUSED = (307, 503)  # sent to another relay, or told to come back later


@dataclass(slots=True)
class Told:
    """What a drill knows: lines of clients and of the record, and who was to see what."""

    clients: Sequence[Mapping[str, Any]]
    record: Sequence[Mapping[str, Any]]
    expected: set[tuple[str, int]]
    near: set[str]
    wall: float
    """Wall clock minus CLOCK_MONOTONIC: painted clocks are wall clocks."""
    seen: Seen = field(init=False)

    def __post_init__(self) -> None:
        self.seen = pictures(self.clients)

    def of(self, kind: str, begin: float, end: float) -> list[Mapping[str, Any]]:
        """The record's lines of a kind in a span."""
        return [line for line in self.record if line["kind"] == kind and begin <= line["at"] < end]


def pictures(lines: Iterable[Mapping[str, Any]]) -> Seen:
    """The pictures that could be read, each known by the time (ms) at which it was painted and the end of its counter.

    Counters begin again when a host comes back or moves, the painted clock goes on; a host that was late paints two
    pictures within a millisecond.
    """
    base: int | None = None
    found: dict[Stream, list[tuple[float, int]]] = {}
    for line in lines:
        if line["event"] == "frame" and line["publisher"] is not None and line["clock_ms"] is not None:
            base = line["clock_ms"] if base is None else base
            since = (line["clock_ms"] - base + _HALF_MS) % _CLOCK_MODULUS_MS  # the oldest may come later
            known = since * _PER_MS + line["counter"] % _PER_MS
            found.setdefault(Stream(line["viewer"], line["publisher"]), []).append((line["at"], known))
    return found


def client_figures(told: Told, begin: float, end: float) -> Figures:
    """What viewers and hosts saw from `begin` to `end`."""
    far = {Stream(*pair): told.seen.get(Stream(*pair), ()) for pair in told.expected if pair[0] not in told.near}
    near = {stream: of for stream, of in told.seen.items() if stream.viewer in told.near}
    judged = watched(far, begin, end, near)
    gaps = [judged[stream].gap if stream in judged else end - begin for stream in far]
    found: Figures = {f"freeze.{part}": value for part, value in spread_ms(gaps).items()}
    heard = {who: gap for who, gap in silences(told.clients, begin, end).items() if who not in told.near}
    found |= {f"audio.gap.{part}": value for part, value in spread_ms(heard.values()).items()}
    found["frames.lost"] = sum(len(each.lost) for each in judged.values())
    found["frames.repeated"] = sum(each.repeated for each in judged.values())
    found["frames.reordered"] = sum(each.reordered for each in judged.values())
    found |= _presence(told, far, end)
    joins = [line for line in told.clients if begin <= line["at"] < end]
    took = [line["took"] for line in joins if line["event"] == "joined"]
    found |= {f"join.{part}": value for part, value in spread_ms(took).items()}
    found["rejoins"] = sum(line["event"] == "failed" for line in joins)
    return found


def _presence(told: Told, far: Seen, end: float) -> Figures:
    """Who plays at the end."""
    fresh = {stream for stream, of in far.items() if any(end - _FRESH_S <= at < end for at, _ in of)}
    hosts = {publisher for _, publisher in told.expected}
    live = {stream.publisher for stream in fresh}
    return {
        "viewers.playing": 100 * len(fresh) / len(far) if far else None,
        "publishers.live": 100 * len(live) / len(hosts) if hosts else None,
    }


def probe_figures(told: Told, begin: float, end: float) -> Figures:
    """What the drill's own probes measured."""
    asked = told.of("api", begin, end)
    found: Figures = {f"api.{part}": value for part, value in spread_ms(line["took"] for line in asked).items()}
    bad = sum(not line["status"] or line["status"] >= _SERVER_ERROR for line in asked)
    found["api.errors"] = 100 * bad / len(asked) if asked else None
    events = told.of("event", begin, end)
    found |= {f"event.{part}": value for part, value in spread_ms(line["took"] for line in events).items()}
    found |= {f"sync.{part}": value for part, value in spread_ms(_apart(told, events)).items()}
    newcomers = told.of("newcomer", begin, end)
    refused = [line["took"] for line in newcomers if line["status"] in _REFUSED]
    found["refused.p99"] = spread_ms(refused)["p99"]
    found["refusals"] = len(refused)
    free = [line["slab_free"] / line["slab"] for line in told.of("sample", begin, end) if line.get("slab")]
    found["buffers.free.min"] = 100 * min(free) if free else None
    return found


def _apart(told: Told, events: Iterable[Mapping[str, Any]]) -> list[float]:
    """For each event and viewer: how far its arrival is from that of the first picture painted after it was sent."""
    painted: dict[str, list[tuple[int, float]]] = {}
    for line in told.clients:
        if line["event"] == "frame" and line["clock_ms"] is not None and line["viewer"] not in told.near:
            painted.setdefault(line["viewer"], []).append((line["clock_ms"], line["at"]))
    found = []
    for event in events:
        moment = round((event["sent"] + told.wall) * 1000) % _CLOCK_MODULUS_MS
        for of_viewer in painted.values():
            shown = [at for clock, at in of_viewer if 0 <= (clock - moment) % _CLOCK_MODULUS_MS < 2000]
            if shown:
                found.append(abs(min(shown) - event["at"]))
    return found


@dataclass(frozen=True, slots=True)
class Freeze:
    """A time without a new picture, longer than a viewer should notice."""

    viewer: str
    publisher: int
    begin: float
    end: float


def freezes(told: Told, begin: float, end: float, longer: float) -> list[Freeze]:
    """All of them in a span, in the order of time; one that has not ended, ends with the span."""
    found = []
    for viewer, publisher in told.expected:
        if viewer in told.near:
            continue
        newest = -1
        times = [begin]
        for at, counter in told.seen.get(Stream(viewer, publisher), ()):
            if counter > newest or at < begin:
                newest = counter
                if at < begin:
                    times[0] = at
                elif at < end:
                    times.append(at)
        found += [Freeze(viewer, publisher, a, b) for a, b in itertools.pairwise([*times, end]) if b - a > longer]
    return sorted(found, key=lambda each: each.begin)


def worst_of_viewers(told: Told, begin: float, end: float) -> dict[str, float]:
    """The longest freeze of each viewer, seconds; those at the hosts' relay too."""
    return worst(watched(told.seen, begin, end))

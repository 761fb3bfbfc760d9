"""Figures of programs and PKs in a span of time. Pure; names: `drills.scenario.figures`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from drills.run.figures import Figures, Told

_RATE = 48_000  # samples of sound a second
_FRESH_S = 1.0


def room_figures(told: Told, begin: float, end: float) -> Figures:
    """What rooms were told and showed from `begin` to `end`."""
    return {**_sound(told, begin, end), **_program(told, begin, end), **_pk(told, begin, end)}


def _sound(told: Told, begin: float, end: float) -> Figures:
    """How much sound each viewer's libwebrtc made up, the most of them."""
    found: defaultdict[str, int] = defaultdict(int)
    for line in told.clients:
        if line["event"] == "stats" and begin <= line["at"] < end and line["viewer"] not in told.near:
            found[line["viewer"]] += line.get("concealed", 0)
    return {"audio.concealed.max": round(1000 * max(found.values()) / _RATE, 1) if found else None}


def _program(told: Told, begin: float, end: float) -> Figures:
    events = told.of("room", begin, end)
    replaced = [line["data"].get("part") for line in events if line["type"] == "program.recovered"]
    return {
        "mixers.replaced": replaced.count("audio"),
        "compositors.replaced": replaced.count("video"),
        "programs.degraded": sum(line["type"] == "program.degraded" for line in events),
    }


def _pk(told: Told, begin: float, end: float) -> Figures:
    looks = told.of("pk", begin, end)
    if not looks:
        return dict.fromkeys(("pk.apart.max", "pk.shown", "pk.seen", "pk.unequal", "pk.ended"))
    events = told.of("room", begin, end)
    return {
        "pk.apart.max": round(1000 * _apart(told, begin, end), 1),
        "pk.shown": 100 * sum(line["shows"] is True for line in looks) / len(looks),
        "pk.seen": _seen(told, end),
        "pk.unequal": _unequal(told, begin, end),
        "pk.ended": len({line["data"]["pk"] for line in events if line["type"] == "pk.ended"}),
    }


def _apart(told: Told, begin: float, end: float) -> float:
    """The longest time in which one viewer was shown both stages and another was not, whatever their rooms and relays.

    Of each viewer the last that was said counts.
    """
    shows: dict[str, bool] = {}
    since: float | None = None
    longest = 0.0
    for line in told.of("pk", 0.0, end):
        if line["shows"] is not None:
            shows[line["viewer"]] = line["shows"]
        if since is not None and line["at"] >= begin:
            longest = max(longest, line["at"] - max(since, begin))
        if len(set(shows.values())) < 2:
            since = None
        elif since is None:
            since = line["at"]
    return longest


def _seen(told: Told, end: float) -> float | None:
    """Of all pairs of a viewer and a host of the other room: how many have new pictures at the end."""
    viewers = {viewer for viewer, _ in told.expected} - told.near
    hosts = {publisher for _, publisher in told.expected}
    wanted = {(viewer, host) for viewer in viewers for host in hosts} - told.expected
    if not wanted:
        return None
    fresh = {
        (stream.viewer, stream.publisher)
        for stream, seen in told.seen.items()
        if any(end - _FRESH_S <= at < end for at, _ in seen)
    }
    return 100 * len(wanted & fresh) / len(wanted)


def _unequal(told: Told, begin: float, end: float) -> int:
    """Events of PKs that one room was told and the other one was not, or not with the same words."""
    heard: defaultdict[str, Counter[str]] = defaultdict(Counter)
    rooms = {line["room"] for line in told.record if line["kind"] == "pk"}
    for line in told.of("room", begin, end):
        if line["type"].startswith("pk."):
            heard[line["room"]][f"{line['type']} {json.dumps(line['data'], sort_keys=True)}"] += 1
    all_of = [heard[room] for room in rooms]
    every = Counter[str]()
    for one in all_of:
        every |= one
    return sum((every - one).total() for one in all_of)

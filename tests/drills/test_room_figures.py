"""Figures of programs and PKs, from lines that could have been written."""

from __future__ import annotations

from typing import Any

import pytest

from drills.run.figures import Told
from drills.run.room_figures import room_figures
from drills.scenario.figures import FIGURES

RED, BLUE = "red", "blue"
ROOM_OF = {"rita": RED, "bob": BLUE}
EXPECTED = {("rita", 1), ("bob", 2), ("near", 1)}
STARTED = {"pk": "p1", "starts_at": "7"}


def told(record: list[dict[str, Any]], clients: list[dict[str, Any]] | None = None) -> Told:
    lines = sorted(record, key=lambda line: line["at"])
    return Told(clients or [], lines, EXPECTED, {"near"}, 0.0)


def looks(viewer: str, shows: dict[tuple[float, float], bool | None]) -> list[dict[str, Any]]:
    """Ten a second; what is in no span is shown."""
    times = [number / 10 for number in range(100)]
    found = {at: next((told for (a, b), told in shows.items() if a <= at < b), True) for at in times}
    return [
        {"at": at, "kind": "pk", "room": ROOM_OF[viewer], "viewer": viewer, "shows": value}
        for at, value in found.items()
    ]


def event(at: float, room: str, kind: str, **data: Any) -> dict[str, Any]:
    return {"at": at, "kind": "room", "room": room, "type": kind, "data": data}


def test_both_or_neither() -> None:
    same: dict[tuple[float, float], bool | None] = {(4.0, 6.0): False}
    found = room_figures(told(looks("rita", same) + looks("bob", same)), 1.0, 9.0)
    assert found["pk.apart.max"] == pytest.approx(0, abs=1)
    assert found["pk.shown"] == pytest.approx(75, abs=1)
    late = looks("rita", {(4.0, 6.0): False}) + looks("bob", {(4.0, 4.8): None, (4.8, 6.0): False})
    assert room_figures(told(late), 1.0, 9.0)["pk.apart.max"] == pytest.approx(800, abs=101), "no answer: as it was"
    apart = told(looks("rita", {(4.0, 9.9): False}) + looks("bob", {}))
    assert room_figures(apart, 1.0, 9.0)["pk.apart.max"] == pytest.approx(4900, abs=101)
    assert room_figures(apart, 8.0, 9.0)["pk.apart.max"] == pytest.approx(900, abs=101), "only what is in the phase"
    assert room_figures(apart, 1.0, 3.0)["pk.apart.max"] == 0


def test_rooms_that_were_not_told_the_same() -> None:
    seen = looks("rita", {}) + looks("bob", {})
    both = [event(2.0, room, "pk.started", **STARTED) for room in (RED, BLUE)]
    ended = [event(5.0, room, "pk.ended", pk="p1", reason="time") for room in (RED, BLUE)]
    equal = room_figures(told(seen + both + ended), 0.0, 9.0)
    assert (equal["pk.unequal"], equal["pk.ended"]) == (0, 1)
    assert room_figures(told(seen + both + ended[:1]), 0.0, 9.0)["pk.unequal"] == 1
    assert room_figures(told(seen + both[:1] + ended), 0.0, 9.0)["pk.unequal"] == 1
    other = event(5.0, BLUE, "pk.ended", pk="p1", reason="away")
    assert room_figures(told(seen + both + [ended[0], other]), 0.0, 9.0)["pk.unequal"] == 2
    twice = room_figures(told(seen + both + ended + ended[:1]), 0.0, 9.0)
    assert twice["pk.unequal"] == 1, "an event that one room heard twice"


def test_who_sees_the_other_room() -> None:
    pairs = [("rita", 1), ("rita", 2), ("bob", 2)]
    clients = [
        {"at": 8.5, "viewer": viewer, "event": "frame", "publisher": number, "counter": 3, "clock_ms": 8500}
        for viewer, number in pairs
    ]
    assert room_figures(told(looks("rita", {}), clients), 1.0, 9.0)["pk.seen"] == 50
    assert room_figures(told(looks("rita", {}), clients), 1.0, 9.9)["pk.seen"] == 0


def test_a_drill_without_a_pk_says_nothing_of_it() -> None:
    found = room_figures(told([]), 1.0, 9.0)
    assert {name for name, value in found.items() if value is None} == {
        "pk.apart.max", "pk.shown", "pk.seen", "pk.unequal", "pk.ended", "audio.concealed.max",
    }  # fmt: skip
    assert set(found) <= set(FIGURES)


def test_processes_that_were_replaced_and_sound_that_was_made_up() -> None:
    record = [
        event(2.0, RED, "program.interrupted", part="audio", reason="killed"),
        event(2.1, RED, "program.recovered", part="audio", gap_ms=None),
        event(3.1, RED, "program.recovered", part="video", gap_ms=80),
        event(4.0, RED, "program.degraded", fps=15.0, width=640, height=360),
        event(4.5, BLUE, "program.degraded", fps=15.0, width=640, height=360),
        event(5.0, RED, "program.restored"),
        event(9.5, RED, "program.recovered", part="video", gap_ms=80),
    ]
    stats = [
        {"at": at, "viewer": viewer, "event": "stats", "over": 1.0, "concealed": samples}
        for at, viewer, samples in ((0.5, "rita", 48_000), (2.5, "rita", 2880), (3.5, "rita", 480), (2.5, "near", 9600))
    ]
    found = room_figures(told(record, stats), 1.0, 9.0)
    assert (found["mixers.replaced"], found["compositors.replaced"]) == (1, 1)
    assert found["programs.degraded"] == 2
    assert found["audio.concealed.max"] == 70

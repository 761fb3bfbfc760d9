"""Figures of a drill and causes of freezes, from lines that could have been written."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from drills.run.breakers import BreakerMove, breaker_figures
from drills.run.causes import explain
from drills.run.figures import Freeze, Told, client_figures, freezes, probe_figures
from drills.run.spread import spread_ms

LINK = ("relay-a", "relay-b")
HOLE = (4.0, 5.2)
"""When nothing comes."""


def frame(at: float, number: int, *, viewer: str = "v", width: int = 320, made: float | None = None) -> dict[str, Any]:
    clock = round(1000 * (at if made is None else made))
    return {
        "at": at, "viewer": viewer, "event": "frame", "slot": 0, "publisher": 1, "counter": number, "clock_ms": clock,
        "width": width,
    }  # fmt: skip


def show(hole: tuple[float, float] = HOLE, width: int = 320, viewer: str = "v", **kept: Any) -> list[dict[str, Any]]:
    """Ten seconds of 20 pictures; none within `hole`, and after it they are `width` wide."""
    times = [(at / 20, number) for number, at in enumerate(range(200))]
    return [
        frame(at, number, viewer=viewer, width=width if at >= hole[1] else 320, **kept)
        for at, number in times
        if not hole[0] < at < hole[1]
    ]


def told(clients: list[dict[str, Any]], record: list[dict[str, Any]] | None = None) -> Told:
    near = show((0.0, 0.0), viewer="near")
    lines = sorted([*clients, *near], key=lambda line: line["at"])
    return Told(lines, record or [], {("v", 1), ("near", 1)}, {"near"}, 0.0)


def test_what_a_viewer_saw() -> None:
    found = client_figures(told(show()), 1.0, 9.0)
    assert found["freeze.max"] == found["freeze.p50"] == pytest.approx(1200, rel=0.01)
    assert (found["frames.lost"], found["frames.repeated"], found["frames.reordered"]) == (23, 0, 0)
    assert (found["viewers.playing"], found["publishers.live"], found["rejoins"]) == (100, 100, 0)


def test_how_full_the_packet_buffers_were() -> None:
    samples: list[dict[str, Any]] = [
        {"at": at, "kind": "sample", "member": member, "there": True, "slab": 200, "slab_free": free}
        for at, member, free in ((2.0, "relay-a", 200), (2.5, "relay-b", 30), (3.0, "relay-a", 50), (9.5, "relay-a", 0))
    ]
    samples.insert(1, {"at": 2.2, "kind": "sample", "member": "relay-b", "there": False})
    assert probe_figures(told([], samples), 1.0, 9.0)["buffers.free.min"] == 15
    assert probe_figures(told([], samples[1:2]), 1.0, 9.0)["buffers.free.min"] is None


def test_who_sees_nothing_at_all_is_counted() -> None:
    found = client_figures(told([]), 1.0, 9.0)
    assert found["freeze.max"] == pytest.approx(8000, rel=0.01)
    assert (found["viewers.playing"], found["publishers.live"]) == (0, 0)
    assert spread_ms([]) == {"p50": None, "p95": None, "p99": None, "max": None}


def test_a_host_who_comes_back_counts_anew_and_is_not_repeated() -> None:
    again = [frame(10 + at / 20, number) for number, at in enumerate(range(40))]
    found = client_figures(told([*show((0.0, 0.0)), *again]), 1.0, 11.9)
    assert (found["frames.repeated"], found["frames.reordered"]) == (0, 0)
    assert found["freeze.max"] == pytest.approx(50, abs=2)


def test_what_the_probes_measured() -> None:
    record: list[dict[str, Any]] = [
        {"at": 2 + n / 10, "kind": "api", "took": 0.02, "status": 200, "member": "s"} for n in range(9)
    ]
    record.append({"at": 3.0, "kind": "api", "took": 5.0, "status": 0, "member": "s"})
    record.append({"at": 3.0, "kind": "event", "sent": 2.975, "took": 0.025})
    record += [{"at": 3.0, "kind": "newcomer", "took": 0.01 * n, "status": (201, 307, 503)[n]} for n in range(3)]
    found = probe_figures(told(show((0.0, 0.0)), record), 1.0, 9.0)
    assert found["api.errors"] == 10
    assert found["api.max"] == pytest.approx(5000, rel=0.01)
    assert found["event.max"] == pytest.approx(25, rel=0.01)
    assert found["sync.max"] is not None
    assert found["sync.max"] <= 26
    assert (found["refusals"], found["refused.p99"]) == (2, pytest.approx(20, rel=0.01))


# --- causes -----------------------------------------------------------------------------------------------------------


def test_freezes_are_found_where_they_are() -> None:
    found = freezes(told(show()), 1.0, 9.0, 0.25)
    assert found == [Freeze("v", 1, 4.0, pytest.approx(5.2))]
    (whole,) = freezes(told([]), 1.0, 9.0, 0.25)
    assert (whole.begin, whole.end) == (1.0, 9.0)


MOVE = BreakerMove(4.3, LINK, "closed", "suspect", "doubted: silence")
PLANTED: list[tuple[str, dict[str, Any]]] = [
    ("unknown", {}),
    ("client", {"record": [{"at": 4.5, "kind": "machine", "late": 0.9, "cpu": 50}]}),
    ("client", {"record": [{"at": 4.5, "kind": "machine", "late": 0.0, "cpu": 100}]}),
    ("client", {"lines": [{"at": 5.1, "viewer": "v", "event": "late", "by": 1.0}]}),
    ("node", {"lines": [{"at": 5.0, "viewer": "v", "event": "failed", "reason": "gone"}]}),
    ("node", {"faults": [(4.0, 6.0, "kill")]}),
    ("node", {"faults": [(4.0, 6.0, "kill-links")]}),
    ("path", {"faults": [(4.0, 6.0, "partition")]}),
    ("path", {"moves": [MOVE]}),
    ("compositor", {"faults": [(4.0, 6.0, "kill-compositor")]}),
    ("layer", {"width": 160}),
    ("keyframe", {"lines": [{"at": 5.3, "viewer": "v", "event": "stats", "over": 1.0, "plis": 2}]}),
    ("unknown", {"lines": [{"at": 5.1, "viewer": "other", "event": "late", "by": 1.0}]}),
    ("unknown", {"moves": [BreakerMove(7.0, LINK, "closed", "suspect", "doubted: loss")]}),
    ("client", {"moves": [MOVE], "lines": [{"at": 5.1, "viewer": "v", "event": "late", "by": 1.0}]}),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "planted"), PLANTED)
def test_a_freeze_gets_its_cause(cause: str, planted: dict[str, Any]) -> None:
    lines = [*show(width=planted.get("width", 320)), *planted.get("lines", [])]
    everything = told(lines, planted.get("record"))
    (freeze,) = freezes(everything, 1.0, 9.0, 0.25)
    found = explain(freeze, everything, planted.get("moves", []), planted.get("faults", []))
    assert found.cause == cause, found.evidence
    assert (found.evidence == ()) == (cause == "unknown")


def test_a_host_whose_machine_stood_still_is_no_fault_of_the_cluster() -> None:
    early = [frame(at / 20, at) for at in range(81)]
    late = [frame(5.2 + n / 20, 81 + n) for n in range(76)]
    everything = told([*early, *late])
    (freeze,) = freezes(everything, 1.0, 8.9, 0.25)
    found = explain(freeze, everything, [MOVE], [])
    assert found.cause == "client"
    assert "made no picture for 1200 ms" in found.evidence[0]


# --- breakers ---------------------------------------------------------------------------------------------------------


def moves(*told: tuple[float, str], link: tuple[str, str] = LINK) -> list[BreakerMove]:
    states = ["closed", *(state for _, state in told)]
    return [BreakerMove(at, link, a, b, "") for (at, _), (a, b) in zip(told, itertools.pairwise(states), strict=True)]


def test_what_the_breakers_did() -> None:
    first = moves((4.1, "suspect"), (4.3, "open"), (9.0, "half-open"), (9.5, "closed"))
    second = moves((4.2, "suspect"), (4.5, "open"), (9.2, "half-open"), (9.9, "closed"), link=("relay-a", "relay-c"))
    found = breaker_figures(sorted(first + second, key=lambda each: each.at), [(4.0, 8.0)], 0.0, 20.0)
    assert found == {
        "detect.max": 200,
        "trip.max": 500,
        "return.max": 1900,
        "switches.per_minute": 2,
        "breaker.false_trips": 0,
    }


def test_what_never_was_is_unknown_and_a_trip_without_a_fault_is_false() -> None:
    nothing = breaker_figures([], [(4.0, 8.0)], 0.0, 20.0)
    assert (nothing["detect.max"], nothing["return.max"], nothing["switches.per_minute"]) == (None, None, 0)
    astray = breaker_figures(moves((2.0, "suspect"), (2.1, "open")), [(4.0, 8.0)], 0.0, 20.0)
    assert (astray["breaker.false_trips"], astray["trip.max"], astray["return.max"]) == (1, None, None)

"""Each oracle of a drill finds a violation that was planted, and nothing in what is sound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drills.oracle import Forced, Move, Reported, Restored, Step, Woken
from drills.oracles import breakers, conservation, owners
from drills.run.metrics import read_metrics
from relay.cluster.leases import LeaseEntry
from relay.link.path import PathReport
from relay.link.trace import TracedBreaker, breaker_of
from relay.settings import BreakerSettings
from tests.link.traces import random_story

MS, SECOND = 1000, 1_000_000


def told(breaker: TracedBreaker, steps: list[Step]) -> None:
    for step in steps:
        match step:
            case Reported(path, report, generation):
                breaker.report(path, report, generation)
            case Woken(now):
                breaker.handle_timeout(now)
            case Forced(now):
                breaker.force_open(now)
            case Restored(now):
                breaker.reset(now)
        breaker.events()


def a_storm(seconds: int = 10) -> list[Step]:
    """Reports of both paths every 10 ms; from the third second on, round trips of 300 ms on the primary."""
    steps: list[Step] = []
    for now in range(SECOND, seconds * SECOND, 10 * MS):
        rtt = 300 * MS if 3 * SECOND < now < 7 * SECOND else 20 * MS
        sent = now // (5 * MS)
        steps += [
            Reported("primary", PathReport(now, (rtt,), sent, sent, 0, None, 27 * MS)),
            Reported("backup", PathReport(now, (20 * MS,), sent, sent, 0, None, 27 * MS)),
            Woken(now),
        ]
    return steps


def traced(tmp_path: Path, steps: list[Step], **settings: Any) -> breakers.Trace:
    directory = tmp_path / "relay-a"
    directory.mkdir(exist_ok=True)
    breaker = breaker_of(BreakerSettings(trace_dir=str(directory), **settings), "../odd/link" * 2, "relay-b")
    assert isinstance(breaker, TracedBreaker)
    told(breaker, steps)
    (found,) = breakers.read_traces(tmp_path)
    return found


def test_a_recorded_breaker_agrees_with_the_oracle(tmp_path: Path) -> None:
    trace = traced(tmp_path, a_storm())
    assert (trace.relay, trace.peer, len(trace.steps)) == ("relay-a", "relay-b", len(a_storm()))
    assert [move.state for move in trace.moves][:2] == ["suspect", "open"]
    assert len(list(breakers.coarse(trace.steps, breakers.fine_spans(trace.moves, [])))) < len(trace.steps) * 0.8
    assert breakers.judge(trace) is None


def test_random_stories_survive_the_file(tmp_path: Path) -> None:
    for seed in range(20):
        settings, steps, moves = random_story(seed)
        directory = tmp_path / f"relay-{seed}"
        directory.mkdir()
        told(TracedBreaker(settings.model_copy(update={"trace_dir": str(directory)}), "link", "peer"), steps)
        trace = breakers.read_trace(directory / "link.jsonl")
        assert trace.steps == tuple(steps)
        assert [move.state for move in trace.moves] == [move.state.value for move in moves]
        assert breakers.judge(trace, [breakers.now_of(step) for step in steps]) is None


@pytest.mark.parametrize("plant", ["late", "missing", "wrong reason", "too many"])
def test_a_breaker_that_did_something_else_is_found(tmp_path: Path, plant: str) -> None:
    trace = traced(tmp_path, a_storm())
    first, *rest = trace.moves
    moves = {
        "late": [replace(first, now=first.now + 10 * MS), *rest],
        "missing": rest,
        "wrong reason": [replace(first, reason="doubted: loss"), *rest],
        "too many": [Move(2 * SECOND, "closed", "suspect", "doubted: rtt"), first, *rest],
    }[plant]
    found = breakers.judge(replace(trace, moves=tuple(moves)))
    assert found is not None
    assert "relay-a → relay-b: made" in str(found)


def test_a_trace_that_is_none(tmp_path: Path) -> None:
    for text in ("", "{}\n", "[1]\n", '{"peer": "b", "settings": {}}\n["x"]\n', '{"peer": "b", "settings": 1}\n'):
        path = tmp_path / "t.jsonl"
        path.write_text(text)
        with pytest.raises(breakers.TraceError, match=r"t\.jsonl"):
            breakers.read_trace(path)
    (tmp_path / "relay-a").mkdir()
    (tmp_path / "relay-a" / "killed.jsonl").write_text('{"peer')
    assert breakers.read_traces(tmp_path) == []
    path.write_text(json.dumps({"peer": "b", "settings": {}}) + '\n["w", 1]\n["w", ')
    assert breakers.read_trace(path).steps == (Woken(1),), "a line that was cut off is left out"


def test_a_trace_that_cannot_be_written_costs_the_link_nothing(tmp_path: Path) -> None:
    breaker = breaker_of(BreakerSettings(trace_dir=str(tmp_path / "nowhere")), "link", "peer")
    breaker.handle_timeout(SECOND)
    assert breaker.carrying == ("primary",)


# --- owners -----------------------------------------------------------------------------------------------------------


def lease(kind: str, node: str, epoch: int, at: int, until: int, publication: str = "p") -> LeaseEntry:
    return LeaseEntry(kind, publication, node, epoch, at, until)


SOUND = [
    lease("acquired:free", "a", 1, 0, 2000),
    lease("renewed", "a", 1, 1000, 3000),
    lease("acquired:expired", "b", 2, 3000, 5000),
    lease("acquired:free", "a", 1, 0, 9000, "q"),
]


def test_two_owners_are_found() -> None:
    assert owners.violations({"room": SOUND}) == []
    early = [*SOUND[:2], lease("acquired:expired", "b", 2, 2999, 5000), SOUND[3]]
    (found,) = owners.violations({"sound": SOUND, "room": early})
    assert found.startswith("room: ")
    assert len(owners.violations({"room": [*SOUND, lease("acquired:free", "c", 2, 9000, 9999)]})) == 1


# --- conservation -----------------------------------------------------------------------------------------------------

LANE = {"src": "10.0.0.1", "dst": "10.0.0.2", "entered": 100, "duplicated": 2, "black_holed": 5, "lost": 7,
        "overflowed": 3, "delivered": 80, "undeliverable": 4, "in_flight": 3}  # fmt: skip


def test_a_packet_that_vanishes_in_the_fabric_is_found() -> None:
    assert conservation.of_lanes([LANE]) == []
    (found,) = conservation.of_lanes([LANE, {**LANE, "delivered": 79}])
    assert (str(found), found.packets) == ("fabric 10.0.0.1 → 10.0.0.2: 1 packets unaccounted for", 1)


def node(peer: str, role: str, **counts: int) -> str:
    lines = ["# TYPE costream_link_packets counter"]
    for what, count in counts.items():
        lines.append(f'costream_link_packets_total{{peer="{peer}",role="{role}",link="l1",what="{what}"}} {count}')
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("got", "missing"), [(900, 0), (899, 0), (700, 200)])
def test_packets_that_a_link_loses_without_a_word_are_found(got: int, missing: int) -> None:
    nodes = {
        "relay-a": read_metrics(node("relay-b", "origin", packets=1000, skipped=40)),
        "relay-b": read_metrics(node("relay-a", "subscriber", packets=got, lost=60)),
    }
    found = conservation.of_links(nodes, nodes)
    assert [each.packets for each in found] == ([missing] if missing else [])
    assert conservation.of_links(nodes, {"relay-a": nodes["relay-a"]}) == [], (
        "a link whose other end is gone says nothing"
    )

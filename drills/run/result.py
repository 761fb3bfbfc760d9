"""The result of a drill: figures of each phase, hypotheses held or not, verdicts of the oracles, freezes with causes.

`to_json` is what report, comparison and JUnit are made of; nothing in them is computed anew.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from drills.oracles import breakers, conservation, owners
from drills.record import Recorder
from drills.run.breakers import BreakerMove, Span, breaker_figures
from drills.run.causes import Explained, explain
from drills.run.figures import Figures, Told, client_figures, freezes, probe_figures
from drills.run.room_figures import room_figures
from drills.run.runner import Evidence
from drills.run.series import series
from drills.scenario.loading import as_json
from drills.scenario.model import Phase, Scenario

FREEZE_S = 0.25
"""Longer than this without a new picture counts as a freeze that needs a cause (five pictures of 20 a second)."""
VERSION = 1
_ALIVE_S = 1.0  # a link whose breaker was told nothing for so long is gone


@dataclass(frozen=True, slots=True)
class Verdict:
    """A hypothesis: `value` in the figure's unit, None when it could not be measured (then it does not hold)."""

    phase: Phase
    figure: str
    bound: str
    value: float | None
    holds: bool


@dataclass(slots=True)
class Result:
    """See the module."""

    name: str
    scenario: Mapping[str, Any]
    seed: int
    command: str
    began: str
    """UTC, ISO 8601."""
    machine: str
    dimension: str
    failure: str
    verdicts: list[Verdict]
    figures: dict[str, Figures]
    oracles: dict[str, list[str]]
    causes: dict[str, int]
    freezes: list[dict[str, Any]]
    left_out: list[str] = field(default_factory=list)
    """What the scenario would have liked to have and this machine had not; what held, held without it."""
    timeline: dict[str, Any] = field(default_factory=dict)
    offset: float = 0.0
    """When the timeline begins, in the seconds of the freezes."""

    @property
    def passed(self) -> bool:
        """Whether the drill was carried out and all that was supposed held."""
        return not self.failure and all(verdict.holds for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"version": VERSION, "passed": self.passed, **asdict(self)}


def assess(
    scenario: Scenario, name: str, evidence: Evidence, record: Recorder, directory: Path, command: str
) -> Result:
    """Measure and judge what was recorded."""
    told = Told(evidence.clients, list(record.lines), evidence.expected, evidence.near, evidence.wall)
    traces = breakers.read_traces(directory / "breakers")
    moves = sorted((move for trace in traces for move in _moves(trace)), key=lambda move: move.at)
    for move in moves:
        record.write("breaker", move.at, relay=move.link[0], peer=move.link[1], previous=move.previous,
                     state=move.state, reason=move.reason)  # fmt: skip
    spans = [(began, ended) for began, ended, _ in evidence.faults]
    oracles = _oracles(evidence, traces, spans)
    explained = _explained(told, moves, evidence)
    figures = {phase: _figures(told, moves, spans, explained, *span) for phase, span in _phases(evidence).items()}
    for of_phase in figures.values():
        of_phase |= {
            "breaker.disagreements": len(oracles["breaker"]) if traces else None,
            "owners.violations": len(oracles["owners"]) if len(evidence.leases) == scenario.load.rooms else None,
            "packets.unaccounted": sum(abs(each.packets) for each in _lost(evidence)) if evidence.nodes else None,
        }
    return Result(
        name=name,
        scenario=as_json(scenario),
        seed=scenario.seed,
        command=command,
        began=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(evidence.times.started + evidence.wall)),
        machine=machine(),
        dimension=scenario.dimension,
        failure=evidence.failure,
        verdicts=_verdicts(scenario, figures),
        figures=figures,
        oracles=oracles,
        causes=dict(Counter(each.cause for each in explained)),
        freezes=[_as_line(each, evidence.times.started) for each in explained],
        left_out=list(evidence.left_out),
        timeline=series(told, sorted([*moves, *_lives(traces, evidence)], key=lambda move: move.at), evidence),
        offset=round((evidence.times.watching or evidence.times.started) - evidence.times.started, 3),
    )


def machine() -> str:
    """One line about where this ran."""
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{system}, {psutil.cpu_count()} CPUs, {memory:.0f} GiB, Python {platform.python_version()}"


def _phases(evidence: Evidence) -> dict[str, Span]:
    times = evidence.times
    found: dict[str, Span] = {}
    if times.watching:
        found["before"] = (times.watching, times.method or _end(evidence))
        found["whole"] = (times.watching, _end(evidence))
    if times.method:
        found["during"] = (times.method, times.calm or _end(evidence))
    if times.calm:
        found["after"] = (times.calm, _end(evidence))
    return found


def _end(evidence: Evidence) -> float:
    """The end of the observation: before the clients were told to leave."""
    return evidence.watched_until or evidence.times.over


def _figures(
    told: Told,
    moves: Sequence[BreakerMove],
    faults: Sequence[Span],
    explained: Sequence[Explained],
    begin: float,
    end: float,
) -> Figures:
    found = client_figures(told, begin, end) | probe_figures(told, begin, end) | room_figures(told, begin, end)
    found |= breaker_figures(moves, faults, begin, end)
    frozen = [(each.freeze.begin, each.freeze.end) for each in explained if each.cause != "client"]
    healed = [
        max((end for start, end in frozen if began <= end and start < ended), default=began) - began
        for began, ended in faults
    ]
    found["heal.max"] = round(1000 * max(healed), 1) if healed else None
    return found


def _moves(trace: breakers.Trace) -> list[BreakerMove]:
    link = (trace.relay, trace.peer)
    return [BreakerMove(move.now / 1e6, link, move.previous, move.state, move.reason) for move in trace.moves]


def _lives(traces: Sequence[breakers.Trace], evidence: Evidence) -> list[BreakerMove]:
    """For the chart: a link that ends is no longer in any state, and one that comes anew begins closed."""
    found = []
    for trace in traces:
        if not trace.steps:
            continue
        link = (trace.relay, trace.peer)
        begin, end = (breakers.now_of(step) / 1e6 for step in (trace.steps[0], trace.steps[-1]))
        if begin > evidence.times.watching:
            found.append(BreakerMove(begin, link, "ended", "closed", "a new link"))
        if end < _end(evidence) - _ALIVE_S:
            found.append(BreakerMove(end, link, "", "ended", "the link ended"))
    return found


def _oracles(evidence: Evidence, traces: Sequence[breakers.Trace], faults: Sequence[Span]) -> dict[str, list[str]]:
    troubled = [round(at * 1e6) for span in faults for at in span]
    judged = [breakers.judge(trace, troubled) for trace in traces]
    return {
        "breaker": [str(each) for each in judged if each is not None],
        "owners": owners.violations(evidence.leases),
        "packets": [str(each) for each in _lost(evidence)],
    }


def _lost(evidence: Evidence) -> list[conservation.Unaccounted]:
    lanes = conservation.of_lanes(evidence.lanes.get("lanes", []))
    return [*lanes, *conservation.of_links(evidence.nodes, evidence.nodes_later)]


def _explained(told: Told, moves: Sequence[BreakerMove], evidence: Evidence) -> list[Explained]:
    if not evidence.times.watching:
        return []
    faults = [(began, ended, fault.fault) for began, ended, fault in evidence.faults]
    found = freezes(told, evidence.times.watching, _end(evidence), FREEZE_S)
    return [explain(each, told, moves, faults) for each in found]


def _verdicts(scenario: Scenario, figures: Mapping[str, Figures]) -> list[Verdict]:
    found = []
    for phase, name, bound in scenario.steady_state.items():
        value = figures.get(phase, {}).get(name)
        found.append(Verdict(phase, name, bound.text, value, bound.holds(value)))
    return found


def _as_line(each: Explained, zero: float) -> dict[str, Any]:
    return {
        "viewer": each.freeze.viewer,
        "publisher": each.freeze.publisher,
        "at": round(each.freeze.begin - zero, 3),
        "seconds": round(each.freeze.end - each.freeze.begin, 3),
        "cause": each.cause,
        "evidence": list(each.evidence),
    }

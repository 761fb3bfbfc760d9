"""One HTML page about one drill: nothing is fetched from anywhere, and it is read in a light or a dark room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from drills.report import timeline
from drills.report.compare import Change, compare_results
from drills.run.causes import CAUSES
from drills.scenario.figures import FIGURES
from drills.scenario.model import DIMENSIONS

_STYLE = Path(__file__).with_name("report.css")
_THEME = (
    "const r=document.documentElement,m=matchMedia('(prefers-color-scheme: dark)');"
    "r.dataset.theme=m.matches?'dark':'light';"
    "function turn(){r.dataset.theme=r.dataset.theme==='dark'?'light':'dark'}"
)
_TILES = (
    ("during", "freeze.p99", "freeze p99"),
    ("during", "freeze.max", "longest freeze"),
    ("during", "audio.gap.max", "longest silence"),
    ("during", "trip.max", "fault to other path"),
    ("during", "heal.max", "fault to healed"),
    ("during", "api.p99", "API p99"),
)
_CAUSES = {"client": "this machine", "node": "node", "path": "path", "layer": "layer", "keyframe": "keyframe wait",
           "compositor": "compositor", "unknown": "unknown"}  # fmt: skip
_MOST_FREEZES = 200
Result = Mapping[str, Any]
Scores = Mapping[str, Sequence[Result]]


def page(result: Result, before: Result | None, scores: Scores) -> str:
    """The whole page. `scores` are the newest results of all drills by dimension, this one among them."""
    changes = compare_results(before, result) if before else []
    body = "".join(
        [*_head(result), *_left_out(result), *_tiles(result, before), *_hypotheses(result, changes), *_charts(result),
         *_freezes(result), *_scorecard(result, scores), *_oracles(result), *_compared(changes, before),
         *_repeat(result)]
    )  # fmt: skip
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(result['name'])}: {'passed' if result['passed'] else 'not passed'}</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style><script>{_THEME}</script><main>{body}</main></html>\n"
    )


def _head(result: Result) -> Iterator[str]:
    state = ("passed", "passed") if result["passed"] else ("failed", "not passed")
    scenario = result["scenario"]
    yield f'<header><div><h1>{escape(scenario["title"])}</h1><p class="soft">{escape(scenario["about"])}</p>'
    yield f'<p class="soft">{escape(result["name"])} · {escape(result["dimension"])} · {escape(result["began"])} · '
    yield f'{escape(result["machine"])}</p></div><div><span class="badge {state[0]}">{state[1]}</span><br><br>'
    yield '<button onclick="turn()">light / dark</button></div></header>'
    if result["failure"]:
        yield f'<section><h2 class="fails">Not carried out</h2><p>{escape(result["failure"])}</p></section>'


def _left_out(result: Result) -> Iterator[str]:
    if left_out := result.get("left_out"):
        said = "".join(f"<p>{escape(each)}</p>" for each in left_out)
        yield f'<section><h2 class="fails">Left out on this machine</h2>{said}</section>'


def _tiles(result: Result, before: Result | None) -> Iterator[str]:
    yield '<div class="tiles">'
    for phase, name, words in _TILES:
        value = _value(result, phase, name)
        last = _value(before, phase, name) if before else None
        beside = f"<small>before: {shown(last, name)}</small>" if last is not None else ""
        yield f'<div class="tile"><b>{shown(value, name)}</b><span>{words}</span><br>{beside}</div>'
    yield "</div>"


def _hypotheses(result: Result, changes: Sequence[Change]) -> Iterator[str]:
    earlier = {(change.phase, change.figure): change.before for change in changes}
    yield "<section><h2>What was supposed to hold</h2><table><tr><th></th><th>phase</th><th>figure</th>"
    yield '<th class="number">wanted</th><th class="number">measured</th><th class="number">run before</th>'
    yield "<th></th></tr>"
    for each in result["verdicts"]:
        mark = "holds" if each["holds"] else "fails"
        figure, last = each["figure"], earlier.get((each["phase"], each["figure"]))
        yield f'<tr><td class="{mark}">{mark}</td><td>{each["phase"]}</td><td><code>{escape(figure)}</code></td>'
        yield f'<td class="number">{escape(each["bound"])}</td><td class="number">{shown(each["value"], figure)}</td>'
        yield f'<td class="number soft">{shown(last, figure) if last is not None else ""}</td>'
        yield f'<td class="soft">{escape(FIGURES[figure].means)}</td></tr>'
    yield "</table></section>"


def _charts(result: Result) -> Iterator[str]:
    data = result["timeline"]
    if not data.get("phases"):
        return
    yield "<section><h2>Faults, and which path carried</h2>"
    yield _legend(
        {"fault": "fault", "suspect": "suspect: both paths", "open": "open: backup", "half": "half-open: trying"}
    )
    yield f"{timeline.faults_and_breakers(data)}</section>"
    yield "<section><h2>New pictures a second, and freezes</h2>"
    yield _legend({"mark": "pictures", "open": "frozen: path", "fault": "frozen: node",
                   "suspect": "frozen: keyframe wait", "closed": "frozen: this machine", "bad": "frozen: unknown",
                   "good": "▲ joined"})  # fmt: skip
    yield f"{timeline.viewers(data, result['freezes'], result['offset'])}</section>"
    yield f"<section><h2>Bitrate of each viewer</h2>{timeline.bitrate(data)}</section>"
    yield f"<section><h2>Answers of the API</h2>{timeline.api(data)}</section>"
    yield f"<section><h2>CPU of this machine</h2>{timeline.machine(data)}</section>"
    if any(share < 99 for points in data["slab"].values() for _, share in points):
        yield f"<section><h2>Free packet buffers of the relays</h2>{timeline.slab(data)}</section>"


def _freezes(result: Result) -> Iterator[str]:
    found = result["freezes"]
    yield "<section><h2>Freezes and their causes</h2>"
    if not found:
        yield '<p class="soft">Nobody\'s picture froze.</p></section>'
        return
    counts = ", ".join(f"{_CAUSES[cause]} {result['causes'][cause]}" for cause in CAUSES if cause in result["causes"])
    yield f'<p class="soft">{len(found)} by cause: {counts}</p><div class="scroll"><table>'
    yield '<tr><th class="number">at</th><th class="number">length</th><th>viewer</th><th>host</th><th>cause</th>'
    yield "<th>evidence</th></tr>"
    longest = sorted(found, key=lambda each: -each["seconds"])[:_MOST_FREEZES]
    for each in sorted(longest, key=lambda each: each["at"]):
        evidence = "<br>".join(escape(line) for line in each["evidence"][:6])
        yield f'<tr><td class="number">{each["at"] - result["offset"]:.2f} s</td><td class="number">'
        yield f"{1000 * each['seconds']:.0f} ms</td><td>{escape(each['viewer'])}</td><td>{each['publisher']}</td>"
        yield f'<td>{_CAUSES[each["cause"]]}</td><td class="soft">{evidence}</td></tr>'
    yield "</table></div></section>"


def _scorecard(result: Result, scores: Scores) -> Iterator[str]:
    yield '<section><h2>Scorecard: twelve dimensions of resilience</h2><div class="scores">'
    for dimension in DIMENSIONS:
        runs = scores.get(dimension, ())
        state = "none" if not runs else "passed" if all(run["passed"] for run in runs) else "failed"
        here = " here" if dimension == result["dimension"] else ""
        words = ", ".join(f"{run['name']} {'✓' if run['passed'] else '✗'}" for run in runs) or "not drilled here yet"
        yield f'<div class="score {state}{here}"><b>{dimension}</b><span>{escape(words)}</span></div>'
    yield "</div></section>"


def _oracles(result: Result) -> Iterator[str]:
    names = {"breaker": "The breaker's oracle, on the recorded path samples", "owners": "Owners, by the lease history",
             "packets": "Conservation: entered = delivered + dropped with a reason + queued"}  # fmt: skip
    yield "<section><h2>Oracles</h2><table>"
    for name, words in names.items():
        found = result["oracles"].get(name, [])
        state = "fails" if found else "holds"
        said = "<br>".join(escape(line) for line in found[:20]) or "nothing to say against it"
        yield f'<tr><td class="{state}">{state}</td><td>{words}</td><td class="soft">{said}</td></tr>'
    yield "</table></section>"


def _compared(changes: Sequence[Change], before: Result | None) -> Iterator[str]:
    if not before:
        return
    moved = [change for change in changes if change.is_notable]
    yield f"<section><h2>Beside the run of {escape(before['began'])}</h2>"
    if not moved:
        yield '<p class="soft">No figure changed by more than a tenth.</p></section>'
        return
    yield '<div class="scroll"><table><tr><th>phase</th><th>figure</th><th class="number">before</th>'
    yield '<th class="number">now</th><th class="number">change</th></tr>'
    for change in moved:
        kind = "better" if change.is_better else "worse"
        yield f"<tr><td>{change.phase}</td><td><code>{escape(change.figure)}</code></td>"
        yield f'<td class="number">{shown(change.before, change.figure)}</td><td class="number">'
        yield f'{shown(change.after, change.figure)}</td><td class="number {kind}">{change.percent}</td></tr>'
    yield "</table></div></section>"


def _repeat(result: Result) -> Iterator[str]:
    yield f"<section><h2>To repeat it</h2><p><code>{escape(result['command'])}</code></p>"
    yield f'<p class="soft">All dice have the seed {result["seed"]}. The raw record is in record.jsonl, what the '
    yield "breakers were told in breakers/, everything on this page in result.json.</p></section>"


def _legend(entries: Mapping[str, str]) -> str:
    parts = "".join(f'<span><i style="background:var(--{name})"></i>{words}</span>' for name, words in entries.items())
    return f'<div class="legend">{parts}</div>'


def _value(result: Result | None, phase: str, name: str) -> float | None:
    found: float | None = (result or {}).get("figures", {}).get(phase, {}).get(name)
    return found


def shown(value: float | None, figure: str) -> str:
    """A value with its unit; `–` for what was not measured."""
    if value is None:
        return "–"
    unit = FIGURES[figure].unit if figure in FIGURES else ""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()

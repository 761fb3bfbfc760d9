"""`costream simulate`: run seeds until one fails, and say how to run that one again."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

from drills.simulation.accuracy import ENOUGH, trials
from drills.simulation.day_of_bursts import a_day_of_bursts
from drills.simulation.links import LinkOutcome, LinkWorld
from drills.simulation.run import simulate
from drills.simulation.world import Outcome, Plan, plan_of

HASH_SEED = "0"


def require_fixed_hashes(arguments: list[str]) -> None:
    """Start this program again with hashes of texts that are the same in each run, unless they are already: the order
    of sets is part of a trace. Returns only when they are."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *arguments])


def run(plan: Plan, seeds: int, link_minutes: float, trace: Path | None, console: Console) -> bool:
    """Simulate `seeds` seeds from the plan's on; False, told, for the first that fails."""
    for seed in range(plan.seed, plan.seed + seeds):
        with _opened(trace) as out:
            outcome = simulate(plan_of(plan, seed=seed), out)
            console.print(_row(outcome), highlight=False)
            if outcome.violation is not None:
                _failed(outcome, _again(outcome.plan), console)
                return False
            for name, link in _links(seed, plan.hours, link_minutes, out):
                rate = link.virtual_s / max(1e-9, link.took_s)
                console.print(f"  {name}: {link.virtual_s:,.0f} s in {link.took_s:.1f} s of CPU (x{rate:,.0f}), "
                              f"{len(link.moves)} moves, {_packets(link)}trace {link.hash}",
                              highlight=False)  # fmt: skip
                if link.violation is not None:
                    console.print(f"[bold red]{link.violation}[/]\nagain: {_again(plan_of(plan, seed=seed))}")
                    return False
        if seeds == 1:
            console.print(_figures(outcome))
    return True


def try_breaker(count: int, seed: int, console: Console) -> bool:
    """Run trials of a breaker (`drills.simulation.accuracy`); False, with those that were wrong told, below ENOUGH."""
    found = list(trials(count, seed))
    table = Table(title=f"{count:,} trials of a breaker", box=None)
    for column in (
        "what happened to the primary",
        "trials",
        "as the oracle",
        "as the truth",
        "left after, ms: p50",
        "most",
    ):
        table.add_column(column, justify="left" if column.startswith("what") else "right")
    for name in dict.fromkeys(trial.condition for trial in found):
        of = [trial for trial in found if trial.condition == name]
        left = sorted(round(trial.tripped_us / 1000) for trial in of if trial.tripped_us is not None)
        times = (str(left[len(left) // 2]), str(left[-1])) if left else ("", "")
        table.add_row(name, str(len(of)), str(sum(t.as_oracle for t in of)), str(sum(t.as_truth for t in of)), *times)
    console.print(table)
    for trial in found:
        if not trial.right:
            console.print(f"wrong: {trial}", markup=False, highlight=False)
    share = sum(trial.right for trial in found) / len(found)
    console.print(f"right: {share:.3%}, wanted {ENOUGH:.1%}", highlight=False)
    return share >= ENOUGH


def _links(seed: int, hours: float, minutes: float, out: TextIO | None) -> Iterator[tuple[str, LinkOutcome]]:
    if minutes > 0:
        yield "a link with faults", LinkWorld(seed, out=out).run(minutes * 60)
        yield "2 % lost in bursts", a_day_of_bursts(seed, hours)


def _packets(link: LinkOutcome) -> str:
    tally = link.tally
    return f"{tally.handed_on:,} of {tally.published:,} packets handed on, " if tally.published else ""


def _row(outcome: Outcome) -> str:
    plan = outcome.plan
    return (f"seed {plan.seed}: {plan.nodes} nodes, {outcome.virtual_s:,.0f} s in {outcome.took_s:.1f} s of CPU "
            f"(x{outcome.virtual_s / max(1e-9, outcome.took_s):,.0f}), {sum(outcome.faults.values())} faults, "
            f"{outcome.grants} leases given, {len(outcome.heal_s)} rooms healed in at most "
            f"{max(outcome.heal_s, default=0.0):.1f} s, trace {outcome.hash}")  # fmt: skip


def _figures(outcome: Outcome) -> Table:
    table = Table(title="calls of the store", box=None)
    for column in ("call", "in all", "per second"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for name, count in sorted(outcome.ops.items()):
        table.add_row(name, f"{count:,}", f"{count / outcome.virtual_s:,.2f}")
    return table


def _failed(outcome: Outcome, again: str, console: Console) -> None:
    for line in outcome.newest:
        console.print(f"  {line}", markup=False, highlight=False)
    console.print(f"{outcome.violation}", style="bold red", markup=False)
    console.print(f"again: {again}", markup=False, highlight=False)


def _again(plan: Plan) -> str:
    words = ["costream simulate", f"--seed {plan.seed}", f"--nodes {plan.nodes}", f"--hours {plan.hours:g}"]
    usual = Plan()
    for name, value in (("rooms", plan.rooms), ("faults_per_hour", plan.faults_per_hour),
                        ("common_per_hour", plan.common_per_hour)):  # fmt: skip
        if value != getattr(usual, name):
            words.append(f"--{name.replace('_', '-')} {value:g}")
    return " ".join(words)


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
    else:
        with path.open("a", encoding="utf-8") as out:
            yield out

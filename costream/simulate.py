"""`costream simulate` and `costream planning`: a cluster in virtual time, and what a larger one costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def simulate(
    seed: Annotated[int, typer.Option(min=0, help="Of all dice.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many, counted up from --seed.")] = 1,
    nodes: Annotated[int, typer.Option(min=2, max=10_000, help="Relays.")] = 100,
    rooms: Annotated[int, typer.Option(min=0, max=20_000, help="0: as many as nodes.")] = 0,
    hours: Annotated[float, typer.Option(min=0.001, max=240, help="Of virtual time.")] = 1.0,
    faults_per_hour: Annotated[float, typer.Option(min=0, help="That touch some nodes.")] = 30.0,
    common_per_hour: Annotated[
        float, typer.Option(min=0, help="That touch all: the store away, empty, its clock.")
    ] = 0.25,
    link_minutes: Annotated[float, typer.Option(min=0, help="Of one link packet by packet; 0: no links.")] = 1.0,
    trace: Annotated[Path | None, typer.Option(help="A file that gets every line of the traces.")] = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Instead: so many trials of a breaker against the oracle and the truth.")
    ] = 0,
) -> None:
    """Run the cluster's machines in virtual time with random faults. Exit code 1: an invariant does not hold."""
    from drills.simulation.command import require_fixed_hashes, run, try_breaker
    from drills.simulation.world import Plan

    require_fixed_hashes(["-m", "costream.cli", *sys.argv[1:]])
    if trials:
        raise typer.Exit(int(not try_breaker(trials, seed, Console(soft_wrap=True))))
    plan = Plan(seed=seed, nodes=nodes, rooms=rooms, hours=hours, faults_per_hour=faults_per_hour,
                common_per_hour=common_per_hour)  # fmt: skip
    held = run(plan, seeds, link_minutes, trace, Console(soft_wrap=True))
    raise typer.Exit(int(not held))


def planning(
    out: Annotated[Path, typer.Option(help="Directory of planning.md and planning.svg.")] = Path("docs"),
) -> None:
    """Write what the control of larger clusters costs: messages and store calls per second, as a table and a curve."""
    from drills.simulation.planning import write

    for path in write(out):
        print(f"written to {path}")

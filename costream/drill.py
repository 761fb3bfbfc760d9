"""`costream drill`: break a test cluster with live media on purpose, and say what viewers saw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from relay.errors import CostreamError

USAGE_EXIT = 2

app = typer.Typer(help="Break a test cluster with live media, and say what viewers saw.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Where runs are kept: DIR/NAME/TIME.")]
_OUT = Path(".costream/drills")


@app.command("run")
def run(
    scenarios: Annotated[list[str], typer.Argument(help="Files, or names of those in configs/drills.")],
    out: Out = _OUT,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all dice.  [default: the scenario's]")] = None,
) -> None:
    """Run drills on a cluster of its own. Exit code 0: passed; 1: not; 2: refused before anything was started."""
    from drills.command import run as run_drills

    with _Reasons():
        passed = run_drills(scenarios, out, seed, Console(soft_wrap=True))
    raise typer.Exit(int(not passed))


@app.command("list")
def list_drills(
    figures: Annotated[bool, typer.Option("--figures", help="The figures that hypotheses may be about.")] = False,
    faults: Annotated[bool, typer.Option("--faults", help="The faults with their keys.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="The keys of a scenario.")] = False,
) -> None:
    """List the drills that ship, or what a scenario may say."""
    from drills import listing

    console = Console(highlight=False)
    wanted = [
        (figures, listing.figures),
        (faults, listing.faults),
        (keys, listing.keys),
        (not (figures or faults or keys), listing.drills),
    ]
    with _Reasons():
        for is_wanted, table in wanted:
            if is_wanted:
                console.print(table())


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run's directory or its result.json.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The run to hold beside it.")],
) -> None:
    """Hold two runs beside each other. Exit code 1 when a hypothesis held in A and does not in B."""
    from drills.report.compare import compare_files, comparison_table, has_worsened

    with _Reasons():
        changes = compare_files(first, second)
        Console(soft_wrap=True).print(comparison_table(changes))
    raise typer.Exit(int(has_worsened(changes)))


@app.command("render")
def render(
    scenario: Annotated[str, typer.Argument(help="A file, or the name of one in configs/drills.")],
    target: Annotated[str, typer.Option(help="tc, pumba or chaos-mesh.")],
    inventory: Annotated[Path, typer.Option(help="Which member is what there, and its labels (YAML; docs/drills.md).")],
    out: Annotated[Path | None, typer.Option(help="File to write.  [default: standard output]")] = None,
) -> None:
    """Write a drill's faults for a real test cluster. Refuses members that are not labelled as such."""
    from drills.render import render as render_scenario

    with _Reasons():
        text = render_scenario(scenario, target, inventory)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        print(f"written to {out}")


class _Reasons:
    """What was refused is said in a line or more, without a traceback."""

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CostreamError):
            for line in str(error).splitlines():
                print(f"costream drill: {line}", file=sys.stderr)
            raise typer.Exit(USAGE_EXIT) from None

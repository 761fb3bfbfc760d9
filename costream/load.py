"""`costream load`: rooms with hosts and viewers against a cluster that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from costream.token import signing_keys


def load(
    url: Annotated[
        list[str] | None, typer.Option(help="Address of the API; may be repeated.  [default: that of costream dev]")
    ] = None,
    rooms: Annotated[int, typer.Option(min=1, help="Rooms.")] = 1,
    hosts: Annotated[int, typer.Option(min=0, help="Per room.")] = 1,
    viewers: Annotated[int, typer.Option(min=0, help="Per room.")] = 4,
    seconds: Annotated[float, typer.Option(help="How long.")] = 60.0,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds until all viewers have come.")] = 10.0,
    jitter: Annotated[
        float, typer.Option(min=0, help="Seconds by which each comes later than his turn, at most.")
    ] = 0.5,
    stay: Annotated[float, typer.Option(min=0, help="Mean seconds until a viewer leaves; 0: never.")] = 0.0,
    away: Annotated[float, typer.Option(min=0, help="Mean seconds until he returns.")] = 5.0,
    switch: Annotated[float, typer.Option(min=0, help="Mean seconds between changes of his layer; 0: none.")] = 0.0,
    simulcast: Annotated[bool, typer.Option("--simulcast", help="Hosts send three layers of 720p.")] = False,
    per_process: Annotated[int, typer.Option(min=1, help="Viewers in one process.")] = 8,
    api_rate: Annotated[float, typer.Option(min=0, help="Reads of a room per second.")] = 2.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all dice.")] = 0,
    out: Annotated[Path, typer.Option(help="Where runs are kept: DIR/TIME.")] = Path(".costream/load"),
    label: Annotated[Path | None, typer.Option(help="The file that labels the target as a test cluster.")] = None,
    sure: Annotated[
        bool, typer.Option("--i-know-this-is-no-test-cluster", help="Load a target without a label.")
    ] = False,
    key_id: Annotated[str | None, typer.Option(help="Which key signs.  [default: the first]")] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="COSTREAM_SECRET", help="Secret of that key; better in the environment.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with the keys.")] = None,
) -> None:
    """Put a load on a test cluster: viewers join, watch, switch layers, leave and return. Ctrl-C takes all away."""
    from drills.load.command import run
    from drills.load.plan import LoadPlan

    plan = LoadPlan(rooms=rooms, hosts=hosts, viewers=viewers, seconds=seconds, ramp_s=ramp, jitter_s=jitter,
                    stay_s=stay, away_s=away, switch_s=switch, simulcast=simulcast, per_process=per_process,
                    api_per_s=api_rate, seed=seed)  # fmt: skip
    keys = signing_keys(config, key_id, secret)
    key = (key_id, keys[key_id]) if key_id in keys else next(iter(keys.items()))
    targets = url or ["http://127.0.0.1:7080"]
    raise typer.Exit(run(plan, targets, key, out, label, sure=sure, console=Console(soft_wrap=True)))

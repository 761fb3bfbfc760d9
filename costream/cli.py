"""The command line. Each command parses its options, makes settings, and hands over to the part that does the work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from costream import drill
from costream.load import load
from costream.simulate import planning, simulate
from relay.errors import CostreamError, RequestError, SettingsError
from relay.settings import (
    NodeSettings,
    dev_settings,
    load_node_settings,
    load_signaling_settings,
)

USAGE_EXIT = 2  # what a shell expects for wrong options and settings

app = typer.Typer(
    name="costream",
    help="A relay for live co-streaming: several hosts share one stage, thousands watch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals hold tokens and keys
)

Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file; configs/*.toml shows every key.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; may be repeated.")
]


@app.command()
def dev(
    lan: Annotated[bool, typer.Option("--lan", help="Bind all interfaces, with a key made now.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Put two synthetic hosts on the stage of room `demo`.")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="TCP and UDP port.  [default: 7443]")] = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Plain HTTP port, 0 for none.  [default: 7080]")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Run an all-in-one node for trying out: no file needed, loopback only, a known key."""
    overrides = _overrides(assignments)
    if port is not None:
        overrides |= {"http.port": port, "media.port": port}
    if http_port is not None:
        overrides["http.plain_port"] = http_port
    settings = dev_settings(lan, os.environ, overrides)
    with _loading():
        from costream.dev import run_dev

    run_dev(settings, with_demo=demo)


@app.command("relay")
def run_relay_command(config: Config = None, assignments: Assignments = None) -> None:
    """Run a relay node until SIGTERM."""
    settings = load_node_settings(config, os.environ, _overrides(assignments))
    with _loading():
        from costream.serve import run_relay

    run_relay(settings)


@app.command("signaling")
def run_signaling_command(config: Config = None, assignments: Assignments = None) -> None:
    """Run the signaling service apart from the nodes until SIGTERM."""
    settings = load_signaling_settings(config, os.environ, _overrides(assignments))
    with _loading():
        from costream.serve import run_signaling

    run_signaling(settings)


@app.command()
def token(
    room: Annotated[str, typer.Option(help="The one room that the token opens.")],
    identity: Annotated[str, typer.Option(help="Who the holder is.")],
    role: Annotated[str, typer.Option(help="owner, guest, moderator, viewer or service.")],
    ttl: Annotated[int, typer.Option(min=1, help="Seconds until it expires.")] = 3600,
    key_id: Annotated[str | None, typer.Option(help="Which key signs.  [default: the first]")] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="COSTREAM_SECRET", help="Secret of that key; better in the environment.")
    ] = None,
    config: Config = None,
) -> None:
    """Print a token: by default one for `costream dev`, signed with its known key."""
    from costream.token import signing_keys
    from signaling.tokens import mint

    keys = signing_keys(config, key_id, secret)
    print(mint(keys, room=room, identity=identity, role=role, ttl_s=ttl, now=time.time(), key_id=key_id))


@app.command()
def watch(
    room: Annotated[str, typer.Argument(help="The room to look at.")],
    url: Annotated[str, typer.Option(help="Address of the API.")] = "http://127.0.0.1:7080",
    bearer: Annotated[
        str | None,
        typer.Option("--token", envvar="COSTREAM_TOKEN", help="A moderator's token.  [default: made for costream dev]"),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept a self-signed certificate.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
) -> None:
    """Show a live table of a room: hosts, viewers, bitrate, loss, RTT, slots."""
    from costream.token import signing_keys
    from costream.watch import watch_room
    from signaling.tokens import mint

    if bearer is None:
        keys = signing_keys(None, None, None)
        bearer = mint(keys, room=room, identity="costream-watch", role="moderator", ttl_s=86_400, now=time.time())
    try:
        asyncio.run(watch_room(room, url, bearer, verify=not insecure, once=once, console=Console()))
    except KeyboardInterrupt:
        pass  # the way to end it


@app.command()
def doctor(config: Config = None, assignments: Assignments = None) -> None:
    """Check ports, addresses, TLS, clock, limits, plane and store; exit code 1 when a node cannot run."""
    from costream.doctor import Finding, Level, examine

    console = Console(soft_wrap=True, highlight=False)
    try:
        findings = examine(_doctor_settings(config, _overrides(assignments)))
    except SettingsError as error:
        findings = iter([Finding(Level.FAIL, "settings", line) for line in str(error).splitlines()])
    colours = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
    failed = False
    for finding in findings:
        failed |= finding.level is Level.FAIL
        console.print(f"[{colours[finding.level]}]{finding.level.value:4}[/] {finding.subject:12}", end=" ")
        console.print(finding.text, markup=False)
    raise typer.Exit(int(failed))


authority = typer.Typer(
    help="Make the cluster's certificate authority and its nodes' certificates.", no_args_is_help=True
)
app.add_typer(authority, name="ca")
app.add_typer(drill.app, name="drill")
CaDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Where ca.pem, ca.key and the nodes' files are.")]
Days = typer.Option(min=1, max=3650, help="Until it expires.")


@authority.command("init")
def ca_init(directory: CaDirectory, days: Annotated[int, Days] = 3650) -> None:
    """Make the authority: DIR/ca.pem and DIR/ca.key. Refuses when there is one."""
    from costream.ca import init

    made = init(directory, days)
    print(f"authority  {directory / 'ca.pem'}  until {made.not_valid_after_utc:%Y-%m-%d}; every node needs it")
    print(f"its key    {directory / 'ca.key'}  keep it off the nodes: who has it can be any node")
    print(f"next       costream ca issue {directory} NAME")


@authority.command("issue")
def ca_issue(
    directory: CaDirectory,
    name: Annotated[str, typer.Argument(help="The node's name: its `node.id`.")],
    address: Annotated[
        list[str] | None, typer.Option(help="Further host name or IP address of the node; may be repeated.")
    ] = None,
    days: Annotated[int, Days] = 397,
) -> None:
    """Make a node's certificate: DIR/NAME.pem and DIR/NAME.key. Refuses when there is one."""
    from costream.ca import issue

    made = issue(directory, name, address or (), days)
    files = [directory / f"{name}.pem", directory / f"{name}.key", directory / "ca.pem"]
    print(f"node {name}, until {made.not_valid_after_utc:%Y-%m-%d}; settings for that node:")
    print(
        "\n".join(
            ["[link]", *(f'{key} = "{file}"' for key, file in zip(("certificate", "key", "ca"), files, strict=True))]
        )
    )


app.command()(load)
app.command()(simulate)
app.command()(planning)


@app.command()
def version() -> None:
    """Print the version."""
    try:
        print(f"costream {importlib.metadata.version('costream')}")
    except importlib.metadata.PackageNotFoundError:
        print("costream, from a source tree that is not installed")


def main() -> None:
    """Entry point of the `costream` command."""
    try:
        app()
    except (SettingsError, RequestError) as error:
        print(f"costream: {error}", file=sys.stderr)
        raise SystemExit(USAGE_EXIT) from None
    except CostreamError as error:
        print(f"costream: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Around imports of a service: modules stay, and the garbage collector's looking through them again and again would
    be a sixth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _doctor_settings(config: Path | None, overrides: dict[str, object]) -> NodeSettings:
    """With a file: what `costream relay` would run with; without: `costream dev`."""
    if config is None:
        return dev_settings(False, os.environ, overrides)
    return load_node_settings(config, os.environ, overrides)


def _overrides(assignments: list[str] | None) -> dict[str, object]:
    overrides: dict[str, object] = {}
    for assignment in assignments or []:
        key, separator, value = assignment.partition("=")
        if not separator or "." not in key:
            raise SettingsError(f"--set {assignment}: write it as SECTION.KEY=VALUE, for example --set http.port=8443")
        overrides[key.strip()] = value.strip()
    return overrides


if __name__ == "__main__":
    main()

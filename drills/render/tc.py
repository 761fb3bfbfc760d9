"""A drill as a shell script with `tc`: a `prio` root, a band per impairment, filters by destination, all taken back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from drills.fabric.impairment import Impairment
from drills.render.inventory import RenderError
from drills.render.netem import netem
from drills.render.plan import Acting, Action, Impairing, timed
from drills.run.guard import LABEL, TEST
from drills.scenario.model import Scenario

_BANDS = 16  # of `prio`; the first three are the ordinary ones
_HEAD = """\
#!/bin/bash
# {title}
# Written by `costream drill render`. Wants root on every host, and `tc` with netem.
set -euo pipefail
LABEL_FILE=/etc/costream-cluster

on() {{ # HOST COMMAND…: here, or there by ssh
    local host=$1; shift
    if [ "$host" = - ]; then bash -c "$*"; else ssh -o BatchMode=yes "$host" "$*"; fi
}}

guard() {{ # HOST: refuses what does not say of itself that it is for tests
    on "$1" "grep -qx '{label}={test}' $LABEL_FILE" ||
        {{ echo "refused: $1 has no $LABEL_FILE with {label}={test}; nothing was injected" >&2; exit 2; }}
    on "$1" '[ "$(id -u)" = 0 ]' || {{ echo "refused: this needs root on $1" >&2; exit 2; }}
}}
"""


def script(scenario: Scenario, actions: Sequence[Action]) -> str:
    """The whole script. Raises RenderError."""
    hosts = sorted({_host(action) for action in actions})
    lines = [_HEAD.format(title=scenario.title, label=LABEL, test=TEST)]
    lines += [f"guard {shlex.quote(host)}" for host in hosts]
    lines += ["", "rollback() {", "    set +e", *(f"    {line}" for line in _back(actions)), "}"]
    lines += ["trap rollback EXIT", "trap 'exit 130' INT TERM", ""]
    begun: _Bands = {}
    steps: list[tuple[float, str]] = []
    for action in actions:
        steps += _steps(action, begun)
    return "\n".join([*lines, *timed(steps, scenario.lasts)]) + "\n"


_Bands = dict[tuple[str, str], list[tuple[tuple[str, ...], Impairment]]]
"""By host and device: what each band above the ordinary three is for. What comes again later uses the same."""


def _steps(action: Action, begun: _Bands) -> Iterator[tuple[float, str]]:
    """(time, line) of what begins it and what ends it."""
    host, end = _host(action), action.at + action.seconds
    if isinstance(action, Acting):
        do, undo = _of_process(action)
        yield action.at, _on(host, do)
        yield end, _on(host, undo)
        return
    device = action.interface
    bands = begun.setdefault((host, device), [])
    if not bands:
        yield 0.0, _on(host, f"tc qdisc replace dev {device} root handle 1: prio bands {_BANDS}")
    wanted = (action.addresses, action.impairment)
    if wanted not in bands:
        bands.append(wanted)
    if len(bands) + 3 > _BANDS:
        raise RenderError(f"more than {_BANDS - 3} impairments on {device} of {action.member}: split the scenario")
    band = bands.index(wanted) + 4
    yield (
        action.at,
        _on(
            host,
            f"tc qdisc replace dev {device} parent 1:{band:x} handle {band + 16:x}: netem {netem(action.impairment)}",
        ),
    )
    for address in action.addresses or ("0.0.0.0/0",):
        match = (
            f"tc filter add dev {device} parent 1: protocol ip prio {band} u32 match ip dst {address} flowid 1:{band:x}"
        )
        yield action.at, _on(host, match)
    yield end, _on(host, f"tc filter del dev {device} parent 1: prio {band}")


def _of_process(action: Acting) -> tuple[str, str]:
    unit = action.place.unit
    if not unit:
        raise RenderError(f"the inventory has no unit for {action.member}, and {action.verb} is done to one")
    name = shlex.quote(unit)
    match action.verb:
        case "kill":
            return f"systemctl kill --signal=KILL {name}", f"systemctl start {name}"
        case "drain":
            return f"systemctl stop {name}", f"systemctl start {name}"
        case "pause":
            return f"systemctl kill --signal=STOP {name}", f"systemctl kill --signal=CONT {name}"
        case "cpu":
            left = max(1, round(100 * (1 - action.load)))
            return (
                f"systemctl set-property --runtime {name} CPUQuota={left}%",
                f"systemctl set-property --runtime {name} CPUQuota=",
            )


def _back(actions: Sequence[Action]) -> Iterator[str]:
    """The rollback: also after Ctrl-C, and harmless when there is nothing to take back."""
    devices = sorted({(_host(action), action.interface) for action in actions if isinstance(action, Impairing)})
    for host, device in devices:
        yield _on(host, f"tc qdisc del dev {device} root 2>/dev/null")
    yield from sorted({_on(_host(action), _of_process(action)[1]) for action in actions if isinstance(action, Acting)})
    yield "true"


def _host(action: Action) -> str:
    return action.place.ssh or "-"


def _on(host: str, command: str) -> str:
    return f"on {shlex.quote(host)} {shlex.quote(command)}"

"""A drill as a shell script with Pumba, for containers of docker compose. Pumba takes each fault back by itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from drills.fabric.impairment import Impairment
from drills.render.inventory import Inventory, RenderError
from drills.render.plan import Acting, Action, Impairing, timed
from drills.run.guard import LABEL, TEST
from drills.scenario.model import Scenario

_HEAD = """\
#!/bin/bash
# {title}
# Written by `costream drill render`. Wants docker and pumba (https://github.com/alexei-led/pumba).
set -euo pipefail

guard() {{ # CONTAINER: refuses what is not labelled as one of a test cluster
    local label
    label=$(docker inspect --format '{{{{ index .Config.Labels "{label}" }}}}' "$1")
    [ "$label" = {test} ] || {{ echo "refused: $1 is not labelled {label}={test}; nothing was injected" >&2; exit 2; }}
}}

rollback() {{
    set +e
    for job in $(jobs -p); do kill -TERM "$job" 2>/dev/null; done
    wait
"""


def script(scenario: Scenario, actions: Sequence[Action], inventory: Inventory) -> str:
    """The whole script. Raises RenderError for what Pumba cannot do."""
    containers = sorted({_container(action) for action in actions})
    lines = [_HEAD.format(title=scenario.title, label=LABEL, test=TEST).rstrip("\n")]
    lines += [f"    {line}" for line in _back(actions)]
    lines += ["}"]
    lines += [f"guard {shlex.quote(name)}" for name in containers]
    lines += ["trap rollback EXIT", "trap 'exit 130' INT TERM", ""]
    steps = [step for action in join(actions) for step in _steps(action, inventory)]
    return "\n".join([*lines, *timed(steps, scenario.lasts)]) + "\n"


def _steps(action: Action, inventory: Inventory) -> Iterator[tuple[float, str]]:
    name, duration = shlex.quote(_container(action)), f"{max(1, round(action.seconds * 1000))}ms"
    if isinstance(action, Impairing):
        targets = f" --target {','.join(action.addresses)}" if action.addresses else ""
        for command in commands(action.impairment):
            yield (
                action.at,
                f"pumba --label {LABEL}={TEST} netem --duration {duration} --tc-image {inventory.image}"
                f" --interface {action.interface}{targets} {command} {name} &",
            )
        return
    match action.verb:
        case "pause":
            yield action.at, f"pumba --label {LABEL}={TEST} pause --duration {duration} {name} &"
        case "kill":
            yield action.at, f"pumba --label {LABEL}={TEST} kill --signal SIGKILL {name}"
            yield action.at + action.seconds, f"docker start {name}"
        case "drain":
            yield action.at, f"docker stop {name}"
            yield action.at + action.seconds, f"docker start {name}"
        case "cpu":
            yield action.at, f"docker update --cpus {max(0.01, round(1 - action.load, 2))} {name}"
            yield action.at + action.seconds, f"docker update --cpus 0 {name}"


def join(actions: Sequence[Action]) -> list[Action]:
    """Put together what Pumba can only do at once: equal impairments of one interface at one time.

    Raises RenderError when two others of an interface overlap: the second would fail, and its end would end the first.
    """
    found: list[Action] = []
    for action in actions:
        if not isinstance(action, Impairing):
            found.append(action)
            continue
        for index, other in enumerate(found):
            if not isinstance(other, Impairing) or (other.member, other.interface) != (action.member, action.interface):
                continue
            times = other.at, other.seconds
            if (*times, other.impairment) == (action.at, action.seconds, action.impairment):
                addresses = () if not (other.addresses and action.addresses) else other.addresses + action.addresses
                found[index] = replace(other, addresses=addresses)
                break
            if other.at < action.at + action.seconds and action.at < sum(times):
                raise RenderError(f"Pumba does one impairment of {action.interface} of {action.member} at a time")
        else:
            found.append(action)
    return found


def commands(impairment: Impairment) -> Iterator[str]:
    """Pumba's netem commands; it does one thing at a time. Raises RenderError for what would need two."""
    found = []
    if impairment.black_hole:
        found.append("loss --percent 100")
    if impairment.delay_us or impairment.jitter_us:
        ms = [round(value / 1000) for value in (impairment.delay_us, impairment.jitter_us)]
        words = f"delay --time {ms[0]} --jitter {ms[1]} --correlation {100 * impairment.correlation:g}"
        found.append(words + (f" --distribution {impairment.distribution}" if impairment.jitter_us else ""))
    if impairment.bursts is not None:
        chain = impairment.bursts
        found.append(
            f"loss-gemodel --pg {_percent(chain.p)} --pb {_percent(chain.r)}"
            f" --one-h {_percent(1 - chain.h)} --one-k {_percent(1 - chain.k)}"
        )
    elif impairment.loss:
        found.append(f"loss --percent {_percent(impairment.loss)}")
    if impairment.duplicate:
        found.append(f"duplicate --percent {_percent(impairment.duplicate)}")
    if impairment.corrupt:
        found.append(f"corrupt --percent {_percent(impairment.corrupt)}")
    if impairment.rate_bps:
        found.append(f"rate --rate {impairment.rate_bps}bit")
    if impairment.reorder:
        raise RenderError("Pumba cannot reorder packets")
    if len(found) != 1:
        raise RenderError(f"Pumba does one impairment of an interface at a time, not {len(found)}: split the step")
    yield from found


def _back(actions: Sequence[Action]) -> Iterator[str]:
    for action in actions:
        if isinstance(action, Acting) and action.verb in ("kill", "drain"):
            yield f"docker start {shlex.quote(_container(action))}"
        elif isinstance(action, Acting) and action.verb == "cpu":
            yield f"docker update --cpus 0 {shlex.quote(_container(action))}"


def _container(action: Action) -> str:
    if not action.place.container:
        raise RenderError(f"the inventory has no container for {action.member}")
    return action.place.container


def _percent(share: float) -> str:
    return f"{round(100 * share, 6):g}"

"""A drill as a Chaos Mesh Workflow: its steps run side by side, each after its own wait. Only labelled pods match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from drills.fabric.impairment import Impairment
from drills.render.inventory import Inventory, RenderError
from drills.render.plan import Action, Impairing
from drills.run.guard import LABEL, TEST
from drills.scenario.model import Scenario

_API = "chaos-mesh.org/v1alpha1"
_HEAD = "# {title}\n# Written by `costream drill render`. Only pods with the label {label}={test} are selected.\n"


def manifests(scenario: Scenario, actions: Sequence[Action], inventory: Inventory) -> str:
    """The Workflow. Raises RenderError for what Chaos Mesh cannot do."""
    templates: list[dict[str, Any]] = []
    lines = []
    for number, action in enumerate(actions):
        name = f"step-{number + 1}"
        lines.append(name)
        wait = {"name": f"{name}-wait", "templateType": "Suspend", "deadline": _ms(action.at)}
        chaos = {"name": f"{name}-fault", **_chaos(action, inventory)}
        children = [wait["name"], chaos["name"]] if action.at else [chaos["name"]]
        templates.append({"name": name, "templateType": "Serial", "children": children})
        templates += [wait, chaos] if action.at else [chaos]
    entry = {"name": "method", "templateType": "Parallel", "deadline": _ms(scenario.lasts), "children": lines}
    workflow = {
        "apiVersion": _API,
        "kind": "Workflow",
        "metadata": {"generateName": "costream-drill-", "namespace": inventory.namespace, "labels": {LABEL: TEST}},
        "spec": {"entry": "method", "templates": [entry, *templates]},
    }
    head = _HEAD.format(title=scenario.title, label=LABEL, test=TEST)
    return head + str(yaml.safe_dump(workflow, sort_keys=False, width=120))


def _chaos(action: Action, inventory: Inventory) -> dict[str, Any]:
    selector = _selector(action, inventory)
    deadline = _ms(action.seconds)
    if isinstance(action, Impairing):
        spec = {"mode": "all", "selector": selector, **network(action.impairment), "direction": "to"}
        if len(action.place.interfaces) > 1:
            spec["device"] = action.interface
        if action.addresses:
            spec["externalTargets"] = list(action.addresses)
        return {"templateType": "NetworkChaos", "deadline": deadline, "networkChaos": spec}
    if action.verb == "cpu":
        stress = {
            "mode": "all",
            "selector": selector,
            "stressors": {"cpu": {"workers": 2, "load": round(100 * action.load)}},
        }
        return {"templateType": "StressChaos", "deadline": deadline, "stressChaos": stress}
    kinds = {"kill": ("pod-kill", 0), "drain": ("pod-kill", 30), "pause": ("pod-failure", None)}
    what, grace = kinds[action.verb]
    spec = {"mode": "all", "selector": selector, "action": what}
    if grace is not None:
        spec["gracePeriod"] = grace
    return {"templateType": "PodChaos", "deadline": deadline, "podChaos": spec}


def network(impairment: Impairment) -> dict[str, Any]:
    """`action` and its parameters. Chaos Mesh has a correlation of losses, and no Gilbert–Elliott model of its own."""
    if impairment.black_hole:
        return {"action": "partition"}
    if impairment.bursts is not None:
        raise RenderError(
            "Chaos Mesh has no Gilbert-Elliott loss, and its `correlation` loses a tenth of what is asked: use tc"
        )
    if impairment.rate_bps:
        return _bandwidth(impairment)
    found: dict[str, Any] = {}
    if impairment.delay_us or impairment.jitter_us:
        found["delay"] = {
            "latency": f"{impairment.delay_us}us",
            "jitter": f"{impairment.jitter_us}us",
            "correlation": f"{100 * impairment.correlation:g}",
        }
        if impairment.reorder:
            found["delay"]["reorder"] = {"reorder": f"{100 * impairment.reorder:g}", "correlation": "0", "gap": 1}
    for name in ("loss", "duplicate", "corrupt"):
        if share := getattr(impairment, name):
            found[name] = {name: f"{100 * share:g}", "correlation": "0"}
    if not found:
        raise RenderError("an impairment that does nothing")
    return {"action": "netem" if len(found) > 1 else next(iter(found)), **found}


def _bandwidth(impairment: Impairment) -> dict[str, Any]:
    plain = Impairment(rate_bps=impairment.rate_bps, queue_bytes=impairment.queue_bytes)
    if impairment != plain:
        raise RenderError("Chaos Mesh limits a rate or impairs packets, not both in one step")
    limit = impairment.queue_bytes
    rate = f"{max(1, impairment.rate_bps // 1000)}kbit"
    return {"action": "bandwidth", "bandwidth": {"rate": rate, "limit": limit, "buffer": min(limit, 10_000)}}


def _selector(action: Action, inventory: Inventory) -> dict[str, Any]:
    if not action.place.pod:
        raise RenderError(f"the inventory has no pod for {action.member}")
    return {"namespaces": [inventory.namespace], "labelSelectors": {**action.place.pod, LABEL: TEST}}


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"

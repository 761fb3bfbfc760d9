"""A drill's faults for a real test cluster: `tc` by ssh, Pumba for docker compose, Chaos Mesh for Kubernetes.

What is written injects faults and takes them back. Measuring is done by `costream drill run` and by the load that runs
there anyway.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from drills.render import chaos_mesh, pumba, tc
from drills.render.inventory import RenderError, Target, read_inventory
from drills.render.plan import plan
from drills.run.cast import ScenarioCast
from drills.run.guard import Refused
from drills.scenario.loading import find, load
from drills.scenario.words import nearest

__all__ = ["RenderError", "render"]


def render(name: str, target: str, inventory: Path) -> str:
    """A scenario's method for a target. Raises ScenarioError, Refused, RenderError; nothing is written then."""
    if target not in get_args(Target):
        raise RenderError(
            f"there is no target {target}{nearest(target, get_args(Target))}; there are {', '.join(get_args(Target))}"
        )
    scenario, places = load(find(name)), read_inventory(inventory)
    cast = ScenarioCast(scenario)
    for number, fault in enumerate(scenario.method):
        try:
            fault.check(cast)
        except ValueError as error:
            raise Refused(f"method.{number} ({fault.fault}): {error}") from None
    actions = plan(scenario, places)
    if not actions:
        raise RenderError("nothing of this scenario happens at a member: what clients do is not rendered")
    if target == "tc":
        return tc.script(scenario, actions)
    if target == "pumba":
        return pumba.script(scenario, actions, places)
    return chaos_mesh.manifests(scenario, actions, places)

"""Who the members of a scenario are on a real target: `members` of an inventory file (docs/drills.md).

Every member that a drill touches has to carry the label of a test cluster, in the inventory and again on the target:
what is written refuses by itself where the label is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from drills.run.guard import LABEL, TEST, Refused
from drills.scenario.units import Part
from relay.errors import CostreamError


class RenderError(CostreamError):
    """A scenario cannot be written for a target: an inventory that cannot be read, or a fault the target cannot do."""


class Place(Part):
    """One member on the target. `addresses` are those of its paths, primary first."""

    labels: dict[str, str] = Field(default_factory=dict, description="Of the host, container or pod.")
    addresses: list[str] = Field(default_factory=list, description="IP addresses, one per path.")
    interfaces: list[str] = Field(default=["eth0"], min_length=1, description="Network interfaces, one per path.")
    ssh: str = Field(default="", description="tc: where to run it, as `ssh` takes it; empty for this machine.")
    unit: str = Field(default="", description="tc: the systemd unit, for faults of processes.")
    container: str = Field(default="", description="pumba: the container's name.")
    pod: dict[str, str] = Field(default_factory=dict, description="chaos-mesh: labels that select its pod.")


class Inventory(Part):
    """A target."""

    namespace: str = Field(
        default="default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="chaos-mesh: of pods."
    )
    image: str = Field(default="gaiadocker/iproute2", description="pumba: the image with `tc`.")
    members: dict[str, Place] = Field(min_length=1, description="By the names that scenarios use.")

    def place(self, name: str) -> Place:
        """A member. Raises Refused when it is not listed or not labelled as one of a test cluster."""
        if name not in self.members:
            raise Refused(f"{name} is not in the inventory; there are {', '.join(self.members)}")
        found = self.members[name]
        if found.labels.get(LABEL) != TEST:
            raise Refused(f"{name} is not labelled {LABEL}={TEST}: nothing is written for what is no test cluster")
        return found


Target = Literal["tc", "pumba", "chaos-mesh"]


def read_inventory(path: Path) -> Inventory:
    """Raises RenderError with the file and what is wrong in it."""
    try:
        return Inventory.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        if isinstance(error, ValidationError):
            lines = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
            raise RenderError("\n".join(f"{path}: {line}" for line in lines)) from None
        raise RenderError(f"{path}: {error}") from None

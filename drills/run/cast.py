"""Who is in a scenario, known before anything is started: members of the cluster, hosts, viewers."""

from __future__ import annotations

import string

from drills.scenario.model import Scenario
from drills.scenario.words import nearest

RELAY_PATHS = 2
_GROUPS = ("*", "outside", "hosts", "viewers")


class ScenarioCast:
    """The members that the cluster of a scenario will have; see `drills.faults.Cast`."""

    def __init__(self, scenario: Scenario) -> None:
        self.roles = {"store": "store"}
        self.roles |= {f"signaling-{number}": "signaling" for number in range(1, scenario.cluster.signaling + 1)}
        self.roles |= {f"relay-{letter}": "relay" for letter in string.ascii_lowercase[: scenario.cluster.relays]}

    def member(self, name: str, *roles: str) -> None:
        if name not in self.roles:
            raise ValueError(f"{name!r} is no member{nearest(name, self.roles)}; there are {', '.join(self.roles)}")
        if roles and self.roles[name] not in roles:
            raise ValueError(f"{name} is a {self.roles[name]}, and this is done to a {' or '.join(roles)}")

    def endpoint(self, name: str) -> None:
        host, slash, path = name.partition("/")
        if host in _GROUPS and not slash:
            return
        self.member(host)
        most = RELAY_PATHS if self.roles[host] == "relay" else 1
        if slash and not (path.isascii() and path.isdigit() and 1 <= int(path) <= most):
            raise ValueError(f"{name!r}: {host} has the paths 1 to {most}")

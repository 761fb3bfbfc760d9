"""Which impairment holds between two addresses: named hosts, and rules of which the last that fits wins. No I/O.

An endpoint is a host (`relay-a`: all its addresses), one path of a host (`relay-a/1`, counted from 1), or `*`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drills.fabric.impairment import CLEAR, Impairment
from drills.fabric.impairment_text import to_json
from relay.errors import CostreamError

ANY = "*"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


class FabricError(CostreamError):
    """The fabric cannot do what was asked: unknown host, no right to do it, or its forwarder is gone."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An impairment from one endpoint to another."""

    src: str
    dst: str
    impairment: Impairment


class Rules:
    """Hosts and the rules between them."""

    def __init__(self) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.rules: list[Rule] = []
        self._names: dict[str, str] = {}

    def add_host(self, name: str, addresses: Sequence[str]) -> None:
        """Raises FabricError for a bad or known name and for an address that is taken."""
        if not _NAME.fullmatch(name):
            raise FabricError(f"{name!r} is no host name: lower-case letters, digits and '-', 31 at most")
        if name in self.hosts:
            raise FabricError(f"there is a host {name} already")
        if not addresses or any(address in self._names for address in addresses):
            raise FabricError(f"the addresses of {name} are missing or taken: {', '.join(addresses)}")
        self.hosts[name] = tuple(addresses)
        self._names.update(dict.fromkeys(addresses, name))

    def remove_host(self, name: str) -> None:
        """Its rules go with it. Raises FabricError for an unknown one."""
        self.require(name)
        for address in self.hosts.pop(name):
            del self._names[address]
        self.rules = [rule for rule in self.rules if name not in (rule.src.split("/")[0], rule.dst.split("/")[0])]

    def name_of(self, address: str) -> str | None:
        """Whose address it is."""
        return self._names.get(address)

    def require(self, endpoint: str) -> None:
        """Raise FabricError unless an endpoint names something that is here."""
        host, slash, path = endpoint.partition("/")
        if endpoint == ANY:
            return
        if host not in self.hosts:
            raise FabricError(f"there is no host {host!r}; there are {', '.join(sorted(self.hosts)) or 'none'}")
        if slash and not (path.isascii() and path.isdigit() and 1 <= int(path) <= len(self.hosts[host])):
            raise FabricError(f"{endpoint!r}: {host} has the paths 1 to {len(self.hosts[host])}")

    def impair(self, src: str, dst: str, impairment: Impairment, *, both: bool = False) -> None:
        """Put a rule last; one for the same endpoints goes. Raises FabricError for unknown endpoints."""
        self.require(src)
        self.require(dst)
        for a, b in ((src, dst), (dst, src))[: 1 + both]:
            self.rules = [rule for rule in self.rules if (rule.src, rule.dst) != (a, b)]
            self.rules.append(Rule(a, b, impairment))

    def heal(self, a: str = ANY, b: str = ANY) -> int:
        """Take back the rules between two endpoints, both ways, and all of them by default; returns how many."""
        self.require(a)
        self.require(b)
        before = len(self.rules)
        if a == b == ANY:
            self.rules = []
        self.rules = [rule for rule in self.rules if (rule.src, rule.dst) not in ((a, b), (b, a))]
        return before - len(self.rules)

    def between(self, src: str, dst: str) -> Impairment:
        """What holds from one address to another."""
        for rule in reversed(self.rules):
            if self._fits(rule.src, src) and self._fits(rule.dst, dst):
                return rule.impairment
        return CLEAR

    def as_json(self) -> dict[str, Any]:
        """Hosts and rules."""
        rules = [{"src": rule.src, "dst": rule.dst, "impairment": to_json(rule.impairment)} for rule in self.rules]
        return {"hosts": {name: list(addresses) for name, addresses in self.hosts.items()}, "rules": rules}

    def _fits(self, endpoint: str, address: str) -> bool:
        if endpoint == ANY:
            return True
        host, slash, path = endpoint.partition("/")
        addresses = self.hosts.get(host, ())
        return address == addresses[int(path) - 1] if slash else address in addresses

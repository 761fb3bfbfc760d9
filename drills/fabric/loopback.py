"""The fabric without root: loopback addresses, and a proxy in front of every port that a host exposes.

A host binds `bind_address` (127.x.1.n) and is reached at `address` (127.x.101.n), where the proxy listens. Who sends is
told by the source address: a socket that is not bound to its host's address counts as `outside`. UDP is impaired packet
by packet; TCP is relayed, so that delay, rate and partition hold, and a lost piece comes later by a retransmission.
"""

from __future__ import annotations

from typing import Literal

from drills.fabric.base import OUTSIDE, BaseFabric
from drills.fabric.rules import FabricError

_FRONT = 100  # added to the path's number in the addresses where the proxy listens


class LoopbackFabric(BaseFabric):
    """See the module. The processes of all hosts see this machine's network; only addresses tell them apart."""

    kind: Literal["tun", "loopback"] = "loopback"
    _forwarder_module = "drills.fabric.proxy"

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed)
        self._bound: dict[str, tuple[str, ...]] = {OUTSIDE: ("127.0.0.1",)}
        self._hosts[OUTSIDE] = ("127.0.0.1",)

    def add_host(self, name: str, *, paths: int = 1) -> None:
        number = self._new_number(name, paths)
        bound = tuple(f"127.{self.number}.{path}.{number}" for path in range(1, paths + 1))
        fronts = tuple(f"127.{self.number}.{_FRONT + path}.{number}" for path in range(1, paths + 1))
        self._ask("attach", host=name, addresses=fronts, bound=bound)
        self._hosts[name], self._bound[name], self._numbers[name] = fronts, bound, number

    def remove_host(self, name: str) -> None:
        if name == OUTSIDE:
            raise FabricError("this machine itself cannot be removed")
        super().remove_host(name)
        del self._bound[name]

    def bind_address(self, host: str, path: int = 1) -> str:
        self.address(host, path)
        return self._bound[host][path - 1]

    def expose(self, host: str, port: int, protocol: Literal["udp", "tcp"]) -> None:
        self.address(host)
        self._ask("expose", host=host, port=port, protocol=protocol)

    def _prefix(self, host: str) -> list[str]:
        return []

    def _is_free(self, number: int) -> bool:
        return True  # 127.0.0.0/8 is this machine's alone, and the claim keeps other fabrics away

    def _remove_hosts(self) -> None:
        """The proxy's sockets end with it."""

"""A network of test hosts on one machine, whose every direction between two addresses can be made bad at run time.

`open_fabric` gives a `Fabric`: with root and /dev/net/tun a star of network namespaces (drills/fabric/tun.py), else
loopback addresses joined by a proxy (drills/fabric/loopback.py). A fabric acts on nothing but what it made: hosts are
known by name, namespaces and processes by the tag of their owner. What it made goes when it is closed; when its owner
dies in any other way, the kernel ends the processes, the forwarder removes the rest, and the next fabric looks for
leftovers of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from drills.fabric import namespaces
from drills.fabric.base import OUTSIDE, sweep
from drills.fabric.impairment import Impairment
from drills.fabric.loopback import LoopbackFabric
from drills.fabric.rules import ANY, FabricError
from drills.fabric.tun import TunFabric
from drills.processes import Process

__all__ = [
    "OUTSIDE",
    "Fabric",
    "FabricError",
    "LoopbackFabric",
    "TunFabric",
    "open_fabric",
    "sweep",
    "why_no_namespaces",
]


class Fabric(Protocol):
    """Test hosts and the paths between them. Endpoints: `host`, `host/path` (from 1), `*`; see drills/fabric/rules."""

    @property
    def kind(self) -> Literal["tun", "loopback"]:
        """Namespaces or the fallback."""

    @property
    def control(self) -> Path:
        """A UNIX socket by which another process can impair, heal and count: `ControlClient(control)`."""

    @property
    def directory(self) -> Path:
        """For the files of whoever uses the fabric; removed with it."""

    @property
    def hosts(self) -> Mapping[str, tuple[str, ...]]:
        """The addresses by which others reach each host, one per path."""

    def add_host(self, name: str, *, paths: int = 1) -> None:
        """Add a host with so many addresses, each on a path (and interface) of its own."""

    def remove_host(self, name: str) -> None:
        """End its processes and take it away."""

    def address(self, host: str, path: int = 1) -> str:
        """Where others reach it."""

    def bind_address(self, host: str, path: int = 1) -> str:
        """What its own sockets bind; the same as `address` in namespaces."""

    def expose(self, host: str, port: int, protocol: Literal["udp", "tcp"]) -> None:
        """Make a port reachable for others, on all paths. In namespaces every port is."""

    def run(
        self,
        host: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        name: str = "",
        log: Path | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Start a command on a host. `env` is its whole environment, ours by default."""

    def impair(self, src: str, dst: str, impairment: Impairment, *, both: bool = False) -> None:
        """From now on; the rule made last wins. `both` ways with dice of their own."""

    def partition(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Nothing gets from `a` to `b`, nor back unless `one_way`."""

    def cut(self, host: str) -> None:
        """Nothing gets to or from a host; `heal(host)` takes it back."""

    def heal(self, a: str = ANY, b: str = ANY) -> int:
        """Take back the rules between these very endpoints, or all; returns how many there were."""

    def counters(self) -> dict[str, Any]:
        """`lanes`: a dictionary per ordered pair of addresses (`impairment.Counts`); the rest is the forwarder's."""

    def close(self) -> None:
        """End all processes and remove everything. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_fabric(kind: Literal["auto", "tun", "loopback"] = "auto", *, seed: int = 0, mtu: int = 1500) -> Fabric:
    """The best fabric that this machine allows, or the one asked for. Raises FabricError when that cannot be had.

    Whoever falls back should say so: `why_no_namespaces` has the reason.
    """
    if kind == "loopback" or (kind == "auto" and why_no_namespaces()):
        return LoopbackFabric(seed=seed)
    return TunFabric(seed=seed, mtu=mtu)


def why_no_namespaces() -> str | None:
    """Why `open_fabric` falls back here; None where it does not."""
    return namespaces.why_not()

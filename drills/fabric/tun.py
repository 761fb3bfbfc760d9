"""The fabric of network namespaces: a TUN star."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from collections.abc import Sequence
from typing import Literal

from drills.fabric import namespaces
from drills.fabric.base import OUTSIDE, BaseFabric
from drills.fabric.rules import FabricError

_QUEUE_PACKETS = 2000  # a device's, towards the forwarder: 50 ms at 40,000 packets/s


class TunFabric(BaseFabric):
    """Network namespaces, each joined to the forwarder by a TUN device per path: 10.x.1.n, 10.x.2.n, ….

    Each namespace has a default route into the fabric. With `outside`, this machine's own namespace has a device too
    (10.x.0.1), so that it can reach the hosts; it and its route vanish with the forwarder.
    """

    kind: Literal["tun", "loopback"] = "tun"
    _forwarder_module = "drills.fabric.switch"

    def __init__(self, *, seed: int = 0, mtu: int = 1500, outside: bool = True) -> None:
        reason = namespaces.why_not()
        if reason:
            raise FabricError(f"there can be no network namespaces here: {reason}")
        self._mtu = mtu
        self._namespaces: dict[str, str] = {}
        super().__init__(seed)
        if outside:
            try:
                self._add_outside()
            except BaseException:
                self.close()
                raise

    def add_host(self, name: str, *, paths: int = 1) -> None:
        number = self._new_number(name, paths)
        addresses = tuple(f"10.{self.number}.{path}.{number}" for path in range(1, paths + 1))
        namespace = f"{self._tag}-{name}"
        self._namespaces[name] = namespace
        fds: list[int] = []
        try:
            namespaces.create(namespace)
            for path in range(1, paths + 1):
                fd, device = namespaces.open_tun()
                fds.append(fd)
                namespaces.ip("link", "set", "dev", device, "netns", namespace, "name", f"p{path}")
            namespaces.ip_batch(self._interfaces(addresses), namespace)
            self._ask("attach", fds, host=name, addresses=addresses)
        except BaseException:
            with contextlib.suppress(FabricError):
                namespaces.remove(self._namespaces.pop(name))
            raise
        finally:
            for fd in fds:
                os.close(fd)
        self._hosts[name], self._numbers[name] = addresses, number

    def remove_host(self, name: str) -> None:
        if name == OUTSIDE:
            raise FabricError("this machine itself cannot be removed")
        super().remove_host(name)
        namespaces.remove(self._namespaces.pop(name))

    def bind_address(self, host: str, path: int = 1) -> str:
        return self.address(host, path)

    def expose(self, host: str, port: int, protocol: Literal["udp", "tcp"]) -> None:
        self.address(host)

    def _interfaces(self, addresses: Sequence[str]) -> list[str]:
        """Commands that give a namespace its addresses; what is sent from an address leaves by its interface."""
        lines = []
        for path, address in enumerate(addresses, 1):
            lines += [
                f"link set dev p{path} mtu {self._mtu} txqueuelen {_QUEUE_PACKETS} up",
                f"addr add {address}/24 dev p{path}",
                f"route add default dev p{path} table {100 + path}",
                f"rule add from {address} table {100 + path}",
            ]
        return [*lines, f"route add default dev p1 src {addresses[0]}"]

    def _add_outside(self) -> None:
        address = f"10.{self.number}.0.1"
        fd, device = namespaces.open_tun()
        try:
            namespaces.ip_batch(
                [
                    f"link set dev {device} mtu {self._mtu} txqueuelen {_QUEUE_PACKETS} up",
                    f"addr add {address}/32 dev {device}",
                    f"route add 10.{self.number}.0.0/16 dev {device} src {address}",
                ]
            )
            self._ask("attach", [fd], host=OUTSIDE, addresses=[address])
        finally:
            os.close(fd)
        self._hosts[OUTSIDE] = (address,)

    def _prefix(self, host: str) -> list[str]:
        return [] if host == OUTSIDE else ["ip", "netns", "exec", self._namespaces[host]]

    def _is_free(self, number: int) -> bool:
        ours = ipaddress.ip_network(f"10.{number}.0.0/16")
        routes = json.loads(namespaces.ip("-json", "-4", "route", "show", "table", "all"))
        known = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
        return not any(ours.overlaps(each) for each in known)

    def _remove_hosts(self) -> None:
        for namespace in self._namespaces.values():
            with contextlib.suppress(FabricError):  # it may have been removed by hand; the others still go
                namespaces.remove(namespace)
        self._namespaces.clear()

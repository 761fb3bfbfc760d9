"""The forwarder of the loopback fabric: UDP and TCP proxies with the impairments of the TUN star, on uvloop.

`python -m drills.fabric.proxy` is started by `drills.fabric.loopback` as the switch is by its fabric.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvloop

from drills.fabric.base import OUTSIDE
from drills.fabric.control import ControlServer, Request, rule_handlers
from drills.fabric.impairment import Lane
from drills.fabric.proxy_tcp import TcpRelay
from drills.fabric.proxy_udp import UdpRelay
from drills.fabric.rules import FabricError, Rules
from drills.fabric.switch import OWNER_ONLY, arguments, prepare, remove_what_is_left

_OWNER_CHECK_S = 1.0
_OUTSIDE_ADDRESS = "127.0.0.1"


class Way:
    """A direction between two addresses: its lane, and what became of what it let through."""

    __slots__ = ("delivered", "dst", "in_flight", "lane", "src", "undeliverable")

    def __init__(self, src: str, dst: str, lane: Lane) -> None:
        self.src, self.dst, self.lane = src, dst, lane
        self.delivered = self.in_flight = self.undeliverable = 0


class Proxy:
    """Hosts, their exposed ports and the ways between them. Addresses are those in front, where others reach a host."""

    def __init__(self, seed: int) -> None:
        self.rules = Rules()
        self.rules.add_host(OUTSIDE, [_OUTSIDE_ADDRESS])
        self._seed = seed
        self._front_of: dict[str, str] = {}
        self._bound_of: dict[str, str] = {}
        self._ways: dict[tuple[str, str], Way] = {}
        self._relays: dict[tuple[str, int, str], UdpRelay | TcpRelay] = {}
        self.changed = asyncio.Event()
        """Set, and replaced by a new one, whenever the rules change."""

    def handlers(self) -> dict[str, Any]:
        """What can be asked of it."""
        own = {
            "attach": self._attach,
            "detach": self._detach,
            "expose": self._expose,
            "counters": lambda _request, _fds: self.counters(),
        }
        return own | rule_handlers(self.rules, self._rules_changed)

    def source(self, address: str) -> str:
        """Whose packets these are, by where they come from."""
        return self._front_of.get(address, _OUTSIDE_ADDRESS)

    def bound(self, front: str) -> str:
        """Where the host behind an address really listens."""
        return self._bound_of[front]

    def way(self, src: str, dst: str) -> Way:
        """The direction between two addresses."""
        way = self._ways.get((src, dst))
        if way is None:
            lane = Lane(self.rules.between(src, dst), f"{self._seed}/{src}/{dst}")
            way = self._ways[src, dst] = Way(src, dst, lane)
        return way

    def counters(self) -> dict[str, Any]:
        """As those of the switch."""
        lanes = [
            {
                "from": self.rules.name_of(way.src),
                "to": self.rules.name_of(way.dst),
                "src": way.src,
                "dst": way.dst,
                **way.lane.counts.as_dict(),
                "delivered": way.delivered,
                "in_flight": way.in_flight,
                "undeliverable": way.undeliverable,
            }
            for way in self._ways.values()
        ]
        refused = sum(relay.refused for relay in self._relays.values())
        return {"lanes": lanes, "unroutable": 0, "foreign": 0, "refused": refused, "late_us": {}}

    def close(self) -> None:
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()

    def _rules_changed(self) -> None:
        for way in self._ways.values():
            way.lane.settings = self.rules.between(way.src, way.dst)
        self.changed.set()
        self.changed = asyncio.Event()

    def _attach(self, request: Request, _: list[int]) -> None:
        fronts = [str(address) for address in request["addresses"]]
        bound = [str(address) for address in request["bound"]]
        if len(fronts) != len(bound):
            raise FabricError("each address in front needs one behind it")
        self.rules.add_host(str(request["host"]), fronts)
        self._bound_of.update(zip(fronts, bound, strict=True))
        # A host that answers through another proxy comes from its address in front.
        self._front_of.update(zip([*bound, *fronts], [*fronts, *fronts], strict=True))

    def _detach(self, request: Request, _: list[int]) -> None:
        host = str(request["host"])
        self.rules.require(host)
        fronts = set(self.rules.hosts[host])
        self.rules.remove_host(host)
        for key in [key for key in self._relays if key[0] in fronts]:
            self._relays.pop(key).close()
        self._ways = {key: way for key, way in self._ways.items() if not fronts & {*key}}
        for front in fronts:
            del self._front_of[self._bound_of.pop(front)], self._front_of[front]

    def _expose(self, request: Request, _: list[int]) -> None:
        host, port, protocol = str(request["host"]), request["port"], request["protocol"]
        self.rules.require(host)
        if not isinstance(port, int) or not 0 < port < 65_536 or protocol not in ("udp", "tcp"):
            raise FabricError(f"{protocol} {port} is no port")
        for front in self.rules.hosts[host]:
            key = (front, port, protocol)
            if key in self._relays:
                continue
            try:
                self._relays[key] = (UdpRelay if protocol == "udp" else TcpRelay)(self, front, port)
            except OSError as error:
                raise FabricError(f"{protocol} {front}:{port} cannot be opened: {error.strerror}") from None


def _watch(fd: int, callback: Callable[[], None] | None) -> None:
    loop = asyncio.get_running_loop()
    if callback is None:
        loop.remove_reader(fd)
    else:
        loop.add_reader(fd, callback)


async def run() -> None:
    """Until the owner dismisses us or is gone; in the second case what it left is removed."""
    owner, control, seed = arguments()
    prepare(owner)
    stop, dismissed = asyncio.Event(), asyncio.Event()
    proxy = Proxy(seed)

    def dismiss(_request: Request, _fds: list[int]) -> None:
        dismissed.set()
        stop.set()

    handlers = {**proxy.handlers(), "dismiss": dismiss}
    server = ControlServer(socket.socket(fileno=0), control, handlers, OWNER_ONLY | {"expose"}, _watch, stop.set)
    while not stop.is_set() and owner.is_alive():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _OWNER_CHECK_S)
    proxy.close()
    server.close()
    if not dismissed.is_set():
        remove_what_is_left(owner)


if __name__ == "__main__":
    uvloop.run(run())

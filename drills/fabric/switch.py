"""The centre of the TUN star: one process that moves IPv4 packets between the devices of the test hosts.

It drains each device in batches, looks the ordered pair of addresses up, and either passes the packet on at once or
keeps it in a heap until it is due. `python -m drills.fabric.switch` is started by `drills.fabric` with a socket to it
as standard input; when that closes, the owner is gone, and the switch removes what it left before it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import heapq
import itertools
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drills import ownership
from drills.fabric import namespaces
from drills.fabric.control import ControlServer, Request, rule_handlers
from drills.fabric.impairment import Lane
from drills.fabric.rules import FabricError, Rules
from relay.clock import now_us

_BATCH = 64  # packets from one device before the next one's turn
_MAX_PACKET = 65_535
_MAX_WAITING = 100_000  # packets: 2 s at the most that one process forwards
_MAX_DEVICES = 900  # select(2) takes descriptors below 1024
_LATENESS_KEPT = 8192
_OWNER_CHECK_S = 1.0

OWNER_ONLY = frozenset({"attach", "detach", "dismiss"})


class _Way:
    """A lane with the device at its end."""

    __slots__ = ("delivered", "dst", "fd", "in_flight", "is_clear", "lane", "src", "undeliverable")

    def __init__(self, src: str, dst: str, fd: int, lane: Lane) -> None:
        self.src, self.dst, self.fd, self.lane = src, dst, fd, lane
        self.is_clear = lane.settings.is_clear
        self.delivered = self.in_flight = self.undeliverable = 0


class Switch:
    """Devices in, devices out. `seed` makes the dice of each pair of addresses."""

    def __init__(self, seed: int) -> None:
        self.rules = Rules()
        self._seed = seed
        self._devices: dict[int, str] = {}
        self._device_of: dict[str, int] = {}
        self._ways: dict[bytes, _Way] = {}
        self._waiting: list[tuple[int, int, _Way, bytes]] = []
        self._order = itertools.count()
        self._watched: dict[int, Callable[[], None]] = {}
        self._inputs: list[int] = []
        self._lateness: deque[int] = deque(maxlen=_LATENESS_KEPT)
        self.unroutable = self.foreign = self.refused = 0
        self.stopped = False

    def handlers(self) -> dict[str, Any]:
        """What can be asked of it."""
        own = {"attach": self._attach, "detach": self._detach, "counters": lambda _request, _fds: self.counters()}
        return own | rule_handlers(self.rules, self._rules_changed)

    def watch(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Call back when a descriptor can be read; None ends that."""
        if callback is None:
            self._watched.pop(fd, None)
        else:
            self._watched[fd] = callback
        self._inputs = [*self._devices, *self._watched]

    def run(self, is_orphan: Callable[[], bool]) -> None:
        """Forward until `stopped` or `is_orphan`."""
        checked = time.monotonic()
        while not self.stopped:
            ready, _, _ = select.select(self._inputs, (), (), self._until_due())
            for fd in ready:
                if fd in self._devices:
                    self._drain(fd)
                elif fd in self._watched:
                    self._watched[fd]()
            if self._waiting:
                self._deliver_due()
            if time.monotonic() - checked > _OWNER_CHECK_S:
                checked = time.monotonic()
                self.stopped |= is_orphan()

    def counters(self) -> dict[str, Any]:
        """Per ordered pair of addresses, and of the switch."""
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
        late = sorted(self._lateness)
        return {
            "lanes": lanes,
            "unroutable": self.unroutable,
            "foreign": self.foreign,
            "refused": self.refused,
            "late_us": {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100]} if late else {},
        }

    def _until_due(self) -> float:
        if not self._waiting:
            return _OWNER_CHECK_S
        return min(_OWNER_CHECK_S, max(0.0, (self._waiting[0][0] - now_us()) / 1e6))

    def _drain(self, fd: int) -> None:
        ways, read, write = self._ways, os.read, os.write
        for _ in range(_BATCH):
            try:
                packet = read(fd, _MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:  # the device is gone with its namespace: the owner will detach it
                self.watch_device(fd, on=False)
                return
            way = ways.get(packet[12:20]) or self._way(packet)
            if way is None:
                continue
            if way.is_clear:
                counts = way.lane.counts
                counts.entered += 1
                counts.entered_bytes += len(packet)
                try:
                    write(way.fd, packet)
                    way.delivered += 1
                except OSError:
                    way.undeliverable += 1
            else:
                self._impair(way, packet)

    def _impair(self, way: _Way, packet: bytes) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self.refused += 1
            return
        now = now_us()
        for delivery in way.lane.enter(now, len(packet)):
            out = packet if delivery.flip is None else _flipped(packet, delivery.flip)
            way.in_flight += 1
            if delivery.at <= now:
                self._deliver(way, out)
            else:
                heapq.heappush(self._waiting, (delivery.at, next(self._order), way, out))

    def _deliver_due(self) -> None:
        waiting = self._waiting
        now = now_us()
        while waiting and waiting[0][0] <= now:
            at, _, way, packet = heapq.heappop(waiting)
            self._lateness.append(now - at)
            self._deliver(way, packet)
            now = now_us()

    def _deliver(self, way: _Way, packet: bytes) -> None:
        way.in_flight -= 1
        try:
            os.write(way.fd, packet)
            way.delivered += 1
        except OSError:
            way.undeliverable += 1

    def _way(self, packet: bytes) -> _Way | None:
        """The way of a packet whose pair of addresses is new; None where there is none."""
        if len(packet) < 20 or packet[0] >> 4 != 4:
            self.foreign += 1  # IPv6: the kernel's router solicitations
            return None
        src, dst = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        fd = self._device_of.get(dst)
        if fd is None or src not in self._device_of:
            self.unroutable += 1
            return None
        lane = Lane(self.rules.between(src, dst), f"{self._seed}/{src}/{dst}")
        way = self._ways[packet[12:20]] = _Way(src, dst, fd, lane)
        return way

    def _rules_changed(self) -> None:
        for way in self._ways.values():
            way.lane.settings = self.rules.between(way.src, way.dst)
            way.is_clear = way.lane.settings.is_clear

    def watch_device(self, fd: int, *, on: bool) -> None:
        """Read from a device, or no more; it is written to as before."""
        if on:
            self._inputs.append(fd)
        else:
            self._inputs = [each for each in self._inputs if each != fd]

    def _attach(self, request: Request, fds: list[int]) -> None:
        addresses = [str(address) for address in request["addresses"]]
        if len(fds) != len(addresses):
            raise FabricError(f"{len(fds)} devices for {len(addresses)} addresses")
        if len(self._devices) + len(fds) > _MAX_DEVICES:
            raise FabricError(f"a fabric has {_MAX_DEVICES} devices at most")
        for address in addresses:
            socket.inet_aton(address)
        self.rules.add_host(str(request["host"]), addresses)
        for fd, address in zip(fds, addresses, strict=True):
            os.set_blocking(fd, False)
            self._devices[fd] = address
            self._device_of[address] = fd
            self.watch_device(fd, on=True)

    def _detach(self, request: Request, _: list[int]) -> None:
        host = str(request["host"])
        self.rules.require(host)
        addresses = self.rules.hosts[host]
        self.rules.remove_host(host)
        gone = {self._device_of.pop(address) for address in addresses}
        self._ways = {key: way for key, way in self._ways.items() if not {way.src, way.dst} & set(addresses)}
        self._waiting = [entry for entry in self._waiting if entry[2].fd not in gone]
        heapq.heapify(self._waiting)
        for fd in gone:
            del self._devices[fd]
            self.watch_device(fd, on=False)
            os.close(fd)


def _flipped(packet: bytes, where: float) -> bytes:
    """A copy with one bit of what follows the IP header flipped: a broken address would make it another packet."""
    header = (packet[0] & 15) * 4
    bits = (len(packet) - header) * 8
    if bits <= 0:
        return packet
    byte, bit = divmod(int(where * bits), 8)
    changed = bytearray(packet)
    changed[header + byte] ^= 0x80 >> bit
    return bytes(changed)


def remove_what_is_left(owner: ownership.Owner) -> None:
    """Wait until the owner has ended, then remove its processes, namespaces and directories."""
    deadline = time.monotonic() + 10
    while owner.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    if owner.is_dead():
        ownership.end_processes(owner.tag)
        namespaces.sweep()
        ownership.sweep_directories()


def prepare(owner: ownership.Owner) -> None:
    """What every forwarder needs: no signals of a terminal, to go before others, no pauses."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the owner
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # a late forwarder would be measured as a bad network
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    if not owner.is_alive():
        sys.exit("the owner has ended")


def arguments() -> tuple[ownership.Owner, Path, int]:
    """Owner, control socket's path and seed, from the command line."""
    parser = argparse.ArgumentParser(description="Started by drills.fabric; standard input is a socket to the owner.")
    parser.add_argument("--owner", required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    owner = ownership.owner_of(options.owner)
    if owner is None:
        parser.error(f"{options.owner!r} is no owner")
    return owner, options.control, options.seed


def main() -> None:
    owner, control, seed = arguments()
    prepare(owner)
    switch = Switch(seed)

    dismissed = False

    def stop() -> None:
        switch.stopped = True

    def dismiss(_request: Request, _fds: list[int]) -> None:
        nonlocal dismissed
        dismissed = True
        stop()

    handlers = {**switch.handlers(), "dismiss": dismiss}
    server = ControlServer(socket.socket(fileno=0), control, handlers, OWNER_ONLY, switch.watch, stop)
    switch.run(lambda: not owner.is_alive())
    server.close()
    if not dismissed:
        remove_what_is_left(owner)


if __name__ == "__main__":
    main()

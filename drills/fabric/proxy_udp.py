"""UDP through the proxy: one socket in front of a port, and one behind it for each client."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
from typing import TYPE_CHECKING

from relay.clock import now_us

if TYPE_CHECKING:
    from drills.fabric.proxy import Proxy, Way

_BATCH = 64  # datagrams from one socket before the next one's turn
_MAX_DATAGRAM = 65_535
_MOST_FLOWS = 4096
_MOST_WAITING = 50_000  # datagrams of one port that wait for their time
_IDLE_S = 60.0
_BUFFER = 4 * 1024 * 1024
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # socket(7): for root

Address = tuple[str, int]


class _Flow:
    """A client's way through: the socket behind the proxy, from which the host sees it come."""

    __slots__ = ("back", "client", "forth", "socket", "used")

    def __init__(self, opened: socket.socket, client: Address, forth: Way, back: Way) -> None:
        self.socket, self.client, self.forth, self.back = opened, client, forth, back
        self.used = 0


class UdpRelay:
    """One exposed UDP port. Raises OSError when it is taken."""

    def __init__(self, proxy: Proxy, front: str, port: int) -> None:
        self.refused = 0
        self._proxy, self._front, self._port = proxy, front, port
        self._loop = asyncio.get_running_loop()
        self._flows: dict[Address, _Flow] = {}
        self._waiting: list[tuple[int, int, _Flow, Way, bytes]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = _bound(front, port)
        self._loop.add_reader(self._socket.fileno(), self._from_clients)
        self._tidying = self._loop.call_later(_IDLE_S, self._tidy)

    def close(self) -> None:
        self._tidying.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for flow in list(self._flows.values()):
            self._end(flow)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _from_clients(self) -> None:
        for _ in range(_BATCH):
            try:
                data, client = self._socket.recvfrom(_MAX_DATAGRAM)
            except OSError:  # nothing more, or the ICMP error of a client that has gone
                return
            flow = self._flows.get(client) or self._open(client)
            if flow is None:
                self.refused += 1
                continue
            self._impair(flow, flow.forth, data)

    def _from_host(self, flow: _Flow) -> None:
        for _ in range(_BATCH):
            try:
                data = flow.socket.recv(_MAX_DATAGRAM)
            except OSError:
                return
            self._impair(flow, flow.back, data)

    def _impair(self, flow: _Flow, way: Way, data: bytes) -> None:
        flow.used = now = now_us()
        if len(self._waiting) >= _MOST_WAITING:
            self.refused += 1
            return
        for delivery in way.lane.enter(now, len(data)):
            out = data if delivery.flip is None else _flipped(data, delivery.flip)
            way.in_flight += 1
            if delivery.at <= now:
                self._deliver(flow, way, out)
            else:
                entry = (delivery.at, next(self._order), flow, way, out)
                heapq.heappush(self._waiting, entry)
                if self._waiting[0] is entry:
                    self._arm()

    def _arm(self) -> None:
        """Set the one timer for the datagram that is due next."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._waiting:
            self._timer = self._loop.call_later((self._waiting[0][0] - now_us()) / 1e6, self._deliver_due)

    def _deliver_due(self) -> None:
        """The loop's timers have milliseconds and may be early: what is not due yet waits on."""
        now = now_us()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, flow, way, data = heapq.heappop(self._waiting)
            self._deliver(flow, way, data)
        self._arm()

    def _deliver(self, flow: _Flow, way: Way, data: bytes) -> None:
        way.in_flight -= 1
        try:
            if way is flow.forth:
                flow.socket.send(data)
            else:
                self._socket.sendto(data, flow.client)
            way.delivered += 1
        except OSError:  # a full buffer, or nobody listens there (any more)
            way.undeliverable += 1

    def _open(self, client: Address) -> _Flow | None:
        if len(self._flows) >= _MOST_FLOWS:
            return None
        src = self._proxy.source(client[0])
        opened = _bound(src, 0)
        opened.connect((self._proxy.bound(self._front), self._port))
        flow = _Flow(opened, client, self._proxy.way(src, self._front), self._proxy.way(self._front, src))
        self._loop.add_reader(opened.fileno(), self._from_host, flow)
        self._flows[client] = flow
        return flow

    def _end(self, flow: _Flow) -> None:
        del self._flows[flow.client]
        self._loop.remove_reader(flow.socket.fileno())
        flow.socket.close()

    def _tidy(self) -> None:
        idle_since = now_us() - round(_IDLE_S * 1e6)
        for flow in [flow for flow in self._flows.values() if flow.used < idle_since]:
            self._end(flow)
        self._tidying = self._loop.call_later(_IDLE_S, self._tidy)


def _bound(address: str, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.bind((address, port))
    except OSError:
        opened.close()
        raise
    opened.setblocking(False)
    for option, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
        except PermissionError:  # as much as net.core.rmem_max and wmem_max allow
            opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return opened


def _flipped(data: bytes, where: float) -> bytes:
    """A copy with one bit flipped; the kernel's checksum is made anew, so the receiver gets it."""
    if not data:
        return data
    byte, bit = divmod(int(where * len(data) * 8), 8)
    changed = bytearray(data)
    changed[byte] ^= 0x80 >> bit
    return bytes(changed)

"""The reference plane on a UDP socket of the running asyncio loop (or uvloop).

A wake-up drains at most 64 datagrams and takes little more than 5 ms, so that the loop's other work is never kept
waiting for long; each datagram's output is sent before the next is read, so that a large fan-out does not delay the
first viewer.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from relay.clock import now_us
from relay.errors import SettingsError, UsageError
from relay.plane.contract import Address, Command, Event, PlaneConfig, PlaneStats
from relay.plane.reference.forwarder import Forwarder
from relay.plane.ring_pump import RingPump
from relay.plane.rings import PlaneRings, RingOpener

BATCH = 64  # datagrams per wake-up
SLICE_US = 5_000  # a wake-up ends after the datagram that reaches this; a fan-out of 100 takes 1 ms for one
BACKLOG = 64  # datagrams kept while the socket is full: one large frame; older media is worth less than newer
SOCKET_BUFFER = 4 << 20  # bytes: 40 ms of 800 Mbit/s; the kernel gives less without privileges
_READ = 2048  # bytes: more than any datagram we take, so that a longer one shows
_MAPPED = "::ffff:"
_MAX_WIRE_NAMES = 16_384


def _ignore(_: object) -> None:
    """The callback until one is set."""


class ReferencePlane(RingOpener):
    """See `relay.plane.Plane`."""

    name = "reference"

    def __init__(self, config: PlaneConfig, host: str, port: int, socket_buffer: int = SOCKET_BUFFER) -> None:
        """Bind the port. Raises SettingsError when that fails, UsageError for a wrong `config`."""
        if not config.wall_offset_us:
            config = replace(config, wall_offset_us=time.time_ns() // 1000 - now_us())
        if not config.seed:
            config = replace(config, seed=secrets.randbits(64))
        self.on_events: Callable[[list[Event]], None] = _ignore
        self.on_taps: Callable[[list[tuple[int, bytes, int]]], None] = _ignore
        self.on_failed: Callable[[str], None] = _ignore
        self._forwarder = Forwarder(config)
        self._socket = _bind(host, port, socket_buffer)
        self._mapped = self._socket.family == socket.AF_INET6
        self._wire: dict[Address, Address] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._backlog: deque[tuple[bytes, Address]] = deque()
        self._drops: dict[str, int] = {}
        self._pump = RingPump(self._take_injected, self._settle)
        self._rings = PlaneRings(self._pump, self.submit)
        self._settling = False
        self._closed = False

    @property
    def addresses(self) -> list[Address]:
        host, port = self._socket.getsockname()[:2]
        return [(host, port)]

    @property
    def cpus(self) -> list[int]:
        return []

    @property
    def healthy(self) -> bool:
        return True  # it runs in the loop: who can ask gets an answer

    @property
    def ways(self) -> list[str]:
        return []

    @property
    def slabs(self) -> list[tuple[int, int]]:
        return [self._forwarder.slab]

    @property
    def slab(self) -> tuple[int, int]:
        return self._forwarder.slab

    def counters(self) -> dict[str, int]:
        return {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._pump.start(self._loop)
        self._rings.start(self._loop)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._rings.close()
        self._socket.close()

    def submit(self, *commands: Command) -> None:
        now = now_us()
        try:
            known = self._rings.known(commands)
            for command in commands[:known]:
                self._forwarder.apply(command, now)
            self._rings.refuse(commands[known:])
        finally:
            self._settle()

    def inject(self, track: int, layer: int, packet: bytes) -> None:
        self._forwarder.inject(track, layer, packet, now_us())
        self._settle()

    def _take_injected(self, track: int, layer: int, packet: bytes) -> bool:
        try:
            self._forwarder.inject(track, layer, packet, now_us())
        except UsageError:  # the track is gone; the worker cannot know that yet
            self._count("inject_refused")
            return False
        return True

    def stats(self) -> PlaneStats:
        stats = self._forwarder.stats()
        for reason, count in self._drops.items():
            stats.drops[reason] = stats.drops.get(reason, 0) + count
        return stats

    def _readable(self) -> None:
        receive, read, forwarder, mapped = self._forwarder.receive, self._socket.recvfrom, self._forwarder, self._mapped
        until = now_us() + SLICE_US
        for _ in range(BATCH):
            try:
                datagram, source = read(_READ)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:  # an ICMP error of some earlier datagram; it says nothing about the next
                self._count("in_" + _errno_name(error))
                continue
            if mapped:
                host = source[0]
                source = (host[7:] if host.startswith(_MAPPED) else host, source[1])
            now = now_us()
            receive(datagram, source, now)
            out = forwarder.transmit()
            if out:
                self._send(out)
            if now > until:
                break
        self._settle()

    def _settle(self) -> None:
        """Send, tell and set the timer. Callbacks that submit commands come back here: the outermost call goes on."""
        if self._settling or self._closed:
            return
        self._settling = True
        forwarder = self._forwarder
        try:
            while True:
                timeout, now = forwarder.next_timeout(), now_us()
                if timeout is not None and timeout <= now:
                    forwarder.handle_timeout(now)
                out, events, tapped = forwarder.transmit(), forwarder.events(), forwarder.taps_by_ring()
                if out:
                    self._send(out)
                if tapped and (copies := self._pump.put(tapped)):
                    self.on_taps(copies)
                if events:
                    self.on_events(events)
                if not (tapped or events) or self._closed:
                    break
        finally:
            self._settling = False
            if not self._closed:
                self._set_timer()

    def _set_timer(self) -> None:
        """Wake up for the next deadline. A timer that fires too early only sets itself again, so it may stay."""
        timeout = self._forwarder.next_timeout()
        if timeout is None or self._loop is None:
            return
        if self._timer is not None:
            if self._timer_at <= timeout:
                return
            self._timer.cancel()
        self._timer_at = timeout
        self._timer = self._loop.call_later(max(0, timeout - now_us()) / 1_000_000, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._settle()

    def _send(self, out: list[tuple[bytes, Address]]) -> None:
        if self._backlog:
            self._keep(out)
            return
        send = self._socket.sendto
        if self._mapped:
            out = [(datagram, self._wire.get(address) or self._name(address)) for datagram, address in out]
        for index, (datagram, address) in enumerate(out):
            try:
                send(datagram, address)
            except (BlockingIOError, InterruptedError):
                self._keep(out[index:], named=True)
                return
            except OSError as error:  # unreachable, forbidden, too long for the interface: this datagram's loss
                self._count("out_" + _errno_name(error))

    def _keep(self, out: list[tuple[bytes, Address]], named: bool = False) -> None:
        """The socket is full: keep a frame's worth, drop and count the rest."""
        room = BACKLOG - len(self._backlog)
        for datagram, address in out[:room]:
            self._backlog.append((datagram, address if named or not self._mapped else self._name(address)))
        if len(out) > room:
            self._count("out_socket_full", len(out) - room)
        if self._backlog and self._loop is not None and not self._closed:
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        backlog = self._backlog
        while backlog:
            try:
                self._socket.sendto(*backlog[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._count("out_" + _errno_name(error))
            backlog.popleft()
        if self._loop is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _name(self, address: Address) -> Address:
        """How a dual-stack socket spells an address."""
        if len(self._wire) >= _MAX_WIRE_NAMES:
            self._wire.clear()
        host, port = address
        wire = self._wire[address] = (host if ":" in host else _MAPPED + host, port)
        return wire

    def _count(self, reason: str, count: int = 1) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + count


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown").lower()


def _bind(host: str, port: int, buffer: int) -> socket.socket:
    """A non-blocking UDP socket with large buffers. `::` falls back to IPv4 where there is no IPv6."""
    try:
        if ":" in host:
            try:
                return _open(socket.AF_INET6, host, port, buffer)
            except OSError:
                if host != "::" or _has_ipv6():
                    raise
                host = "0.0.0.0"
        return _open(socket.AF_INET, host, port, buffer)
    except OSError as error:
        raise SettingsError(f"UDP port {port} on {host} cannot be opened: {error.strerror or error}") from error


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _open(family: socket.AddressFamily, host: str, port: int, buffer: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, buffer)
        opened.setblocking(False)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened

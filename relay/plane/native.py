"""The native plane for asyncio: threads move the packets, this tells the loop what happened.

Commands are carried out by the threads before `submit` returns; events come later, in a wake-up of the loop. Datagrams
never wait for the loop, nor for the GIL.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import structlog

from relay.clock import now_us
from relay.errors import Overloaded, SettingsError
from relay.plane import topology
from relay.plane._native import NativePlane as _Shards
from relay.plane.contract import Address, Command, Event, PlaneConfig, PlaneStats
from relay.plane.driver import SOCKET_BUFFER
from relay.plane.pins import Pins
from relay.plane.resync import Told
from relay.plane.rings import PlaneRings, RingOpener
from relay.plane.shared_ring import SharedRing
from relay.plane.urgency import FIFO_PRIORITY, NICE, Priority, fitting, plane_threads, urge
from relay.plane.vigil import Vigil

log = structlog.get_logger()

T = TypeVar("T")
Counters = Mapping[str, int | Mapping[int, int]]

_BATCH = 1024  # events that one wake-up takes at most, as `rust/src/python/plane.rs` has it
_FORGET = 4096  # entries of what was told; then those of what is gone are looked for


def _ignore(_: object) -> None:
    """The callback until one is set."""


class _Part(Mapping[int, T]):
    """A part of a snapshot, converted when it is first looked at."""

    def __init__(self, load: Callable[[], dict[int, T]]) -> None:
        self._load = load
        self._loaded: dict[int, T] | None = None

    def _all(self) -> dict[int, T]:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def __getitem__(self, handle: int) -> T:
        return self._all()[handle]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class _Engine:
    """The shards' rings; see `relay.plane.rings.RingEngine`."""

    def __init__(self, shards: _Shards) -> None:
        self._shards = shards
        self.bind_ring = shards.bind_ring
        self.close_ring = shards.close_ring
        self.ring_counts = shards.ring_counts

    def open_ring(self, number: int, ring: SharedRing, inject: bool) -> None:
        self._shards.open_ring(number, inject, ring.memory_fd, ring.wake.fileno(), ring.life.fileno())


class NativePlane(RingOpener):
    """See `relay.plane.Plane`. Commands wait for the threads, for as long as those lack CPU."""

    name = "native"

    def __init__(
        self,
        config: PlaneConfig,
        host: str,
        port: int,
        socket_buffer: int = SOCKET_BUFFER,
        *,
        shards: int = 1,
        pin: bool = False,
        priority: Priority = "none",
    ) -> None:
        """Bind the ports. SettingsError when binding fails, UsageError for a wrong `config`. See `open_plane`."""
        if not config.wall_offset_us:
            config = replace(config, wall_offset_us=time.time_ns() // 1000 - now_us())
        if not config.seed:
            config = replace(config, seed=secrets.randbits(64))
        self.on_events: Callable[[list[Event]], None] = _ignore
        self.on_taps: Callable[[list[tuple[int, bytes, int]]], None] = _ignore
        shards = shards or topology.default_shards(topology.read_cpus(), topology.read_limits())
        try:
            self._shards = _Shards(config, host, port, socket_buffer, shards=shards)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            ports = (
                f"UDP port {port}" if shards == 1 or not port else f"one of the UDP ports {port} to {port + shards - 1}"
            )
            raise SettingsError(f"{ports} on {host} cannot be opened: {reason}") from error
        self._pins = Pins(len(self._shards.addresses), self._shards.pin) if pin else None
        self._priority = priority
        self._rings = PlaneRings(_Engine(self._shards), self._shards.submit)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._vigil = Vigil(self._shards)
        self._closed = False
        self._told = Told(config.estimate_start)
        self._lost = 0
        self._forget_at = _FORGET
        self._stats = PlaneStats({}, {}, {}, {})
        self._counters: Counters = {}

    @property
    def addresses(self) -> list[Address]:
        return self._shards.addresses

    @property
    def on_failed(self) -> Callable[[str], None]:
        return self._vigil.on_failed

    @on_failed.setter
    def on_failed(self, told: Callable[[str], None]) -> None:
        self._vigil.on_failed = told

    @property
    def cpus(self) -> list[int]:
        return list(self._pins.cpus) if self._pins is not None else []

    @property
    def ways(self) -> list[str]:
        """How datagrams leave and come, e.g. `gso`, `sendmmsg`, `gro`: what was seen to work on this machine."""
        return self._shards.ways

    @property
    def healthy(self) -> bool:
        """No shard is lost."""
        return self._shards.healthy

    @property
    def slabs(self) -> list[tuple[int, int]]:
        return self._shards.slabs

    @property
    def slab(self) -> tuple[int, int]:
        free, total = zip(*self._shards.slabs, strict=True)
        return sum(free), sum(total)

    @property
    def slab_memory(self) -> str:
        """What kind of memory the slab got."""
        return self._shards.slab_memory

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._shards.event_descriptor, self._take_events)
        self._loop.add_reader(self._shards.tap_descriptor, self._take_taps)
        self._rings.start(self._loop)
        others = plane_threads()
        self._shards.start()
        self._urge(others)
        self._vigil.start(self._loop)
        if self._pins is not None:
            self._pins.start(self._loop)

    def _urge(self, others: set[int]) -> None:
        """Let our threads go first; `others` are those of other planes in this process."""
        wish = fitting(self._priority, len(self._shards.addresses), topology.read_limits())
        if wish == "none":
            return
        self.stats()  # who answers has its name
        got = {urge(thread, wish, FIFO_PRIORITY, NICE) for thread in plane_threads() - others}
        log.info("priority of the native packet plane's threads", got=sorted(got), wanted=self._priority)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._vigil.stop()
        if self._pins is not None:
            self._pins.stop()
        if self._loop is not None:
            self._loop.remove_reader(self._shards.event_descriptor)
            self._loop.remove_reader(self._shards.tap_descriptor)
        self._shards.close()
        self._rings.close()

    def submit(self, *commands: Command) -> None:
        known = self._rings.known(commands)
        self._shards.submit(*commands[:known])
        self._rings.refuse(commands[known:])

    def inject(self, track: int, layer: int, packet: bytes) -> None:
        self._shards.inject(track, layer, packet)

    def stats(self) -> PlaneStats:
        """Count everything, now. The tables are converted when they are looked at: they may be large."""
        try:
            snapshot = self._shards.stats()
        except Overloaded:
            return self._stats  # of a failed plane: what was known last
        self._counters = {**snapshot.counters(), "late_us": sum(self._shards.late_us)}
        sessions, tracks, slots = _Part(snapshot.sessions), _Part(snapshot.tracks), _Part(snapshot.slots)
        self._stats = PlaneStats(sessions, tracks, slots, snapshot.drops(), *snapshot.totals(), *snapshot.slab())
        _add_drops(self._stats.drops, self._counters)
        return self._stats

    def counters(self) -> Counters:
        """What the sockets did, as of the latest `stats`: messages and system calls in and out, what was lost where."""
        return self._counters

    def _take_events(self) -> None:
        events = self._shards.take_events()
        lost = self._shards.events_lost
        self._told.note(events)
        if lost != self._lost and len(events) < _BATCH:
            # The ring is empty, so the snapshot is newer than all that it held.
            log.warning(
                "events of the native packet plane were lost; made up for from its counts", events=lost - self._lost
            )
            self._lost = lost
            events += self._told.catch_up(self.stats())
        elif len(self._told) > self._forget_at:
            self._told.forget(self.stats())
            self._forget_at = max(_FORGET, 2 * len(self._told))
        if events and not self._closed:
            self.on_events(events)
        if not self.healthy:
            self._vigil.look()

    def _take_taps(self) -> None:
        tapped = self._shards.take_taps()
        if tapped and not self._closed:
            self.on_taps(tapped)


_DROPS = {
    "socket_full": "out_socket_full",
    "out_overflowed": "out_overflow",
    "injects_refused": "inject_refused",
    "orders_refused": "inject_overflow",
}


def _add_drops(drops: dict[str, int], counters: Counters) -> None:
    """Add what the socket and the rings dropped, under the names that the reference uses."""
    for name, value in counters.items():
        if isinstance(value, int):
            if value and name in _DROPS:
                drops[_DROPS[name]] = value
            continue
        for code, count in value.items():
            drops[f"{name.removesuffix('errors')}{errno.errorcode.get(code, 'unknown').lower()}"] = count

"""The native plane for asyncio: a thread moves the packets, this tells the loop what happened.

Commands are carried out by the thread before `submit` returns; events come later, in a wake-up of the loop. Datagrams
never wait for the loop, nor for the GIL.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from relay.errors import Overloaded, SettingsError
from relay.plane._native import NativePlane as _Shard
from relay.plane.contract import Address, Command, Event, PlaneConfig, PlaneStats
from relay.plane.driver import SOCKET_BUFFER, now_us

log = structlog.get_logger()

Counters = Mapping[str, int | Mapping[int, int]]


def _ignore(_: object) -> None:
    """The callback until one is set."""


class NativePlane:
    """See `relay.plane.Plane`. When the thread has failed, commands raise Overloaded and `healthy` is false."""

    name = "native"

    def __init__(
        self, config: PlaneConfig, host: str, port: int, socket_buffer: int = SOCKET_BUFFER, *, cpu: int | None = None
    ) -> None:
        """Bind the port; stay on `cpu`. SettingsError when binding fails, UsageError for a wrong `config`."""
        if not config.wall_offset_us:
            config = replace(config, wall_offset_us=time.time_ns() // 1000 - now_us())
        if not config.seed:
            config = replace(config, seed=secrets.randbits(64))
        self.on_events: Callable[[list[Event]], None] = _ignore
        self.on_taps: Callable[[list[tuple[int, bytes, int]]], None] = _ignore
        try:
            self._shard = _Shard(config, host, port, socket_buffer, cpu=cpu)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise SettingsError(f"UDP port {port} on {host} cannot be opened: {reason}") from error
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._told = False
        self._stats = PlaneStats({}, {}, {}, {})
        self._counters: Counters = {}

    @property
    def address(self) -> Address:
        return self._shard.address

    @property
    def ways(self) -> list[str]:
        """How datagrams leave and come, e.g. `gso`, `sendmmsg`, `gro`: what was seen to work on this machine."""
        return self._shard.ways

    @property
    def healthy(self) -> bool:
        """Neither failed nor hung."""
        return self._shard.healthy

    @property
    def slab(self) -> tuple[int, int]:
        return self._shard.slab

    @property
    def slab_memory(self) -> str:
        """What kind of memory the slab got."""
        return self._shard.slab_memory

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._shard.event_descriptor, self._take_events)
        self._loop.add_reader(self._shard.tap_descriptor, self._take_taps)
        self._shard.start()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._shard.event_descriptor)
            self._loop.remove_reader(self._shard.tap_descriptor)
        self._shard.close()

    def submit(self, *commands: Command) -> None:
        self._shard.submit(*commands)

    def inject(self, track: int, layer: int, packet: bytes) -> None:
        self._shard.inject(track, layer, packet)

    def stats(self) -> PlaneStats:
        try:
            self._stats, self._counters = self._shard.stats()
        except Overloaded:
            return self._stats  # of a failed plane: what was known last
        _add_drops(self._stats.drops, self._counters)
        return self._stats

    def counters(self) -> Counters:
        """What the socket did, as of the latest `stats`: messages and system calls in and out, what was lost where."""
        return self._counters

    def _take_events(self) -> None:
        events = self._shard.take_events()
        if events and not self._closed:
            self.on_events(events)
        if not (self._closed or self._told or self.healthy):
            self._told = True
            log.error("native packet plane failed; this node forwards nothing any more")

    def _take_taps(self) -> None:
        tapped = self._shard.take_taps()
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

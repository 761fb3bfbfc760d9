"""The packet plane: `open_plane` chooses between the native extension and the Python reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import structlog

from relay.errors import SettingsError
from relay.plane.contract import Address, Command, Event, PlaneConfig, PlaneStats
from relay.plane.rings import InjectRing, OnGone, TapRing
from relay.plane.shared_ring import SLOT_SIZE, SLOTS
from relay.plane.urgency import Priority

log = structlog.get_logger()

Kind = Literal["auto", "native", "reference"]


class Plane(Protocol):
    """A packet plane with its sockets, run by the event loop that was running at `start`.

    Set the callbacks before `start`. They run in the loop, may call `submit`, and get lists that are theirs to keep.
    """

    on_events: Callable[[list[Event]], None]
    on_taps: Callable[[list[tuple[int, bytes, int]]], None]
    """(tap, plaintext RTP, arrival in monotonic microseconds) of each tapped packet."""
    on_failed: Callable[[str], None]
    """Told once, and why, when the plane is lost or a part of it: the node has to be started again."""

    @property
    def name(self) -> str:
        """`native` or `reference`."""
        ...

    @property
    def addresses(self) -> list[Address]:
        """Where each shard receives; the reference has one shard."""
        ...

    @property
    def healthy(self) -> bool:
        """False once the plane is lost, or a part of it, and until the end. Lack of CPU does not make it so."""
        ...

    @property
    def cpus(self) -> list[int]:
        """The CPU that each shard's thread was told to stay on; empty when they may run anywhere."""
        ...

    @property
    def ways(self) -> list[str]:
        """What saves system calls here, e.g. `gso`, `sendmmsg`, `gro`; none for the reference."""
        ...

    @property
    def slabs(self) -> list[tuple[int, int]]:
        """Free and all places for ingress packets of each shard, as of now: it is not asked for in a thread's queue."""
        ...

    @property
    def slab(self) -> tuple[int, int]:
        """The same of all shards together."""
        ...

    def start(self) -> None:
        """Begin to receive. Needs a running loop."""
        ...

    def close(self) -> None:
        """Stop and free the sockets. Repeatable."""
        ...

    def submit(self, *commands: Command) -> None:
        """Carry out commands in order. Raises UsageError for a wrong one; those before it are done.

        What is for a part that is lost is passed over: who cleans up can, and newcomers are kept out by `healthy`.
        """
        ...

    def inject(self, track: int, layer: int, packet: bytes) -> None:
        """Feed a plaintext RTP packet into a track without session. Raises UsageError for a wrong track or layer."""
        ...

    def open_tap_ring(
        self, *, slots: int = SLOTS, slot_size: int = SLOT_SIZE, on_gone: OnGone | None = None
    ) -> TapRing:
        """Open a shared-memory ring to which taps may go (`AddTap.ring`), for one worker to read.

        UsageError for a shape that cannot be, OSError or Overloaded when there is no memory or the plane has failed.
        """
        ...

    def open_inject_ring(
        self, *, slots: int = SLOTS, slot_size: int = SLOT_SIZE, on_gone: OnGone | None = None
    ) -> InjectRing:
        """Open a shared-memory ring by which one worker injects. Raises as `open_tap_ring` does."""
        ...

    def stats(self) -> PlaneStats:
        """Count everything."""
        ...

    def counters(self) -> Mapping[str, int | Mapping[int, int]]:
        """What the sockets and rings did, as of the latest `stats`; empty for the reference."""
        ...


def open_plane(
    kind: Kind,
    config: PlaneConfig,
    host: str,
    port: int,
    socket_buffer: int = 4 << 20,
    *,
    shards: int = 1,
    pin: bool = False,
    priority: Priority = "none",
) -> Plane:
    """Open a plane on UDP ports: `port`, port + 1, … for its shards (0: any). `host` is a numeric address; `::` takes
    IPv4 and IPv6 where both exist.

    `auto` takes the native plane where its extension is installed, else the reference, and logs which. A `seed` of 0 is
    replaced by a random one, and a `wall_offset_us` of 0 by the clock's. Raises SettingsError when a port cannot be
    bound, or when `native` is asked for and not there. `socket_buffer` is in bytes, each way.

    `shards` are threads (0: one per usable core but one), each with a socket; `pin` keeps each on a CPU of its own, and
    `priority` says whether they run before the rest. The reference has one shard, in the loop's thread, and neither.
    """
    if kind not in ("auto", "native", "reference"):
        raise SettingsError(f"plane must be auto, native or reference, not {kind!r}")
    if kind != "reference":
        missing = native_missing()
        if not missing:
            from relay.plane.native import NativePlane

            plane = NativePlane(config, host, port, socket_buffer, shards=shards, pin=pin, priority=priority)
            _log_slab(config, plane.slab_memory)
            log.info("native packet plane opened", ways=plane.ways, shards=len(plane.addresses), cpus=plane.cpus)
            return plane
        if kind == "native":
            raise SettingsError(
                f"the native packet plane was asked for, but its extension is not installed ({missing}); "
                'set the plane to "auto" or "reference"'
            )
        log.warning("native packet plane is not installed, so the slower reference runs", reason=missing)
    if shards > 1:
        log.warning("the reference plane has one shard", asked=shards)
    from relay.plane.driver import ReferencePlane

    return ReferencePlane(config, host, port, socket_buffer)


_NO_SLAB = {"locked": "RLIMIT_MEMLOCK is too small", "huge": "the kernel gives no huge pages"}


def _log_slab(config: PlaneConfig, got: str) -> None:
    tell = log.bind(packets=config.slab_packets, mib=config.slab_packets * 1536 >> 20, wanted=config.slab_memory)
    if got == "plain" != config.slab_memory:
        tell.warning("slab is in plain memory", reason=_NO_SLAB[config.slab_memory])
    else:
        tell.info("slab made", got=got)


def native_missing() -> str:
    """Why the native plane cannot run here, "" when it can."""
    try:
        from relay.plane._native import NativePlane  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""

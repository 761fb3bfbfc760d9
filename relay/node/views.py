"""What a node says of itself and of its sessions: the `Node` and `Session` schemas of the API."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any

from relay.node.local import LocalSession
from relay.node.room import HostedRoom
from relay.plane.contract import LayerStats, PlaneStats, SessionStats
from relay.stage.views import timestamp


def no_stats() -> PlaneStats:
    """Statistics before the plane was asked for the first time."""
    return PlaneStats(sessions={}, tracks={}, slots={}, drops={})


@dataclass(slots=True)
class Meter:
    """Turns the plane's counters into rates over the time between two snapshots."""

    stats: PlaneStats = field(default_factory=no_stats)
    cpu_percent: float = 0.0
    bitrate_out: int = 0
    bitrates: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Bits per second in and out by session handle."""
    _at: float = field(default_factory=time.monotonic)
    _cpu: float = 0.0

    def update(self, stats: PlaneStats, now: float) -> None:
        """Take a snapshot; `now` is monotonic seconds."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        seconds = max(now - self._at, 1e-3)
        before = self.stats
        self.cpu_percent = 100 * (cpu - self._cpu) / seconds if self._cpu else 0.0
        self.bitrate_out = int(8 * max(0, stats.bytes_out - before.bytes_out) / seconds)
        self.bitrates = {
            handle: _rates(before.sessions.get(handle), after, seconds) for handle, after in stats.sessions.items()
        }
        self.stats, self._at, self._cpu = stats, now, cpu


def _rates(before: SessionStats | None, after: SessionStats, seconds: float) -> tuple[int, int]:
    if before is None:
        return 0, 0
    return (
        int(8 * (after.bytes_in - before.bytes_in) / seconds),
        int(8 * (after.bytes_out - before.bytes_out) / seconds),
    )


def session_view(room: HostedRoom, local: LocalSession, meter: Meter) -> dict[str, Any]:
    """Return the `Session` schema."""
    info = local.session.info
    counted = meter.stats.sessions.get(info.handle, SessionStats())
    bits_in, bits_out = meter.bitrates.get(info.handle, (0, 0))
    address = local.session.address
    slot_rates = {
        slot.handle: meter.stats.slots[slot.handle].bitrate for slot in local.slots if slot.handle in meter.stats.slots
    }
    return {
        "id": info.id,
        "room": info.room,
        "identity": info.identity,
        "role": info.role,
        "kind": info.kind,
        "state": local.session.state.value,
        "address": f"{address[0]}:{address[1]}" if address else None,
        "since": timestamp(info.opened_at),
        "bitrate_in_bps": bits_in,
        "bitrate_out_bps": bits_out,
        "packets_in": counted.packets_in,
        "packets_out": counted.packets_out,
        "loss": counted.loss_256 / 256,
        "rtt_ms": counted.round_trip_us / 1000 if counted.round_trip_us else None,
        "estimate_bps": counted.estimate or None,
        "publications": publications_view(room, info.id, meter),
        "slots": room.live.view(info.handle, slot_rates),
    }


def publications_view(room: HostedRoom, session: str, meter: Meter) -> list[dict[str, Any]]:
    """Return what a session publishes, with what arrives of each layer."""
    state, found = room.state, []
    for track in room.tracks_of(session):
        known = state.publications.get(track.publication)
        layers = meter.stats.tracks.get(track.handle, [])
        found.append(
            {
                "id": track.publication,
                "kind": track.plan.kind.value,
                "codec": track.codec,
                "muted": known is not None and state.is_muted(known),
                "layers": [_layer_view(rid, layer) for rid, layer in zip(track.rids, layers, strict=False)],
            }
        )
    return found


def _layer_view(rid: str, layer: LayerStats) -> dict[str, Any]:
    return {
        "rid": rid,
        "bitrate_bps": layer.bitrate,
        "active": layer.active,
        "width": layer.width or None,
        "height": layer.height or None,
    }


def node_view(
    node_id: str,
    version: str,
    region: str,
    plane: str,
    started_at: float,
    counts: dict[str, int],
    limit: int,
    meter: Meter,
) -> dict[str, Any]:
    """Return the `Node` schema without `healthy`, `draining` and `memory_bytes`. `counts` are sessions by kind."""
    return {
        "id": node_id,
        "region": region,
        "version": version,
        "plane": plane,
        "sessions": sum(counts.values()),
        "publishers": counts["publisher"],
        "viewers": counts["viewer"],
        "max_sessions": limit,
        "bitrate_out_bps": meter.bitrate_out,
        "packets_in": meter.stats.datagrams_in,
        "packets_out": meter.stats.datagrams_out,
        "cpu_percent": round(meter.cpu_percent, 1),
        "started_at": timestamp(started_at),
    }

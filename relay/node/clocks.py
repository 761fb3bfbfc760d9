"""When the frames of this node's tracks happened: one timeline per layer, for its viewers and for its links alike.

What publishers send to this node is placed by its arrival, which the plane notes; what a link brings has sync ids.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence

from relay.clock import now_us
from relay.link.marking import read_sync_id
from relay.node.senders import SenderClocks
from relay.plane.contract import LayerStats
from relay.stage.timeline import Reading, Timeline

LOOK_US = 50_000
"""A timestamp that no timeline knows is looked up in the plane this often at most."""
_TIMESTAMP_SSRC = struct.Struct("!II")


def wall_offset_us() -> int:
    """Return what to add to monotonic microseconds to have the wall clock's."""
    return (time.time_ns() - time.monotonic_ns()) // 1000


class TrackClocks:
    """All of one node: by its own clock (see `relay.stage.slot_clocks.SyncIds`), and in `senders` by the publishers'.
    `look` reads the plane's layers by track."""

    def __init__(
        self,
        look: Callable[[], Mapping[int, Sequence[LayerStats]]],
        offset_us: Callable[[], int] = wall_offset_us,
        now_us: Callable[[], int] = now_us,
    ) -> None:
        self._look = look
        self._offset_us = offset_us
        self._now_us = now_us
        self._looked = -LOOK_US
        self._timelines: dict[tuple[int, int], Timeline] = {}
        self.senders = SenderClocks()

    def timeline(self, track: int, layer: int, clock_hz: int) -> Timeline:
        """Return the timeline of a layer, which begins when it is first asked for."""
        found = self._timelines.get((track, layer))
        if found is None:
            found = self._timelines[track, layer] = Timeline(clock_hz)
        return found

    def forget(self, track: int) -> None:
        """A track is gone."""
        self.senders.forget(track)
        for key in [key for key in self._timelines if key[0] == track]:
            del self._timelines[key]

    def take(self, tracks: Mapping[int, Sequence[LayerStats]]) -> None:
        """Take when the newest frames came."""
        offset = self._offset_us()
        for (track, layer), timeline in self._timelines.items():
            layers = tracks.get(track, ())
            if layer < len(layers) and layers[layer].timestamp >= 0:
                newest = layers[layer]
                timeline.note(newest.ssrc, newest.timestamp, newest.arrival_us + offset)

    def refresh(self) -> None:
        """Take when the newest frames came, from the plane, unless it was asked a moment ago."""
        now = self._now_us()
        if now - self._looked >= LOOK_US:
            self._looked = now
            self.take(self._look())

    def linked(self, track: int, layer: int, clock_hz: int, packet: bytes) -> None:
        """Take the sync id of a packet that a link brought, if it has one."""
        sync_id = read_sync_id(packet) if len(packet) >= 12 else None
        if sync_id is not None:
            timestamp, ssrc = _TIMESTAMP_SSRC.unpack_from(packet, 4)
            self.timeline(track, layer, clock_hz).anchor(ssrc, timestamp, sync_id)

    def placed(self, track: int, layer: int, clock_hz: int, reading: Reading | None) -> None:
        """A link that is not in this process brings a layer. The sync ids of its frames are told; None: not yet."""
        timeline = self.timeline(track, layer, clock_hz)
        if reading is None:
            timeline.expect()
        else:
            timeline.anchor(*reading)

    def sync_id(self, track: int, layer: int, clock_hz: int, timestamp: int) -> int | None:
        """See `SyncIds`."""
        timeline = self.timeline(track, layer, clock_hz)
        found = timeline.sync_id(timestamp)
        if found is None:
            self.refresh()
            found = timeline.sync_id(timestamp)
        return found

    def newest(self, track: int, layer: int) -> int | None:
        """See `SyncIds`."""
        timeline = self._timelines.get((track, layer))
        return timeline.newest if timeline is not None and timeline.known else None

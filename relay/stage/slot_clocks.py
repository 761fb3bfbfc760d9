"""What viewers are told so that their pages can place what they show in time: RTP timestamps of a slot and sync ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from relay.plane.contract import PayloadType
from relay.stage.live_model import Slot, SlotTimeline, Viewer
from relay.stage.timeline import advance

REPEAT_S = 5.0
"""A slot's line is told this often: what a publisher's clock is off by is then below a millisecond."""
JUMP_MS = 5
"""And at once when what was told before is off by more."""

_M32 = 0xFFFFFFFF
_JUMP = JUMP_MS << 16


class SyncIds(Protocol):
    """What the node knows of the frames of its tracks: see `relay.stage.timeline`."""

    def sync_id(self, track: int, layer: int, clock_hz: int, timestamp: int) -> int | None:
        """Return the sync id of a frame by the publisher's RTP timestamp; None when it is not known (yet)."""
        ...

    def newest(self, track: int, layer: int) -> int | None:
        """Return the publisher's RTP timestamp of a layer's newest frame."""
        ...


class NoSyncIds:
    """Knows none."""

    def sync_id(self, track: int, layer: int, clock_hz: int, timestamp: int) -> int | None:
        return None

    def newest(self, track: int, layer: int) -> int | None:
        return None


def timelines(
    viewers: Iterable[tuple[Viewer, bool]], payloads: Mapping[int, PayloadType], ids: SyncIds, now: float
) -> list[SlotTimeline]:
    """Return what is due for these viewers, each with whether it has to be told all anew. `payloads` are by track."""
    return [
        told
        for viewer, anew in viewers
        for slot in viewer.slots
        if (told := _timeline(viewer, slot, payloads, ids, now, anew)) is not None
    ]


def _timeline(
    viewer: Viewer, slot: Slot, payloads: Mapping[int, PayloadType], ids: SyncIds, now: float, anew: bool
) -> SlotTimeline | None:
    if slot.plays is None or slot.spliced is None or slot.plays[0] not in payloads:
        return None
    clock_hz = payloads[slot.plays[0]].clock_hz
    newest = ids.newest(*slot.plays)
    sync_id = None if newest is None else ids.sync_id(*slot.plays, clock_hz, newest)
    if newest is None or sync_id is None:
        return None
    out, source = slot.spliced
    timestamp = (newest + out - source) & _M32
    if slot.told is not None and not anew and now - slot.told[2] < REPEAT_S:
        ticks = (timestamp - slot.told[0]) & _M32
        ticks -= (ticks >> 31) << 32
        if abs(advance(slot.told[1], ticks, clock_hz) - sync_id) <= _JUMP:
            return None
    slot.told = (timestamp, sync_id, now)
    return SlotTimeline(viewer.session_id, slot.spec.index, timestamp, sync_id, clock_hz)

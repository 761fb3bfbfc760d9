"""Joins a room's events to the media they belong to: both carry sync ids, and an event waits for its frame.

Events come in order (the metadata channel is a stream) and leave in order, once. One leaves when media with its sync id
or a later one has arrived, when it has waited `hold_us`, or at once while no media comes.
"""

from __future__ import annotations

from collections import deque

from relay.ports import RoomEvent

MAX_WAITING = 4096


class EventMerger:
    """One room on one link. Times are monotonic microseconds."""

    def __init__(self, hold_us: int, after: int = 0) -> None:
        self._hold = hold_us
        self._waiting: deque[tuple[RoomEvent, int]] = deque()
        self._media_sync_id = 0
        self._media_at: int | None = None
        self.last = after
        """Sync id of the newest event that came in: where to go on after the channel was lost."""
        self.repeated = 0
        self.held_out = 0
        """Events that left without their frame."""

    def add(self, event: RoomEvent, now: int) -> bool:
        """Take an event; False, and counted, for one that is not newer than all before."""
        if event.sync_id <= self.last:
            self.repeated += 1
            return False
        self.last = event.sync_id
        self._waiting.append((event, now))
        return True

    def media(self, sync_id: int, now: int) -> None:
        """Note that a frame arrived."""
        self._media_sync_id = max(self._media_sync_id, sync_id)
        self._media_at = now

    def take(self, now: int) -> list[RoomEvent]:
        """Take the events whose time has come, in order."""
        flowing = self._media_at is not None and now - self._media_at < self._hold
        out: list[RoomEvent] = []
        waiting = self._waiting
        while waiting:
            event, since = waiting[0]
            with_frame = event.sync_id <= self._media_sync_id
            if flowing and not with_frame and now - since < self._hold and len(waiting) <= MAX_WAITING:
                break
            self.held_out += flowing and not with_frame
            out.append(event)
            waiting.popleft()
        return out

    def flush(self) -> list[RoomEvent]:
        """Take all that wait, in order: some after them are gone."""
        out = [event for event, _ in self._waiting]
        self._waiting.clear()
        return out

    def next_timeout(self) -> int | None:
        """Return when the oldest event leaves without its frame; None when none waits."""
        return self._waiting[0][1] + self._hold if self._waiting else None

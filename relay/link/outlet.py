"""What waits to be sent on one path of a link: new media by flow, then what is sent again, oldest first.

New media is never behind old: what is sent again gets a share of the room that there is, and all of what is left.
"""

from __future__ import annotations

from collections import deque

from relay.link.history import Entry
from relay.link.path import PathName
from relay.link.paths import BIT
from relay.plane.contract import Kind

AUDIO_FRAMES = 10  # 200 ms of Opus: a few bytes that are missed more than any picture
_REPAIR_SHARE = 4  # of the room: a quarter, while new media wants all of it
LATE_US = 100_000  # a queue that did not empty for so long is behind a slow path: three frames of 30/s
TURN_US = 20_000  # most that counts between two turns: the rest of a longer pause the path was not asked
MAX_FRESH = 2048  # packets of one flow that wait, whatever the reason


class Outlet:
    """One path. `up` says whether there is a connection to send on."""

    def __init__(self, name: PathName, frames: int, burst: int) -> None:
        self.name = name
        self.bit = BIT[name]
        self.up = False
        self.rtt_us = 0
        self.again: deque[Entry] = deque()
        self.control: deque[bytes] = deque()
        self._frames = frames
        self._burst = burst
        self._fresh: dict[int, deque[Entry]] = {}
        self._skipping: set[int] = set()
        self._since: dict[int, int] = {}  # when a flow's queue was first seen not to empty, by our own turns
        self._turns = 0
        self._turn_at = 0
        self._room = 0  # that new media had since something was sent again, as far as it counts

    @property
    def waiting(self) -> int:
        """Packets that wait here."""
        return sum(map(len, self._fresh.values())) + len(self.again) + len(self.control)

    def put(self, entry: Entry) -> bool:
        """Queue new media; False when its flow skips to the next decodable frame and this is not it."""
        flow = entry.flow
        if flow.number in self._skipping:
            if not entry.is_keyframe_start():
                entry.skipped |= self.bit
                flow.counts.skipped += 1
                return False
            self._skipping.discard(flow.number)
        entry.queued |= self.bit
        entry.skipped &= ~self.bit
        queue = self._fresh.get(flow.number)
        if queue is None:
            queue = self._fresh[flow.number] = deque()
        queue.append(entry)
        return True

    def put_again(self, entry: Entry) -> None:
        """Queue a packet that was sent before, on whichever path."""
        entry.queued |= self.bit
        entry.skipped &= ~self.bit
        self.again.append(entry)

    def take(self, room: int, oldest: int) -> list[Entry]:
        """Take at most `room` packets to send now. Old packets that came before `oldest` are dropped and counted,
        room or not."""
        self._drop_old(oldest)
        self._room = min(self._room, _REPAIR_SHARE - 1) + room  # a path may have room for one in each turn
        reserve = min(len(self.again), self._burst, self._room // _REPAIR_SHARE)
        out = self._take_fresh(room - reserve)
        left = min(room - len(out), self._burst)
        while left > 0 and self.again:
            entry = self.again.popleft()
            entry.queued &= ~self.bit
            if entry.acked or not entry.flow.open:
                continue
            if entry.at < oldest:
                entry.flow.counts.too_old += 1
                continue
            out.append(entry)
            left -= 1
            self._room = max(0, self._room - _REPAIR_SHARE)
        for entry in out:
            entry.flight |= self.bit
        return out

    def _drop_old(self, oldest: int) -> None:
        while self.again and (self.again[0].acked or self.again[0].at < oldest):
            entry = self.again.popleft()
            entry.queued &= ~self.bit
            entry.flow.counts.too_old += not entry.acked

    def _take_fresh(self, room: int) -> list[Entry]:
        out: list[Entry] = []
        fresh = self._fresh
        while fresh and room > 0:
            for number, queue in list(fresh.items()):
                # all of it when there is room for everybody, else an equal share in turn
                count = len(queue) if len(queue) <= room // len(fresh) else max(1, room // len(fresh))
                for _ in range(min(count, room)):
                    entry = queue.popleft()
                    entry.queued &= ~self.bit
                    out.append(entry)
                    room -= 1
                if not queue:
                    del fresh[number]
                if room <= 0:
                    break
        return out

    def skip_late(self, now: int) -> list[tuple[int, int]]:
        """Drop the queue of each flow of which too many frames wait. Returns (flow, packets) of each.

        Video skips to its next decodable frame, audio just loses its oldest. Only a slow path is late: when this
        process was, much comes at once, and the path has to be given the turns to take it.
        """
        self._turns += min(TURN_US, now - self._turn_at)
        self._turn_at = now
        skipped: list[tuple[int, int]] = []
        for number in self._since.keys() - self._fresh.keys():
            del self._since[number]
        for number, queue in list(self._fresh.items()):
            since = self._since.setdefault(number, self._turns)
            if self._turns - since < LATE_US and len(queue) <= MAX_FRESH:
                continue
            flow = queue[0].flow
            video = flow.spec.kind is Kind.VIDEO
            keep = self._frames if video else AUDIO_FRAMES
            if queue[-1].frame - queue[0].frame < keep:
                continue
            dropped = len(queue) if video else sum(queue[-1].frame - entry.frame >= keep for entry in queue)
            for _ in range(dropped):
                entry = queue.popleft()
                entry.queued &= ~self.bit
                entry.skipped |= self.bit
            flow.counts.skipped += dropped
            if video:
                self._skipping.add(number)
            if not queue:
                del self._fresh[number]
            skipped.append((number, dropped))
        return skipped

    def is_skipping(self, flow: int) -> bool:
        """Say whether a flow waits here for its next decodable frame."""
        return flow in self._skipping

    def clear(self) -> None:
        """Forget everything that waits. What is not on another path can be sent again from history."""
        for queue in (*self._fresh.values(), self.again):
            for entry in queue:
                entry.queued &= ~self.bit
        self._fresh.clear()
        self._since.clear()
        self.again.clear()
        self.control.clear()
        self._skipping.clear()

    def forget(self, flow: int) -> None:
        """Forget what waits of one flow."""
        for entry in self._fresh.pop(flow, ()):
            entry.queued &= ~self.bit
        self._skipping.discard(flow)

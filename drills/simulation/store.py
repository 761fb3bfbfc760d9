"""What the scripts in the store do (`relay/cluster/*scripts.py`), written again without a server; no I/O, no waiting.

`tests/drills/simulation/test_store.py` tells one story to this and to the real ones. Times are true seconds, given by
the caller's clock; `offset` is how far the server's own clock is from it, which only `RedisStore.TIME` would show.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.errors import Conflict, LeaseHeld, NotFound
from relay.ids import make_sync_id
from relay.ports import Lease, NodeRecord, RoomEvent

KEEP_EVENTS = 200
Told = Iterable[tuple[str, dict[str, Any]]]


@dataclass(slots=True)
class Held:
    """A lease as the store has it; `until` and `ttl` in milliseconds of the server."""

    epoch: int
    until: int
    ttl: int
    node: str


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease was given. `kind` as in `LeaseEntry`, `before` is what was there."""

    room: str
    publication: str
    node: str
    epoch: int
    kind: str
    before: Held | None


@dataclass(slots=True)
class StoredRoom:
    """A document and its stream. `parsed` is the body, read once for all who want it: nobody may change it."""

    body: str
    version: int = 1
    parsed: dict[str, Any] | None = None
    stream: deque[RoomEvent] = field(default_factory=lambda: deque(maxlen=KEEP_EVENTS))
    added: int = 0

    @property
    def last(self) -> int:
        """Sync id of the last event."""
        return self.stream[-1].sync_id if self.stream else 0


class StoreModel:
    """Leases, rooms and the directory of nodes. Every call is one atomic step; `ops` counts them by name."""

    def __init__(self, clock: Callable[[], float], epoch_s: float = 1_750_000_000.0) -> None:
        """`epoch_s` is the wall time at which the true clock was 0."""
        self.offset = 0.0
        self.leases: dict[str, dict[str, Held]] = {}
        self.epochs: dict[str, int] = {}
        self.rooms: dict[str, StoredRoom] = {}
        self.records: dict[str, tuple[NodeRecord, int]] = {}
        self.changes = 0
        self._due: list[tuple[int, str]] = []
        self._dozing: set[str] = set()
        """Who sleeps and so is not in `_due`."""
        self._listed: tuple[int, list[NodeRecord]] = -1, []
        self.ops: Counter[str] = Counter()
        self.on_grant: Callable[[Granted], None] = lambda granted: None
        self.on_news: Callable[[str], None] = lambda room: None
        self.rouse: Callable[[str], None] = lambda node: None
        """Called with a node before its lease or record is looked at: one that sleeps has renewed it all the time."""
        self._clock = clock
        self._epoch_s = epoch_s

    def milliseconds(self) -> int:
        """The server's clock."""
        return int((self._epoch_s + self._clock() + self.offset) * 1000)

    def forget(self) -> None:
        """Lose everything, as a server does that starts empty."""
        self.leases.clear()
        self.epochs.clear()
        self.rooms.clear()
        self.records.clear()
        self.changes += 1

    # --- leases: lease_scripts ---------------------------------------------------------------------------------------

    def acquire(self, room: str, publication: str, node: str, ttl_s: float, over: int | None = None) -> Lease:
        """See `LeaseStore.acquire`."""
        self.ops["lease.acquire"] += 1
        ttl, before = round(ttl_s * 1000), self._holder(room, publication)
        now = self.milliseconds()
        kind = "free" if before is None else "expired"
        if before is not None and before.until > now:
            if before.node != node and before.epoch != over:
                detail = f"{publication} of room {room} is published by {before.node}"
                raise LeaseHeld(detail, owner=before.node, epoch=before.epoch)
            kind = "own" if before.node == node else "handed-over"
        epoch = self._next_epoch(room, now)
        self.epochs[room] = epoch
        self.leases.setdefault(room, {})[publication] = Held(epoch, now + ttl, ttl, node)
        self.on_grant(Granted(room, publication, node, epoch, kind, before))
        return Lease(room, publication, node, epoch, ttl_s)

    def _next_epoch(self, room: str, now: int) -> int:
        return max(self.epochs.get(room, 0) + 1, now)

    def renew(self, room: str, node: str, epochs: Mapping[str, int], ttl_s: float) -> dict[str, Lease | None]:
        """See `LeaseStore.renew`."""
        self.ops["lease.renew"] += 1
        now, ttl, lost = self.milliseconds(), round(ttl_s * 1000), dict[str, Lease | None]()
        for publication, epoch in epochs.items():
            held = self._holder(room, publication)
            if held is not None and (held.epoch, held.node) == (epoch, node):
                held.until, held.ttl = now + ttl, ttl
            elif held is None or held.until <= now:
                lost[publication] = None
            else:
                lost[publication] = Lease(room, publication, held.node, held.epoch, (held.until - now) / 1000)
        return lost

    def release(self, room: str, node: str, epochs: Mapping[str, int]) -> None:
        """See `LeaseStore.release`."""
        self.ops["lease.release"] += 1
        for publication, epoch in epochs.items():
            held = self._holder(room, publication)
            if held is not None and (held.epoch, held.node) == (epoch, node):
                del self.leases[room][publication]

    def _holder(self, room: str, publication: str) -> Held | None:
        held = self.leases.get(room, {}).get(publication)
        if held is None:
            return None
        self.rouse(held.node)
        held.until = min(held.until, self.milliseconds() + held.ttl)
        return held

    def extend(self, node: str, leases: Iterable[tuple[str, str]], seconds: float) -> None:
        """A node that slept has renewed these leases, and its record, all the time."""
        more = round(seconds * 1000)
        for room, publication in leases:
            held = self.leases.get(room, {}).get(publication)
            if held is not None and held.node == node:
                held.until += more
        if node in self.records:
            record, until = self.records[node]
            self.records[node] = record, until + more
            if node in self._dozing:
                heapq.heappush(self._due, (until + more, node))
        self._dozing.discard(node)

    # --- rooms: scripts ----------------------------------------------------------------------------------------------

    def create(self, room: str, document: dict[str, Any], stamp: int, told: Told = ()) -> None:
        """See `RoomStore.create`; `stamp` is the sync id of the caller's clock."""
        self.ops["room.create"] += 2  # the index, then the script
        if room in self.rooms:
            raise Conflict(f"room {room} exists already", code="room-exists")
        self.rooms[room] = StoredRoom(_dump(document))
        self._append(room, stamp, list(told) or [("room.created", {"room": {"id": room}})])

    def read(self, room: str) -> tuple[dict[str, Any], int]:
        """Return a document with its `sync_id`, and its version. Raises NotFound."""
        self.ops["room.read"] += 1
        stored = self._room(room)
        if stored.parsed is None:
            stored.parsed = json.loads(stored.body)
        return {**stored.parsed, "sync_id": str(stored.last)}, stored.version

    def write(
        self, room: str, document: dict[str, Any], version: int, stamp: int, told: Told
    ) -> list[RoomEvent] | None:
        """Change a document that still has this version; None when it has another one. Raises NotFound."""
        self.ops["room.write"] += 1
        stored = self._room(room)
        if not self._is_fresh(stored, version):
            return None
        stored.body, stored.version, stored.parsed = _dump(document), stored.version + 1, None
        return self._append(room, stamp, told)

    def _is_fresh(self, stored: StoredRoom, version: int) -> bool:
        return stored.version == version

    def append(self, room: str, stamp: int, told: Told) -> list[RoomEvent]:
        """See `RoomStore.append`."""
        self.ops["room.append"] += 1
        self._room(room)
        return self._append(room, stamp, told)

    def since(self, room: str, position: int) -> list[RoomEvent]:
        """Return the events after `position`. Raises NotFound; Conflict for one that is not kept, or not yet given."""
        stored = self._room(room)
        if position > stored.last:
            raise Conflict(f"event {position} of room {room} was never given out", code="events-gone")
        if stored.added > len(stored.stream) and position < stored.stream[0].sync_id:
            raise Conflict(f"events of room {room} after {position} are no longer kept", code="events-gone")
        found: list[RoomEvent] = []
        for event in reversed(stored.stream):
            if event.sync_id <= position:
                break
            found.append(event)
        return found[::-1]

    def _room(self, room: str) -> StoredRoom:
        stored = self.rooms.get(room)
        if stored is None:
            raise NotFound(f"no room {room}", code="room-not-found")
        return stored

    def _append(self, room: str, stamp: int, told: Told) -> list[RoomEvent]:
        stored = self.rooms[room]
        sync_id = max(stamp, stored.last + 1)
        events = [RoomEvent(sync_id + number, kind, data) for number, (kind, data) in enumerate(told)]
        stored.stream.extend(events)
        stored.added += len(events)
        if events:
            self.on_news(room)
        return events

    # --- nodes: directory_scripts ------------------------------------------------------------------------------------

    def announce(self, record: NodeRecord, expiry_s: float) -> None:
        """See `NodeDirectory.announce`."""
        self.ops["node.announce"] += 1
        known = self.records.get(record.id)
        if known is None or known[0] != record:
            self.changes += 1
        self.records[record.id] = record, self.milliseconds() + round(expiry_s * 1000)
        if known is None:
            heapq.heappush(self._due, (self.records[record.id][1], record.id))

    def withdraw(self, node: str) -> None:
        """See `NodeDirectory.withdraw`."""
        self.ops["node.withdraw"] += 1
        if self.records.pop(node, None) is not None:
            self.changes += 1

    def expired(self, sleeping: Callable[[str], bool]) -> None:
        """Drop the records that were not renewed. Each look does, as the script does; those who sleep renew theirs."""
        now, due = self.milliseconds(), self._due
        while due and due[0][0] <= now:
            name = heapq.heappop(due)[1]
            if name not in self.records:
                continue
            until = self.records[name][1]
            if until > now:
                heapq.heappush(due, (until, name))
            elif sleeping(name):
                self._dozing.add(name)
            else:
                del self.records[name]
                self.changes += 1

    def clock_went(self) -> None:
        """The server's clock jumped: nobody may live for as long as it went back."""
        now = self.milliseconds()
        for name, (record, until) in self.records.items():
            if until > now + 600_000:
                self.records[name] = record, now + 10_000
        self._dozing.clear()
        self._due = [(until, name) for name, (_, until) in self.records.items()]
        heapq.heapify(self._due)

    def nodes(self) -> list[NodeRecord]:
        """The records, by id."""
        if self._listed[0] != self.changes:
            self._listed = self.changes, [self.records[name][0] for name in sorted(self.records)]
        return self._listed[1]


def sync_id_of_wall(wall_s: float) -> int:
    """The sync id of a wall time."""
    return make_sync_id(int(wall_s * 1000), 0)


def _dump(document: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in document.items() if key != "sync_id"})

"""The rooms that a node hosts: opened when a first session needs one, closed when the last has been gone a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import structlog

from relay.edge.codecs import slot_payload_type
from relay.errors import NotFound, StoreUnavailable
from relay.node.room import HostedRoom
from relay.node.surroundings import Surroundings
from relay.plane.contract import PayloadType
from relay.stage.document import RoomState
from relay.stage.lending import StageLive

log = structlog.get_logger()


class HostedRooms:
    """All rooms of a node, by id and by track."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._store = around.store
        self._rooms: dict[str, HostedRoom] = {}
        self._opening: dict[str, asyncio.Task[HostedRoom]] = {}
        self._by_track: dict[int, HostedRoom] = {}
        self.on_track_gone: Callable[[int], None] = lambda track: None
        self.on_closed: Callable[[str], None] = lambda room: None

    def __iter__(self) -> Iterator[HostedRoom]:
        return iter(list(self._rooms.values()))

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, room: str) -> HostedRoom | None:
        """The room, when it is hosted here and not over."""
        found = self._rooms.get(room)
        return found if found is not None and not found.ended else None

    def of_track(self, track: int) -> HostedRoom | None:
        """The room that a track of the plane belongs to."""
        return self._by_track.get(track)

    async def open(self, room: str) -> HostedRoom:
        """The room, read from the store the first time. Raises NotFound, StoreUnavailable, CorruptDocument."""
        found = self.get(room)
        if found is not None:
            return found
        if room not in self._opening:  # many viewers come at once: one look-up serves them all
            self._opening[room] = asyncio.create_task(self._open(room))
            self._opening[room].add_done_callback(lambda _: self._opening.pop(room, None))
        return await asyncio.shield(self._opening[room])

    async def _open(self, room: str) -> HostedRoom:
        state = RoomState.from_json(await self._store.read(room))
        ended = self._rooms.pop(room, None)
        if ended is not None:
            await ended.close()
        live = StageLive(_choose, sync_ids=self._around.clocks)
        hosted = HostedRoom(state, live, self._around, self._track_changed, self.open)
        self._rooms[room] = hosted
        hosted.start()
        return hosted

    def _track_changed(self, track: int, room: HostedRoom | None) -> None:
        if room is None:
            self._by_track.pop(track, None)
            self._around.clocks.forget(track)
            self.on_track_gone(track)
        else:
            self._by_track[track] = room

    async def sweep(self) -> None:
        """Close the rooms that are over, and those without a session here for the time that an empty room is kept.

        Until then a room is followed: whoever returns finds it warm, also when the store is gone by then.
        """
        now = self._around.monotonic()
        for room in list(self._rooms.values()):
            if room.sessions or not (room.ended or now - room.idle_since > self._around.empty_ttl_s):
                continue
            self._rooms.pop(room.id, None)
            if not room.ended:
                await self._end_if_empty(room)
            self.on_closed(room.id)
            await room.close()

    async def _end_if_empty(self, room: HostedRoom) -> None:
        """End a room that nobody is in on any node. A store that is gone lets it live until the next time."""
        try:
            if not room.state.participants and not await self._store.viewers(room.id, 1):
                await self._store.delete(room.id, ("room.ended", {"by": self._around.node_id, "reason": "empty"}))
                log.info("room ended: nobody came back", room=room.id)
        except (StoreUnavailable, NotFound):
            pass

    async def close(self) -> None:
        """Close all of them."""
        for task in list(self._opening.values()):
            task.cancel()
        rooms, self._rooms = list(self._rooms.values()), {}
        await asyncio.gather(*(room.close() for room in rooms))


def _choose(slot_types: tuple[PayloadType, ...], track_type: PayloadType) -> int | None:
    chosen = slot_payload_type(slot_types, track_type)
    return None if chosen is None else chosen.number

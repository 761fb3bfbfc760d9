"""Which rooms of a node have something to do. The others would do the same as before: nothing."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator

from relay.node.room import HostedRoom
from relay.node.rooms import HostedRooms

Mark = tuple[object, ...]


class Stirred:
    """Rooms of which something has changed. `mark` gives all that a room's tick goes by beside time; what changes is
    another object. A room is ticked until its mark stays the same and it keeps nothing that only time ends."""

    def __init__(self, rooms: HostedRooms, mark: Callable[[HostedRoom], Mark]) -> None:
        self._rooms, self._mark = rooms, mark
        self._marks: dict[str, Mark] = {}

    def __bool__(self) -> bool:
        return bool(self._marks)

    def stir(self, room: str) -> None:
        """Something happened: it is ticked once more at least."""
        self._marks[room] = ()

    def due(self) -> Iterator[HostedRoom]:
        """Those to be ticked now, each before the next is looked at."""
        for name, before in list(self._marks.items()):
            room = self._rooms.get(name)
            if room is None or (_is_same(before, self._mark(room)) and not _awaits_time(room)):
                del self._marks[name]
                continue
            yield room
            self._marks[name] = self._mark(room)


def _is_same(one: Mark, other: Mark) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _awaits_time(room: HostedRoom) -> bool:
    """Whether time alone will change what a room's tick does: something is kept for a while."""
    shared = room._shared
    return bool(room._attendance._leaving or room._tracks._lost or (shared is not None and shared._remote._former))

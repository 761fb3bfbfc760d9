"""The rooms whose events an origin sends over its links: who watches, and what is kept for who lost the channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from relay.errors import UsageError
from relay.link import messages as m
from relay.link.hooks import OriginHooks
from relay.link.served_link import ServedLink
from relay.ports import RoomEvent

EVENT_BATCH = 32  # events in one message
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Room:
    """A room that at least one link watches. `truncated`: events before the kept ones are gone.

    `links` has the sync id after which each link's watch began: who asks again before he was answered begins there.
    """

    kept: deque[RoomEvent]
    links: dict[ServedLink, int] = field(default_factory=dict)
    truncated: bool = False


class ServedRooms:
    """All of one node. `history` events are kept per room."""

    def __init__(self, hooks: OriginHooks, history: int) -> None:
        self.unsent = 0
        """Events that are too long for a message."""
        self._hooks = hooks
        self._history = history
        self._rooms: dict[str, _Room] = {}

    def say(self, room: str, events: Sequence[RoomEvent]) -> None:
        """Keep a room's events and send them to who watches it. Ignored when nobody does."""
        watched = self._rooms.get(room)
        if watched is None:
            return
        for event in events:
            watched.truncated = watched.truncated or len(watched.kept) == watched.kept.maxlen
            watched.kept.append(event)
        for link in watched.links:
            self._send(link, room, events)

    def watch(self, link: ServedLink, wish: m.WatchRoom) -> None:
        """Send a room's events to a link: tell first where they begin."""
        watched = self._rooms.get(wish.room)
        began = watched is None
        if watched is None:
            watched = self._rooms[wish.room] = _Room(deque(maxlen=self._history))
            self._hooks.watch_room(wish.room, True)
        newest = watched.kept[-1].sync_id if watched.kept else 0
        after = watched.links.get(link, newest) if wish.after is None else wish.after
        watched.links.setdefault(link, after)
        link.rooms.add(wish.room)
        older = watched.kept and watched.kept[0].sync_id <= after
        gap = wish.after is not None and (began or (watched.truncated and not older))
        link.say(m.RoomEvents(room=wish.room, events=(), gap=gap, position=after))
        self._send(link, wish.room, [event for event in watched.kept if event.sync_id > after])

    def unwatch(self, link: ServedLink, room: str) -> None:
        """Send a room's events to a link no more. No error when it does not watch."""
        watched = self._rooms.get(room)
        if watched is None or link not in watched.links:
            return
        del watched.links[link]
        link.rooms.discard(room)
        if not watched.links:
            del self._rooms[room]
            self._hooks.watch_room(room, False)

    def leave(self, link: ServedLink) -> None:
        """The link ends."""
        for room in tuple(link.rooms):
            self.unwatch(link, room)

    def _send(self, link: ServedLink, room: str, events: Sequence[RoomEvent]) -> None:
        for at in range(0, len(events), EVENT_BATCH):
            batch = events[at : at + EVENT_BATCH]
            try:
                link.say(_message(room, batch))
            except UsageError:  # too long together
                for event in batch:
                    self._send_alone(link, room, event)

    def _send_alone(self, link: ServedLink, room: str, event: RoomEvent) -> None:
        try:
            link.say(_message(room, [event]))
        except UsageError as error:
            self.unsent += 1
            log.error("room event not sent over a link", room=room, type=event.type, reason=str(error))


def _message(room: str, events: Sequence[RoomEvent]) -> m.RoomEvents:
    found = tuple(m.Event(sync_id=event.sync_id, type=event.type, data=event.data) for event in events)
    return m.RoomEvents(room=room, events=found)

"""What a subscriber makes of an origin's messages, one by one."""

from __future__ import annotations

from relay.ids import HybridClock
from relay.link import messages as m
from relay.link.receiver import LinkReceiver
from relay.link.subscriptions import Subscriptions
from relay.settings import LinkFlowSettings
from tests.link.link_world import Subscriber

SETTINGS = LinkFlowSettings()


def events(*sync_ids: int, position: int | None = None) -> m.RoomEvents:
    found = tuple(m.Event(sync_id=each, type="score", data={}, stored=True) for each in sync_ids)
    return m.RoomEvents(room="r", events=found, position=position)


class World:
    """A subscriber that watches a room; what it says and hears is kept."""

    def __init__(self) -> None:
        self.said: list[m.Message] = []
        self.hooks = Subscriber()
        self.wants = Subscriptions("a", LinkReceiver(SETTINGS), self.hooks, HybridClock(), SETTINGS, self.said.append)
        self.wants.watch_room("r", None)

    def take(self, *messages: m.RoomEvents) -> list[int]:
        """Return the events that are handed on."""
        for message in messages:
            assert self.wants.message(message, 0)
        self.wants.deliver([], 0)
        found, self.hooks.order = [sync_id for _, sync_id in self.hooks.order], []
        return found


def test_events_after_the_channel_came_back_wait_for_the_answer() -> None:
    """The origin may tell the newest before it hears from where on the others are missing."""
    world = World()
    assert world.take(events(position=10), events(11, 12)) == [11, 12]
    world.wants.channel_opened()
    assert world.said[-1] == m.WatchRoom(room="r", after=12)
    assert world.take(events(15)) == []
    assert world.take(events(position=12), events(13, 14, 15), events(16)) == [13, 14, 15, 16]


def test_a_watch_that_was_never_answered_begins_as_it_was_asked_for() -> None:
    world = World()
    world.wants.channel_opened()
    assert world.said[-1] == m.WatchRoom(room="r", after=None)
    assert world.take(events(5)) == []
    assert world.take(events(position=4), events(5)) == [5]


def test_a_room_that_is_watched_again_is_a_new_wish() -> None:
    world = World()
    assert world.take(events(position=10), events(11)) == [11]
    world.wants.unwatch_room("r")
    assert world.take(events(12)) == []
    world.wants.watch_room("r", 11)
    assert world.take(events(position=11), events(12)) == [12]

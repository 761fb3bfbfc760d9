"""A followed document on a real store: what is read again, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from relay.cluster import RedisStore
from relay.errors import StoreUnavailable
from relay.node.following import FollowedRoom
from relay.stage.document import RoomState
from relay.stage.room import changing


class OneAnswerLost:
    """The real store, of which one answer to a read does not come; everything else is the store's own."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.lost = 0

    async def read(self, room: str) -> dict[str, Any]:
        if not self.lost:
            self.lost += 1
            raise StoreUnavailable("the answer was lost", retry_after=1)
        return await self._store.read(room)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def named(name: str) -> Callable[[RoomState], Any]:
    def change(state: RoomState) -> Any:
        return replace(state, metadata={"name": name}), [("room.changed", {"name": name})]

    return change


async def test_a_read_that_fails_is_made_again_without_another_event(store: RedisStore) -> None:
    state = RoomState.from_json(await store.read("demo"))
    seen: asyncio.Queue[str] = asyncio.Queue()
    losing = OneAnswerLost(store)
    room = FollowedRoom(
        "demo",
        losing,  # type: ignore[arg-type]
        state,
        on_change=lambda state: seen.put_nowait(str(state.metadata.get("name"))),
        on_event=lambda event: None,
        on_end=lambda: None,
    )
    room.start()
    try:
        await store.change("demo", changing(named("news")))
        async with asyncio.timeout(20):
            while await seen.get() != "news":
                pass
        assert losing.lost == 1
        assert room.state.metadata == {"name": "news"}
    finally:
        await room.close()


class Deaf:
    """The real store, whose reads never answer and one of which swallows a cancellation, as wait_for may."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.reading = asyncio.Event()
        self.swallowed = 0

    async def read(self, room: str) -> dict[str, Any]:
        self.reading.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if self.swallowed:
                raise
            self.swallowed += 1
        raise StoreUnavailable("the answer was lost", retry_after=1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_closing_ends_also_when_a_cancellation_is_swallowed(store: RedisStore) -> None:
    state = RoomState.from_json(await store.read("demo"))
    deaf = Deaf(store)
    room = FollowedRoom(
        "demo",
        deaf,  # type: ignore[arg-type]
        state,
        on_change=lambda state: None,
        on_event=lambda event: None,
        on_end=lambda: None,
    )
    room.start()
    await store.change("demo", changing(named("news")))
    async with asyncio.timeout(20):
        await deaf.reading.wait()
        await room.close()
    assert deaf.swallowed == 1

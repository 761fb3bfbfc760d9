"""What a room tells the store beside its document: who watches, and events that change no state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from relay.edge.session import SessionInfo
from relay.ending import end
from relay.errors import NotFound, RequestError, StoreUnavailable
from relay.ports import RoomStore
from relay.stage.permissions import Role

INTERVAL_S = 10.0  # well below the time after which the store forgets a viewer
_CREW = (Role.OWNER, Role.GUEST, Role.MODERATOR)


def is_audience(info: SessionInfo) -> bool:
    """Whether a session is somebody's who only watches: the others stand in the document."""
    return info.kind == "viewer" and info.role not in _CREW


class Presence:
    """One room's. `start` on the running loop, `close` at the end. Presence that cannot be written is told again;
    events that cannot be go to `unstored`.
    """

    def __init__(
        self,
        room: str,
        store: RoomStore,
        sessions: Callable[[], Iterable[SessionInfo]],
        unstored: Callable[[list[tuple[str, dict[str, Any]]]], None] = lambda events: None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._room = room
        self._store = store
        self._sessions = sessions
        self._unstored = unstored
        self._interval_s = interval_s
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to repeat who watches."""
        self._spawn(self._repeat())

    async def close(self) -> None:
        """Stop."""
        await end(self._tasks)

    def came(self, info: SessionInfo) -> None:
        """Somebody watches."""
        self._spawn(self._put(info))

    def went(self, identity: str) -> None:
        """Nobody watches under this identity any more."""
        self._spawn(self._store.drop_viewer(self._room, identity))

    def append(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Append events that change no state."""
        self._spawn(self._append(events))

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            for info in [info for info in self._sessions() if is_audience(info)]:
                try:
                    await self._put(info)
                except (StoreUnavailable, NotFound):
                    break  # the next round tells it again, also to a store that has to learn of the room anew

    async def _put(self, info: SessionInfo) -> None:
        await self._store.put_viewer(self._room, info.identity, {"role": info.role, "since": info.opened_at})

    async def _append(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        try:
            await self._store.append(self._room, events)
        except StoreUnavailable:
            self._unstored(events)
        except RequestError:
            pass  # the room is over

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except (StoreUnavailable, NotFound):
                pass  # presence expires by itself and is told again

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

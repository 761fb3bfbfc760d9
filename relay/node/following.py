"""A room's document on this node: the store's newest, plus what this node has changed and not yet been able to write.

Media never waits for the store. A change is applied here at once and written when the store takes it; with the store
gone, the room goes on by this document, and when the store is back, what is still unwritten is written in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from relay.ending import end
from relay.errors import Conflict, CorruptDocument, NotFound, RequestError, StoreUnavailable
from relay.ports import RoomEvent, RoomStore
from relay.stage.document import RoomChange, RoomState
from relay.stage.room import changing

log = structlog.get_logger()

RETRY_FIRST_S = 0.25
RETRY_LAST_S = 3.0  # a store that is back is used again within this time
PENDING_LIMIT = 1024  # changes: far more than the hosts of one room make while a store restarts
LAST_EVENT = "room.ended"

Change = Callable[[RoomState], RoomChange]


@dataclass(frozen=True, slots=True)
class Pending:
    """A change on its way to the store. `refused` is told when the room's rules forbid it after all."""

    change: Change
    refused: Callable[[RequestError], None]


class FollowedRoom:
    """Keeps one room's document current. `on_change` gets every new state, `on_event` every event of the stream,
    `on_end` is called once when the room has ended.
    """

    def __init__(
        self,
        room: str,
        store: RoomStore,
        state: RoomState,
        *,
        on_change: Callable[[RoomState], None],
        on_event: Callable[[RoomEvent], None],
        on_end: Callable[[], None],
    ) -> None:
        self.room = room
        self.state = state
        self.ended = False
        self._store = store
        self._stored = state
        self._pending: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._stale = asyncio.Event()
        self._on_change, self._on_event, self._on_end = on_change, on_event, on_end
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow and to write. The owner calls `close`."""
        self._tasks = [asyncio.create_task(part()) for part in (self._follow, self._refresh, self._write)]

    async def close(self) -> None:
        """Stop. What could not be written is lost with it."""
        await end(self._tasks)
        self._tasks = []

    def push(self, change: Change, refused: Callable[[RequestError], None] | None = None) -> None:
        """Change the room: here at once, in the store as soon as it takes it.

        A change that the rules forbid here is refused at once. One that only the stored document forbids is refused
        later, and undone here by the next document.
        """
        pending = Pending(change, refused or self._log_refusal)
        try:
            state, _ = change(self.state)
        except RequestError as error:
            pending.refused(error)
            return
        if state is self.state or len(self._pending) >= PENDING_LIMIT:
            return
        self._pending.append(pending)
        self._wake.set()
        self._show(state)

    async def flushed(self, timeout_s: float) -> bool:
        """Wait until everything is written; False when that takes longer than `timeout_s`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._pending and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        return not self._pending

    def _show(self, state: RoomState) -> None:
        self.state = state
        self._on_change(state)

    def _adopt(self, stored: RoomState) -> None:
        """Take the store's document, with what is still unwritten on top."""
        if int(stored.sync_id) < int(self._stored.sync_id):
            return  # a slower read of an older document
        self._stored = stored
        state = stored
        for pending in self._pending:
            try:
                state, _ = pending.change(state)
            except RequestError:
                continue  # the write itself will tell
        self._show(state)

    async def _write(self) -> None:
        delay = RETRY_FIRST_S
        while True:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
            pending = self._pending[0]
            try:
                document, _ = await self._store.change(self.room, changing(pending.change))
            except (StoreUnavailable, NotFound):
                # Without a document the room is over or the store has forgotten it; which, the stream tells `_follow`.
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_LAST_S)
                continue
            except RequestError as error:
                self._pending.popleft()
                pending.refused(error)
                self._adopt(self._stored)
            else:
                self._pending.popleft()
                self._adopt(RoomState.from_json(document))
            delay = RETRY_FIRST_S

    async def _follow(self) -> None:
        delay = RETRY_FIRST_S
        while not self.ended:
            try:
                async for event in self._store.events(self.room, int(self._stored.sync_id)):
                    delay = RETRY_FIRST_S
                    self._on_event(event)
                    if event.type == LAST_EVENT:
                        self._end()
                        return
                    self._stale.set()
            except StoreUnavailable:
                pass
            except NotFound:
                await self._restore()
            except Conflict:
                self._stored = replace(self._stored, sync_id="0")  # the stream no longer reaches back: read anew
            self._stale.set()
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST_S)

    async def _refresh(self) -> None:
        """Read the document once for any number of events."""
        delay = RETRY_FIRST_S
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                self._adopt(RoomState.from_json(await self._store.read(self.room)))
                delay = RETRY_FIRST_S
            except StoreUnavailable:
                # The events that told of it may have been the last ones for long: nobody else would ask again.
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_LAST_S)
                self._stale.set()
            except NotFound:
                continue  # `_follow` finds out whether the room has ended
            except CorruptDocument as error:
                log.error("the store has a room document that cannot be read", room=self.room, error=str(error))

    async def _restore(self) -> None:
        """Even the stream is gone, which an ended room leaves behind for a while: the store has lost its memory."""
        try:
            await self._store.create(self.room, replace(self._stored, sync_id="0").to_json())
        except (Conflict, StoreUnavailable):
            return  # another node was faster, or the next attempt will tell
        log.warning("the store had lost the room: written again", room=self.room)

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._on_end()

    def _log_refusal(self, error: RequestError) -> None:
        log.warning("the room refused a change of this node", room=self.room, error=str(error))

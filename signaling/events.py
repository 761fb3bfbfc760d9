"""Server-Sent Events: a room's stream, resumed by Last-Event-ID without a hole; a session's stream adds its own events.

Memory per listener is bounded: sources are pulled through a queue of `QUEUE` events, and a listener that takes none for
`SEND_TIMEOUT_S` is cut off. It resumes where it was, or learns by 410 that it has to read the state anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractContextManager
from typing import Any

import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from relay.errors import Conflict, CostreamError, NotFound
from relay.ports import RoomEvent
from signaling.context import Context
from signaling.problems import EventsGone, InvalidParameter, RoomNotFound

QUEUE = 64
KEEP_ALIVE_S = 15
SEND_TIMEOUT_S = 10.0
SETTLE_S = 0.1  # a kept event, or the news that it is gone, takes one round trip to the store; silence: up to date
MAX_SYNC_ID = (1 << 64) - 1
_BESIDE = frozenset({"slot.bound", "node.draining", "node.lost"})
"""Events that have no place in the room's stream."""

_log = structlog.get_logger(__name__)


def parse_position(last_event_id: str | None) -> int | None:
    """Return the sync id to resume after; None for none. Raises InvalidParameter."""
    if not last_event_id:
        return None
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) <= 20):
        raise InvalidParameter("Last-Event-ID has to be a sync id: a decimal number")
    if int(last_event_id) > MAX_SYNC_ID:
        raise InvalidParameter("Last-Event-ID has more than 64 bits")
    return int(last_event_id)


class Listener:
    """One client's stream: pumps fill a bounded queue, `messages` empties it. Close it when the client is gone."""

    def __init__(self, context: Context, room: str, identity: str) -> None:
        self._context = context
        self._room = room
        self._identity = identity
        self._queue: asyncio.Queue[RoomEvent | None] = asyncio.Queue(QUEUE)
        self._tasks: list[asyncio.Future[Any]] = []
        self._latest = 0

    async def follow_room(self, after: int, session: str = "", *, up_to_date: bool = False) -> None:
        """Follow the room's stream. Of `slot.bound` only those of `session` pass: they concern nobody else.

        `up_to_date` says that nothing is known to have come after `after`: then nothing is waited for.

        Raises RoomNotFound, EventsGone and StoreUnavailable when the stream cannot begin.
        """
        source = self._context.store.events(self._room, after)
        first = asyncio.ensure_future(_next(source))
        self._tasks.append(first)
        await asyncio.wait({first}, timeout=0 if up_to_date else SETTLE_S)
        if first.done():
            _raise_refusal(first.exception())
        self._latest = after
        self._start(self._pump_room(first, source, session))

    def follow_session(self, source: AsyncIterator[RoomEvent]) -> None:
        """Merge in a session's own events, which have no place in the room's stream and are not resumed."""
        self._start(self._pump(source))

    def follow_drain(self, *, announced: bool = True) -> None:
        """End when this process stops, having `announced` that it drains: where it is not the session's node, that node
        does so by itself."""
        self._start(self._announce_drain(announced))

    def end_in(self, seconds: float) -> None:
        """End the stream then: a stream lives no longer than its token."""
        self._start(self._end_in(seconds))

    async def close(self) -> None:
        """Stop all pumps."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, CostreamError | StopAsyncIteration):
                _log.error("event pump failed", room=self._room, exc_info=result)

    def counted(self) -> AbstractContextManager[object]:
        """Return a context manager that counts the listener in the metrics."""
        return self._context.metrics.event_streams.track_inprogress()

    async def messages(self) -> AsyncIterator[ServerSentEvent]:
        """Yield what goes to the client until the room ends, the identity is removed or the stream is closed."""
        while (event := await self._queue.get()) is not None:
            yield self._message(event)
            if event.type == "room.ended" or self._is_own_removal(event):
                return

    def _message(self, event: RoomEvent) -> ServerSentEvent:
        """Render an event. One from outside the room's stream has no `id:` line, or a resume would skip others."""
        in_stream = event.sync_id > self._latest and event.type not in _BESIDE
        self._latest = max(self._latest, event.sync_id)
        body = {"sync_id": str(self._latest), "type": event.type, "room": self._room, "data": event.data}
        return ServerSentEvent(
            json.dumps(body, separators=(",", ":"), ensure_ascii=False),
            event=event.type,
            id=str(event.sync_id) if in_stream else None,
            sep="\n",
        )

    def _is_own_removal(self, event: RoomEvent) -> bool:
        return event.type == "participant.kicked" and event.data.get("identity") == self._identity

    def _start(self, pump: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(pump))

    async def _pump_room(
        self, first: asyncio.Future[RoomEvent], source: AsyncIterator[RoomEvent], session: str
    ) -> None:
        """Pass the room's events on. When the source fails the stream ends, and the client comes back for the rest."""
        try:
            event = await first
            while True:
                if event.type != "slot.bound" or event.data.get("session") == session:
                    await self._queue.put(event)
                event = await _next(source)
        except (StopAsyncIteration, CostreamError):
            await self._queue.put(None)

    async def _pump(self, source: AsyncIterator[RoomEvent]) -> None:
        """Pass a session's events on until it ends. When the source fails the stream ends with `node.lost`: it is for
        the client to see whether media still flows."""
        try:
            async for event in source:
                await self._queue.put(event)
        except CostreamError:
            await self._queue.put(RoomEvent(0, "node.lost", {}))
            await self._queue.put(None)

    async def _announce_drain(self, announced: bool) -> None:
        await self._context.drain.began.wait()
        if announced:
            await self._queue.put(RoomEvent(0, "node.draining", {}))
        await self._context.drain.ended.wait()
        await self._queue.put(None)

    async def _end_in(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._queue.put(None)


class EventStream(EventSourceResponse):
    """The response of a listener; closes it however the response ends."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(
            listener.messages(),
            ping=KEEP_ALIVE_S,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            send_timeout=SEND_TIMEOUT_S,
            sep="\n",
        )
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._listener.counted():
                await super().__call__(scope, receive, send)
        except TimeoutError:
            _log.info("slow event listener cut off")
        finally:
            await self._listener.close()


async def _next(source: AsyncIterator[RoomEvent]) -> RoomEvent:
    return await anext(source)


def _raise_refusal(error: BaseException | None) -> None:
    match error:
        case None:
            return
        case Conflict():
            raise EventsGone("read the room's state, then follow from its sync_id")
        case NotFound() | StopAsyncIteration():
            raise RoomNotFound(str(error))
        case _:
            raise error

"""Following rooms' streams: one reader per room and process, however many follow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from relay.ending import end
from relay.errors import CorruptDocument, NotFound
from relay.ids import to_stream_id
from relay.ports import RoomEvent

BLOCK_MS = 2000
"""How long one XREAD waits in the server. The reader's socket time-out has to be longer."""
READ_TIMEOUT_S = BLOCK_MS / 1000 + 1.0
RING = 1000
"""Events a reader remembers; a follower who is further behind reads from the store."""
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 1.0

Decode = Callable[[str, dict[str, str]], RoomEvent]
"""Makes an event of a stream entry. Raises CorruptDocument."""

_log = structlog.get_logger(__name__)


class RoomReader:
    """Reads one stream on a connection of its own and remembers the newest events. Outlives outages of the store."""

    def __init__(
        self, room: str, key: str, client: Redis, position: int, decode: Decode, on_answer: Callable[[], None]
    ) -> None:
        self.followers = 0
        self._on_answer = on_answer
        self._room = room
        self._key = key
        self._client = client
        self._decode = decode
        self._floor = self._position = position
        self._ring: deque[RoomEvent] = deque()
        self._news = asyncio.Event()
        self._lost: Exception | None = None
        self._closed = False
        self._task = asyncio.create_task(self._run(), name=f"events of {room}")

    @property
    def ended(self) -> bool:
        """Whether no news will ever come."""
        return self._closed or self._lost is not None

    def since(self, position: int) -> list[RoomEvent] | None:
        """Return the remembered events after `position`; None when some of them are no longer remembered."""
        if position < self._floor:
            return None
        found = []
        for event in reversed(self._ring):
            if event.sync_id <= position:
                break
            found.append(event)
        return found[::-1]

    async def wait(self) -> bool:
        """Wait for news. False when reading ended. Raises NotFound when the stream is gone."""
        await self._news.wait()
        if self._lost is not None:
            raise self._lost
        return not self._closed

    def close(self) -> asyncio.Task[None]:
        """Stop reading, let go the followers; returns the task to await."""
        self._closed = True
        self._news.set()
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        delay = _FIRST_DELAY_S
        # The client library may swallow a cancellation that meets an answer, so that `ended` is looked at as well.
        while not self.ended:
            try:
                await self._read()
                delay = _FIRST_DELAY_S
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("room_stream_interrupted", room=self._room, reason=str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY_S)

    async def _read(self) -> None:
        position = to_stream_id(self._position)
        found: Any = await self._client.xread({self._key: position}, count=500, block=BLOCK_MS)
        self._on_answer()
        if found:
            try:
                self._remember([self._decode(*entry) for entry in found[0][1]])
            except CorruptDocument as error:
                self._lose(error)
        elif not await self._client.exists(self._key):
            self._lose(NotFound(f"room {self._room} is gone", code="room-not-found"))

    def _lose(self, error: Exception) -> None:
        self._lost = error
        self._news.set()

    def _remember(self, events: list[RoomEvent]) -> None:
        self._ring.extend(events)
        self._position = events[-1].sync_id
        while len(self._ring) > RING:
            self._floor = self._ring.popleft().sync_id
        # Everybody who waits now is woken; who waits next waits for the next news.
        self._news.set()
        self._news = asyncio.Event()


class Readers:
    """The readers of this process, by room. `on_answer` is told whenever the store answers one, every `BLOCK_MS`."""

    def __init__(self, client: Redis, decode: Decode, on_answer: Callable[[], None]) -> None:
        self._client = client
        self._decode = decode
        self._on_answer = on_answer
        self._readers: dict[str, RoomReader] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def acquire(self, room: str, key: str, position: int) -> RoomReader:
        """Return the room's reader, a new one from `position` on when there is none. `release` it afterwards."""
        reader = self._readers.get(room)
        if reader is None or reader.ended:
            reader = self._readers[room] = RoomReader(room, key, self._client, position, self._decode, self._on_answer)
        reader.followers += 1
        if self._closed:
            self._end(reader)
        return reader

    def release(self, room: str, reader: RoomReader) -> None:
        """Let go a reader; the last follower ends it."""
        reader.followers -= 1
        if reader.followers == 0:
            if self._readers.get(room) is reader:
                del self._readers[room]
            self._end(reader)

    async def close(self) -> None:
        """End all readers; their followers end too."""
        self._closed = True
        for reader in list(self._readers.values()):
            self._end(reader)
        self._readers.clear()
        await end(self._ending)

    def _end(self, reader: RoomReader) -> None:
        task = reader.close()
        if not task.done():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

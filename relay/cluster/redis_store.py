"""Rooms on a server that speaks the Redis protocol (Redis ≥ 7, Valkey): the one implementation of `ports.RoomStore`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from relay.cluster import scripts
from relay.cluster.connect import open_client
from relay.cluster.flight import SharedFlights
from relay.cluster.follow import READ_TIMEOUT_S, Readers, RoomReader
from relay.cluster.gate import CONNECTIONS, REST_S, StoreGate
from relay.cluster.pk_store import RedisPkStore
from relay.errors import Conflict, CorruptDocument, NotFound, Overloaded, StoreUnavailable
from relay.ids import HybridClock, from_stream_id, sync_id_milliseconds, to_stream_id
from relay.ports import ChangeRoom, RoomEvent

KEEP_EVENTS = 1000
"""About how many events of a room are kept for those who resume."""
TOMBSTONE_S = 60
VIEWER_TTL_S = 45.0
"""A viewer whose presence was not renewed for this long is gone; renew at a third of it."""
IDLE_READERS = 4
"""Connections kept for rooms to come; a reader gives its own back between two reads, and takes it again at once."""
_ATTEMPTS = 64
_BACKLOG = 500
INDEX = "costream:rooms"
ENDED = "costream:rooms:ended"
"""Rooms that ended of late, by when: their streams are still there for those who have to read them to the end."""
_LAST = "room.ended"

_Told = Iterable[tuple[str, dict[str, Any]]]


class RedisStore:
    """A `RoomStore`. Documents carry `sync_id` (decimal): the last event when they were read, to follow on from."""

    def __init__(
        self,
        url: str,
        *,
        socket_timeout_s: float = 0.5,
        connect_timeout_s: float = 0.5,
        wall: Callable[[], float] = time.time,
        viewer_ttl: float = VIEWER_TTL_S,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`url` as for `open_client`; `socket_timeout_s` bounds every call. Connects when first used."""
        self.url = url
        self._clock = HybridClock()
        self._wall = wall
        self._viewer_ttl = viewer_ttl
        self._on_close = on_close
        self._gate = StoreGate(socket_timeout_s)
        # Followers wait in the server for news, on connections with a longer time-out: as many as there are rooms.
        self._opened = [
            open_client(url, socket_timeout_s=timeout, connect_timeout_s=connect_timeout_s, most_idle=idle)
            for timeout, idle in ((socket_timeout_s, CONNECTIONS), (READ_TIMEOUT_S, IDLE_READERS))
        ]
        self._client: Redis = self._opened[0].redis
        self._reading: Redis = self._opened[1].redis
        self._pks = RedisPkStore(self._client, self._gate)
        self._reads: SharedFlights[Any] = SharedFlights()
        self._readers = Readers(self._reading, self._event, self._gate.answered)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        names = ("CREATE", "READ", "WRITE", "APPEND", "DELETE", "PUT_VIEWER", "VIEWERS")
        self._scripts = {name: self._client.register_script(getattr(scripts, name)) for name in names}

    @property
    def pks(self) -> RedisPkStore:
        """The PKs between rooms."""
        return self._pks

    # --- rooms ------------------------------------------------------------------------------------------------------

    async def create(self, room: str, document: dict[str, Any], events: _Told = ()) -> None:
        """Store a new room and its first events, `room.created` when none are given. Raises Conflict when it exists."""
        # A room is never without a stream: that is how its followers know that it is there.
        told = list(events) or [("room.created", {"room": {"id": room}})]
        # Indexed before and not after: a listed room that does not exist is filtered, one that is not listed is lost.
        await self._gate.run(lambda: self._client.sadd(INDEX, room), repeatable=True)
        reply = await self._script(
            "CREATE", _keys(room, "room", "events"), *self._stamp(), _dump(document), *_flat(told)
        )
        if reply[0] == "exists":
            raise Conflict(f"room {room} exists already", code="room-exists")
        self._observe(reply[1])

    async def read(self, room: str) -> dict[str, Any]:
        """Read a room. Raises NotFound, CorruptDocument. A crowd that asks at once costs the store two reads."""
        return self._parsed(room, await self._reads.read(room, lambda: self._reply(room)))[0]

    async def rooms(self) -> list[str]:
        """List the ids of all rooms, sorted."""

        async def find() -> list[str]:
            names = sorted(str(name) for name in await self._client.smembers(INDEX))
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.exists(_key(name, "room"))
                exist = await pipe.execute()
            return [name for name, there in zip(names, exist, strict=True) if there]

        return await self._gate.run(find, repeatable=True)

    async def change(self, room: str, apply: ChangeRoom) -> tuple[dict[str, Any], list[RoomEvent]]:
        """Apply a change under compare-and-set. Raises NotFound, CorruptDocument, Overloaded (contention) and what
        `apply` raises. After StoreUnavailable the change may have been made all the same."""
        # Writers of this process take turns; compare-and-set is left for those of other processes.
        lock = self._locks.setdefault(room, asyncio.Lock())
        async with lock:
            for _ in range(_ATTEMPTS):
                document, version = await self._read(room)
                changed, told = apply(document)
                told = list(told)
                if not told and (changed is document or changed == document):
                    return document, []
                body = _dump({key: value for key, value in changed.items() if key != "sync_id"})
                arguments = (*self._stamp(), version, body, *_flat(told))
                reply = await self._script("WRITE", _keys(room, "room", "events"), *arguments)
                if reply[0] == "ok":
                    events = self._made(reply[1], told)
                    sync_id = str(events[-1].sync_id) if events else document["sync_id"]
                    return {**changed, "sync_id": sync_id}, events
                self._found(reply, room)
        raise Overloaded(f"room {room} is changed by too many at once", retry_after=1)

    async def append(self, room: str, events: _Told, *, late: bool = False) -> list[RoomEvent]:
        """Append events that change no state; `late`: also to what is left of a room that is over. Raises NotFound."""
        told = list(events)
        keys = _keys(room, "events" if late else "room", "events")
        reply = await self._script("APPEND", keys, *self._stamp(), *_flat(told))
        self._found(reply, room)
        return self._made(reply[1], told)

    async def delete(self, room: str, event: tuple[str, dict[str, Any]]) -> None:
        """End a room: its last event, then nothing. The stream can be read for `TOMBSTONE_S` more. Raises NotFound."""
        await self._gate.run(lambda: self._note_end(room), repeatable=True)
        keys = _keys(room, "room", "events", "heartbeats", "viewers")
        reply = await self._script("DELETE", keys, *self._stamp(), TOMBSTONE_S, *_flat([event]))
        self._found(reply, room)
        self._observe(reply[1])

        async def unlist() -> None:
            await self._client.srem(INDEX, room)
            if await self._client.exists(_key(room, "room")):  # created again meanwhile
                await self._client.sadd(INDEX, room)

        await self._gate.run(unlist)

    async def _note_end(self, room: str) -> None:
        now = self._wall()
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(ENDED, {room: now})
            pipe.zremrangebyscore(ENDED, "-inf", now - 2 * TOMBSTONE_S)
            await pipe.execute()

    # --- events -----------------------------------------------------------------------------------------------------

    async def events(self, room: str, after: int | None = None) -> AsyncIterator[RoomEvent]:
        """Follow a room's stream; ends after `room.ended` or with `close`.

        Raises NotFound; Conflict with code `events-gone` when `after` is older than what is kept or was never given
        out; StoreUnavailable only at the start: later outages are waited out, without a hole.
        """
        position = await self._start(room, after)
        reader = self._readers.acquire(room, _key(room, "events"), position)
        try:
            while True:
                batch = reader.since(position)
                if batch is None:
                    batch = await self._backlog(room, position)
                for event in batch:
                    position = event.sync_id
                    yield event
                    if event.type == _LAST:
                        return
                if not batch and not await self._news(reader, position):
                    return
        finally:
            self._readers.release(room, reader)

    async def _news(self, reader: RoomReader, position: int) -> bool:
        """Wait until there may be more. False when there never will be."""
        if not reader.ended and reader.since(position) is None:
            # The store's backlog had nothing for us although the reader's memory starts later: the store is out.
            await asyncio.sleep(REST_S)
            return True
        return await reader.wait()

    async def _start(self, room: str, after: int | None) -> int:
        exists, info = await self._gate.run(lambda: self._inspect(room), repeatable=True)
        if info is None or (after is None and not exists):
            raise NotFound(f"no room {room}", code="room-not-found")
        last = from_stream_id(info["last-generated-id"])
        if after is None:
            return last
        if after > last:
            raise Conflict(f"event {after} of room {room} was never given out", code="events-gone")
        self._check_kept(room, after, info)
        return after

    async def _backlog(self, room: str, position: int) -> list[RoomEvent]:
        """Return events after `position` from the store; empty when it is out."""

        async def fetch() -> tuple[list[Any], dict[str, Any] | None]:
            entries: Any = await self._client.xrange(_key(room, "events"), f"({to_stream_id(position)}", count=_BACKLOG)
            # Looked at after the entries: what was trimmed in between makes a false alarm rather than a hole.
            return entries, (await self._inspect(room))[1]

        try:
            entries, info = await self._gate.run(fetch, repeatable=True)
        except StoreUnavailable:
            return []
        if info is None:
            raise NotFound(f"room {room} is gone", code="room-not-found")
        self._check_kept(room, position, info)
        return [self._event(*entry) for entry in entries]

    async def _inspect(self, room: str) -> tuple[bool, dict[str, Any] | None]:
        """Return whether the room exists and XINFO of its stream, None when there is no stream."""
        exists = bool(await self._client.exists(_key(room, "room")))
        try:
            return exists, await self._client.xinfo_stream(_key(room, "events"))
        except ResponseError as error:
            if "no such key" in str(error):
                return exists, None
            raise

    @staticmethod
    def _check_kept(room: str, position: int, info: dict[str, Any]) -> None:
        first = info["first-entry"]
        trimmed = info["entries-added"] > info["length"]
        if trimmed and (first is None or position < from_stream_id(first[0])):
            raise Conflict(f"events of room {room} after {position} are no longer kept", code="events-gone")

    # --- viewers ----------------------------------------------------------------------------------------------------

    async def put_viewer(self, room: str, identity: str, data: dict[str, Any]) -> None:
        """Note or renew a viewer's presence; it ends by itself after the viewer's time to live. Raises NotFound."""
        keys = _keys(room, "room", "heartbeats", "viewers")
        self._found(
            await self._script("PUT_VIEWER", keys, identity, _dump(data), self._viewer_ttl, repeatable=True), room
        )

    async def drop_viewer(self, room: str, identity: str) -> None:
        """Forget a viewer's presence."""

        async def drop() -> None:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.zrem(_key(room, "heartbeats"), identity)
                pipe.hdel(_key(room, "viewers"), identity)
                await pipe.execute()

        await self._gate.run(drop)

    async def viewers(self, room: str, limit: int = 1000) -> dict[str, dict[str, Any]]:
        """Read who watches, those longest silent first. Empty for an unknown room."""
        keys = _keys(room, "heartbeats", "viewers")
        found = await self._script("VIEWERS", keys, self._viewer_ttl, limit, repeatable=True)
        return {found[i]: _load(found[i + 1], room) for i in range(1, len(found), 2)}

    async def count_viewers(self, room: str) -> int:
        """Count who watches."""
        keys = _keys(room, "heartbeats", "viewers")
        return int((await self._script("VIEWERS", keys, self._viewer_ttl, 0, repeatable=True))[0])

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def silent_s(self) -> float:
        """See `RoomStore.silent_s`."""
        return self._gate.silent_s

    async def ping(self) -> bool:
        """Whether the store answers now; never raises."""
        try:
            await self._gate.run(self._client.ping, repeatable=True)
        except StoreUnavailable:
            return False
        return True

    async def close(self) -> None:
        """End all followers and connections, then what the store was opened with."""
        await self._readers.close()
        for client in self._opened:
            await client.close()
        if self._on_close is not None:
            await self._on_close()

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _script(self, name: str, keys: list[str], *arguments: Any, repeatable: bool = False) -> Any:
        return await self._gate.run(lambda: self._scripts[name](keys=keys, args=arguments), repeatable=repeatable)

    async def _reply(self, room: str) -> Any:
        return await self._script("READ", _keys(room, "room", "events"), repeatable=True)

    async def _read(self, room: str) -> tuple[dict[str, Any], str]:
        return self._parsed(room, await self._reply(room))

    def _parsed(self, room: str, reply: Any) -> tuple[dict[str, Any], str]:
        """Return a reply's document, with its `sync_id`, and its version."""
        self._found(reply, room)
        document = _load(reply[1], room)
        last = from_stream_id(reply[3])
        self._clock.observe(last)
        document["sync_id"] = str(last)
        return document, reply[2]

    def _stamp(self) -> tuple[int, int, int]:
        """Return the script arguments that say what time it is here and how many events to keep."""
        sync_id = self._clock.next(int(self._wall() * 1000))
        return sync_id_milliseconds(sync_id), sync_id & 0xFFFF, KEEP_EVENTS

    def _observe(self, stream_ids: list[str]) -> None:
        for stream_id in stream_ids:
            self._clock.observe(from_stream_id(stream_id))

    def _made(self, stream_ids: list[str], told: list[tuple[str, dict[str, Any]]]) -> list[RoomEvent]:
        self._observe(stream_ids)
        pairs = zip(stream_ids, told, strict=True)
        return [RoomEvent(from_stream_id(stream_id), kind, data) for stream_id, (kind, data) in pairs]

    def _event(self, stream_id: str, fields: dict[str, str]) -> RoomEvent:
        try:
            event = RoomEvent(from_stream_id(stream_id), fields["type"], json.loads(fields["data"]))
        except (KeyError, ValueError) as error:
            raise CorruptDocument(f"event {stream_id} in the store cannot be read: {error!r}") from error
        self._clock.observe(event.sync_id)
        return event

    @staticmethod
    def _found(reply: list[Any], room: str) -> None:
        if reply[0] == "missing":
            raise NotFound(f"no room {room}", code="room-not-found")


def _key(room: str, what: str) -> str:
    return f"costream:{what}:{{{room}}}"


def events_key(room: str) -> str:
    """The key of a room's stream."""
    return _key(room, "events")


def _keys(room: str, *what: str) -> list[str]:
    return [_key(room, each) for each in what]


def _flat(told: _Told) -> list[str]:
    return [part for kind, data in told for part in (kind, _dump(data))]


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _load(text: str, room: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CorruptDocument(f"room {room}: the store holds no JSON for it: {error}") from error
    if not isinstance(value, dict):
        raise CorruptDocument(f"room {room}: the store holds JSON that is no object")
    return value

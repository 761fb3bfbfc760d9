"""Webhooks that wait, in the store of the rooms: the one implementation of `ports.Outbox`.

A room's stream is the log that is written together with the room. One process at a time reads the streams on from where
they were forwarded and queues what endpoints get, in one step with the new position: a crash at any moment leaves
nothing out and queues nothing twice. Whoever delivers reads an endpoint's queue as a member of a consumer group.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import structlog
from redis.exceptions import ResponseError

from relay.cluster import outbox_scripts as scripts
from relay.cluster.connect import open_client
from relay.cluster.gate import StoreGate
from relay.cluster.redis_store import ENDED, INDEX, KEEP_EVENTS, events_key
from relay.errors import Conflict
from relay.ids import from_stream_id, to_stream_id
from relay.outbox import NODES, Backlog, Delivery, Endpoint, Message, Secret
from relay.ports import RoomEvent

DEAD_LETTERS = 1000
"""About how many are kept for each endpoint."""
REVIVED_AT_ONCE = 200
LONGEST_WAIT_S = 2.0
_AT_ONCE = 200
_FIRST = "0-0"
_GROUP = scripts.GROUP

log = structlog.get_logger(__name__)


def _key(what: str, endpoint: str = "") -> str:
    return f"costream:webhooks:{{webhooks}}:{what}" + (f":{endpoint}" if endpoint else "")


class RedisOutbox:
    """See `relay.ports.Outbox`."""

    def __init__(self, url: str, *, socket_timeout_s: float = 0.5, connect_timeout_s: float = 0.5) -> None:
        """`url` as for `open_client`; `socket_timeout_s` bounds every call. Connects when first used."""
        self._gate = StoreGate(socket_timeout_s)
        # Who waits for messages holds a connection meanwhile, with a longer time-out.
        self._waiting_gate = StoreGate(LONGEST_WAIT_S + socket_timeout_s)
        self._opened = [
            open_client(url, socket_timeout_s=timeout, connect_timeout_s=connect_timeout_s)
            for timeout in (socket_timeout_s, LONGEST_WAIT_S + socket_timeout_s)
        ]
        self._client: Any = self._opened[0].redis
        self._waiting: Any = self._opened[1].redis
        names = ("PUT", "LEAD", "FORWARD", "DUE", "DONE", "AGAIN", "BURY", "REVIVE")
        self._scripts = {name: self._client.register_script(getattr(scripts, name)) for name in names}

    async def close(self) -> None:
        """End all connections."""
        for client in self._opened:
            await client.close()

    # --- endpoints --------------------------------------------------------------------------------------------------

    async def endpoints(self) -> list[Endpoint]:
        """See `Outbox.endpoints`."""
        found = await self._gate.run(lambda: self._client.hgetall(_key("endpoints")), repeatable=True)
        return [_endpoint(found[name]) for name in sorted(found)]

    async def put_endpoint(self, endpoint: Endpoint, limit: int) -> None:
        """See `Outbox.put_endpoint`."""
        document = asdict(endpoint)
        del document["since"]
        keys = [_key("endpoints"), _key("to", endpoint.id)]
        if not await self._script("PUT", keys, endpoint.id, limit, _dump(document), repeatable=True):
            raise Conflict(f"there are {limit} endpoints already", code="too-many-webhooks")

    async def drop_endpoint(self, endpoint: str) -> bool:
        """See `Outbox.drop_endpoint`."""

        async def drop() -> bool:
            there = bool(await self._client.hdel(_key("endpoints"), endpoint))
            await self._client.delete(*(_key(what, endpoint) for what in ("to", "later", "dead", "counts")))
            return there

        return await self._gate.run(drop)

    async def backlog(self, endpoint: str) -> Backlog:
        """See `Outbox.backlog`."""

        async def count() -> Any:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.xlen(_key("to", endpoint))
                pipe.zcard(_key("later", endpoint))
                pipe.xlen(_key("dead", endpoint))
                pipe.hgetall(_key("counts", endpoint))
                return await pipe.execute()

        waiting, retrying, dead, counts = await self._gate.run(count, repeatable=True)
        sums = (int(counts.get(name, 0)) for name in ("delivered", "given-up", "lost"))
        return Backlog(waiting, retrying, dead, *sums)

    # --- from the rooms' streams into the queues --------------------------------------------------------------------

    async def lead(self, name: str, ttl_s: float) -> bool:
        """See `Outbox.lead`."""
        return bool(await self._script("LEAD", [_key("leader")], name, round(1000 * ttl_s), repeatable=True))

    async def news(self, limit: int) -> dict[str, list[RoomEvent]]:
        """See `Outbox.news`."""
        positions, rooms = await self._gate.run(self._places, repeatable=True)
        found: dict[str, list[RoomEvent]] = {}
        for at in range(0, len(rooms), _AT_ONCE):
            some = rooms[at : at + _AT_ONCE]
            streams = await self._gate.run(lambda some=some: self._read(some, positions, limit), repeatable=True)  # type: ignore[misc]
            gone = []
            for room, (entries, exists) in zip(some, streams, strict=True):
                if entries:
                    found[room] = [_event(*entry) for entry in entries]
                elif not exists and room != NODES:
                    gone.append(room)
            if gone:
                await self._gate.run(lambda gone=gone: self._forget(gone), repeatable=True)  # type: ignore[misc]
        return found

    async def _places(self) -> tuple[dict[str, str], list[str]]:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(_key("positions"))
            pipe.smembers(INDEX)
            pipe.zrange(ENDED, 0, -1)
            positions, living, ended = await pipe.execute()
        return positions, sorted({*positions, *living, *ended, NODES})

    async def _read(self, rooms: list[str], positions: Mapping[str, str], limit: int) -> list[tuple[Any, int]]:
        async with self._client.pipeline(transaction=False) as pipe:
            for room in rooms:
                pipe.xrange(events_key(room), f"({positions.get(room, _FIRST)}", count=limit)
                pipe.exists(events_key(room))
            found = await pipe.execute()
        return list(zip(found[::2], found[1::2], strict=True))

    async def _forget(self, rooms: list[str]) -> None:
        """These rooms are over, and so are their streams."""
        await self._client.hdel(_key("positions"), *rooms)
        await self._client.zrem(ENDED, *rooms)

    async def forward(self, room: str, events: list[RoomEvent], to: Mapping[str, list[Message]], limit: int) -> bool:
        """See `Outbox.forward`."""
        names = list(to)
        keys = [_key("positions")]
        keys += [_key(what, name) for name in names for what in ("to", "later", "dead", "counts")]
        told = [
            part
            for number, name in enumerate(names)
            for message in to[name]
            for part in (number, message.id, message.type, message.body)
        ]
        before = await self._gate.run(lambda: self._client.hget(_key("positions"), room), repeatable=True) or _FIRST
        if from_stream_id(before) >= events[0].sync_id:
            return False
        after = to_stream_id(events[-1].sync_id)
        return bool(await self._script("FORWARD", keys, room, before, after, limit, DEAD_LETTERS, *told))

    async def tell(self, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """See `Outbox.tell`."""

        async def add() -> None:
            async with self._client.pipeline(transaction=False) as pipe:
                for kind, data in events:
                    fields = {"type": kind, "data": _dump(data)}
                    pipe.xadd(events_key(NODES), fields, maxlen=KEEP_EVENTS, approximate=True)
                await pipe.execute()

        await self._gate.run(add)

    # --- from the queues to the endpoints ---------------------------------------------------------------------------

    async def take(self, name: str, endpoints: Mapping[str, int], wait_s: float) -> list[Delivery]:
        """See `Outbox.take`. `wait_s` is at most `LONGEST_WAIT_S`."""
        keys = [_key(what, endpoint) for endpoint in endpoints for what in ("to", "later")]
        await self._script("DUE", keys, repeatable=True)
        streams = {_key("to", endpoint): ">" for endpoint in endpoints}
        most = min(endpoints.values())
        block = max(1, round(1000 * min(wait_s, LONGEST_WAIT_S)))

        async def read() -> Any:
            try:
                return await self._waiting.xreadgroup(_GROUP, name, streams, count=most, block=block)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._make_groups(endpoints)
                return []

        found = await self._waiting_gate.run(read)
        return _deliveries(found)

    async def _make_groups(self, endpoints: Iterable[str]) -> None:
        """A store that forgot everything has forgotten the groups, too."""
        for endpoint in endpoints:
            with contextlib.suppress(ResponseError):
                await self._client.xgroup_create(_key("to", endpoint), _GROUP, "0", mkstream=True)

    async def adopt(self, name: str, endpoint: str, idle_s: float, limit: int) -> list[Delivery]:
        """See `Outbox.adopt`."""

        async def claim() -> Any:
            try:
                found = await self._client.xautoclaim(
                    _key("to", endpoint), _GROUP, name, min_idle_time=round(1000 * idle_s), count=limit
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                return []
            return [(_key("to", endpoint), found[1])]

        return _deliveries(await self._gate.run(claim))

    async def delivered(self, delivery: Delivery) -> None:
        """See `Outbox.delivered`."""
        keys = [_key("to", delivery.endpoint), _key("counts", delivery.endpoint)]
        await self._script("DONE", keys, delivery.entry, repeatable=True)

    async def again(self, delivery: Delivery, wait_s: float) -> None:
        """See `Outbox.again`."""
        entry = _fields(delivery, delivery.tries + 1)
        keys = [_key("to", delivery.endpoint), _key("later", delivery.endpoint)]
        await self._script("AGAIN", keys, delivery.entry, round(1000 * wait_s), _dump(entry), repeatable=True)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """See `Outbox.bury`."""
        entry = {"reason": reason, **_fields(delivery, delivery.tries + 1)}
        keys = [_key(what, delivery.endpoint) for what in ("to", "dead", "counts")]
        flat = [part for field in entry.items() for part in field]
        await self._script("BURY", keys, delivery.entry, DEAD_LETTERS, *flat, repeatable=True)

    async def dead(self, endpoint: str, limit: int) -> list[Delivery]:
        """See `Outbox.dead`."""
        key = _key("dead", endpoint)
        found = await self._gate.run(lambda: self._client.xrevrange(key, count=limit), repeatable=True)
        return _deliveries([(key, found)])

    async def revive(self, endpoint: str) -> int:
        """See `Outbox.revive`."""
        total = 0
        while found := int(
            await self._script("REVIVE", [_key("to", endpoint), _key("dead", endpoint)], REVIVED_AT_ONCE)
        ):
            total += found
        return total

    async def _script(self, name: str, keys: list[str], *arguments: Any, repeatable: bool = False) -> Any:
        return await self._gate.run(lambda: self._scripts[name](keys=keys, args=arguments), repeatable=repeatable)


def _fields(delivery: Delivery, tries: int) -> dict[str, str]:
    message = delivery.message
    return {
        "id": message.id,
        "type": message.type,
        "body": message.body,
        "at": str(delivery.at),
        "tries": str(tries),
    }


def _deliveries(found: Any) -> list[Delivery]:
    """From `[(key, [(entry, fields), …]), …]`, or a mapping of lists of such lists. What is no message is left out."""
    pairs = found.items() if isinstance(found, dict) else found or ()
    deliveries = []
    for key, entries in pairs:
        if entries and isinstance(entries[0], list) and isinstance(found, dict):
            entries = entries[0]
        endpoint = str(key).rpartition(":")[2]
        for entry, fields in entries:
            if not fields or not {"id", "type", "body", "at", "tries"} <= fields.keys():
                continue  # deleted while it was claimed
            message = Message(fields["id"], fields["type"], fields["body"])
            deliveries.append(
                Delivery(endpoint, entry, message, int(fields["at"]), int(fields["tries"]), fields.get("reason", ""))
            )
    return deliveries


def _event(stream_id: str, fields: dict[str, str]) -> RoomEvent:
    """What cannot be read has no type: it has to be passed over, not to be stuck at."""
    try:
        return RoomEvent(from_stream_id(stream_id), fields["type"], json.loads(fields["data"]))
    except (KeyError, ValueError) as error:
        log.error("an event in the store cannot be read", entry=stream_id, reason=repr(error))
        return RoomEvent(from_stream_id(stream_id), "", {})


def _endpoint(text: str) -> Endpoint:
    """Fields that only a newer version knows are left out."""
    document = {name: value for name, value in json.loads(text).items() if name in Endpoint.__dataclass_fields__}
    document["secrets"] = tuple(Secret(**each) for each in document["secrets"])
    document["events"] = tuple(document["events"])
    return Endpoint(**document)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

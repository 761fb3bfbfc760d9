"""The directory of nodes, in the same store as the rooms: one record per node that ends unless it is renewed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict

import structlog
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from relay.cluster.gate import StoreGate
from relay.errors import CostreamError, StoreUnavailable
from relay.ports import NodeDirectory, NodeRecord

_INDEX = "costream:nodes"
_FORGET_S = 3600.0  # ids are new at each start; those of the day before must not make the index grow
PLACED_S = 7200  # a room's place is remembered for as long as a session may last by default
_CONNECTIONS = 4

# KEYS: place. ARGV: node, instead of, seconds. Returns where the room is now.
_PLACE = """
local at = redis.call('GET', KEYS[1])
if not at or at == ARGV[2] then at = ARGV[1] end
redis.call('SET', KEYS[1], at, 'EX', ARGV[3])
return at
"""

_RECORD: TypeAdapter[NodeRecord] = TypeAdapter(NodeRecord)

log = structlog.get_logger(__name__)


class RedisDirectory:
    """A `NodeDirectory`: records are JSON under `costream:node:{id}`, listed in a sorted set by last heartbeat."""

    def __init__(
        self,
        url: str,
        *,
        socket_timeout_s: float = 0.5,
        connect_timeout_s: float = 0.5,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`url` as for `RedisStore`; `socket_timeout_s` bounds every call. Connects when first used."""
        self._wall = wall
        self._gate = StoreGate(socket_timeout_s)
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=socket_timeout_s,
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=connect_timeout_s,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Redis = Redis.from_pool(pool)
        self._place = self._client.register_script(_PLACE)

    async def announce(self, record: NodeRecord, expiry_s: float) -> None:
        """See `NodeDirectory.announce`."""
        body = json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))
        now = self._wall()

        async def write() -> None:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.set(_key(record.id), body, px=round(expiry_s * 1000))
                pipe.zadd(_INDEX, {record.id: now})
                pipe.zremrangebyscore(_INDEX, "-inf", now - _FORGET_S)
                await pipe.execute()

        await self._gate.run(write)

    async def withdraw(self, node: str) -> None:
        """See `NodeDirectory.withdraw`."""

        async def remove() -> None:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.delete(_key(node))
                pipe.zrem(_INDEX, node)
                await pipe.execute()

        await self._gate.run(remove)

    async def nodes(self) -> list[NodeRecord]:
        """See `NodeDirectory.nodes`."""

        async def read() -> list[str | None]:
            names = sorted(str(name) for name in await self._client.zrange(_INDEX, 0, -1))
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(_key(name))
                found: list[str | None] = await pipe.execute()
                return found

        bodies = await self._gate.run(read)
        records = (parse_record(body) for body in bodies if body is not None)
        return [record for record in records if record is not None]

    async def place(self, room: str, node: str, instead_of: str | None = None) -> str:
        """See `NodeDirectory.place`. A place is forgotten `PLACED_S` after it was last asked for."""
        arguments = (node, instead_of or node, PLACED_S)
        return str(await self._gate.run(lambda: self._place(keys=[f"costream:place:{{{room}}}"], args=arguments)))

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


def parse_record(body: str) -> NodeRecord | None:
    """Read a record. None, and a line in the log, for one that is malformed: it must not hide the others."""
    try:
        return _RECORD.validate_json(body, strict=True)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        log.warning("a record in the directory of nodes cannot be read", reason=reason, record=body[:200])
        return None


class Registration:
    """Keeps a node in the directory. `start`, `renew` when something important changed, `stop`."""

    def __init__(
        self, directory: NodeDirectory, record: Callable[[], NodeRecord], *, heartbeat_s: float, expiry_s: float
    ) -> None:
        """`record` makes the newest record at each heartbeat."""
        self._directory = directory
        self._record = record
        self._heartbeat_s, self._expiry_s = heartbeat_s, expiry_s
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: the first heartbeat comes at once."""
        self._task = asyncio.create_task(self._run(), name="registration of the node")

    def renew(self) -> None:
        """Write the record now instead of at the next heartbeat."""
        self._changed.set()

    async def stop(self) -> None:
        """Leave the directory, within the store's time-out; if the store is gone the record expires."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again: Python 3.11's wait_for, with which the client sends, can swallow one
            await asyncio.wait([self._task], timeout=0.1)
        try:
            await self._directory.withdraw(self._record().id)
        except StoreUnavailable:
            pass
        await self._directory.close()

    async def _run(self) -> None:
        listed = True  # the first failure is worth a line, those after it are not
        while True:
            self._changed.clear()
            try:
                await self._directory.announce(self._record(), self._expiry_s)
                if not listed:
                    log.info("the node is in the directory again")
                listed = True
            except CostreamError as error:
                if listed:
                    log.warning("the node cannot be announced; it will be when the store is back", reason=str(error))
                listed = False
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._changed.wait()
            except TimeoutError:
                pass


def _key(node: str) -> str:
    return f"costream:node:{node}"

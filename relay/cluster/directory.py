"""The directory of nodes, in the same store as the rooms: one record per node that ends unless it is renewed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import structlog
from redis.exceptions import RedisError

from relay.cluster import directory_scripts as scripts
from relay.cluster.connect import open_client
from relay.cluster.gate import StoreGate
from relay.cluster.records import RecordReader, write_record
from relay.ending import end
from relay.errors import CostreamError, StoreUnavailable
from relay.ports import NodeDirectory, NodeRecord

PLACED_S = 7200  # a room's place is remembered for as long as a session may last by default
LONGEST_EXPIRY_S = 600.0
_LONGEST_WAIT_S = 2.0
_KEYS = [f"costream:nodes:{{nodes}}:{what}" for what in ("records", "alive", "changes")]

log = structlog.get_logger(__name__)


class RedisDirectory:
    """A `NodeDirectory`. Only what changed is read again."""

    def __init__(self, url: str, *, socket_timeout_s: float = 0.5, connect_timeout_s: float = 0.5) -> None:
        """`url` as for `open_client`; `socket_timeout_s` bounds every call. Connects when first used."""
        self._gate = StoreGate(socket_timeout_s)
        self._opened = [
            open_client(url, socket_timeout_s=timeout, connect_timeout_s=connect_timeout_s)
            for timeout in (socket_timeout_s, _LONGEST_WAIT_S + socket_timeout_s)
        ]
        self._waiting: Any = self._opened[1].redis
        register = self._opened[0].redis.register_script
        self._announce, self._withdraw = register(scripts.ANNOUNCE), register(scripts.WITHDRAW)
        self._look, self._place = register(scripts.LOOK), register(scripts.PLACE)
        self._looking = asyncio.Lock()
        self._reader = RecordReader()
        self._version = ""
        self._records: dict[str, NodeRecord] = {}

    async def announce(self, record: NodeRecord, expiry_s: float) -> None:
        """See `NodeDirectory.announce`. `expiry_s` is at most `LONGEST_EXPIRY_S`."""
        milliseconds = math.ceil(min(expiry_s, LONGEST_EXPIRY_S - 1) * 1000)
        arguments = (record.id, write_record(record), milliseconds)
        await self._gate.run(lambda: self._announce(keys=_KEYS, args=arguments), repeatable=True)

    async def withdraw(self, node: str) -> None:
        """See `NodeDirectory.withdraw`."""
        await self._gate.run(lambda: self._withdraw(keys=_KEYS, args=(node,)), repeatable=True)

    async def nodes(self) -> list[NodeRecord]:
        """See `NodeDirectory.nodes`."""
        async with self._looking:
            version = self._version
            found = await self._gate.run(lambda: self._look(keys=_KEYS, args=(version,)), repeatable=True)
            self._take(found)
            return [self._records[name] for name in sorted(self._records)]

    def _take(self, found: list[str]) -> None:
        self._version = found[0]
        if found[1] == "all":
            for node in self._records:
                self._reader.forget(node)
            self._records = {}
        for node, body in zip(found[2::2], found[3::2], strict=True):
            if not body:
                self._reader.forget(node)
            record = self._reader.read(node, body) if body else None
            if record is None:
                self._records.pop(node, None)
            else:
                self._records[node] = record

    async def changed(self, timeout_s: float) -> None:
        """See `NodeDirectory.changed`."""
        wait_ms = max(1, round(min(timeout_s, _LONGEST_WAIT_S) * 1000))
        try:
            await self._waiting.xread({_KEYS[2]: self._version or "0-0"}, count=1, block=wait_ms)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"the directory of nodes cannot be followed: {error}", retry_after=1) from error

    async def place(self, room: str, node: str, instead_of: str | None = None) -> str:
        """See `NodeDirectory.place`. A place is forgotten `PLACED_S` after it was last asked for."""
        arguments = (node, instead_of or node, PLACED_S)
        keys = [f"costream:place:{{{room}}}"]
        return str(await self._gate.run(lambda: self._place(keys=keys, args=arguments), repeatable=True))

    async def close(self) -> None:
        """End all connections."""
        for client in self._opened:
            await client.close()


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
        if self._task is not None:
            await end([self._task])
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

"""The directory of nodes as one process knows it: a copy that is kept up to date and outlives the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from relay.ending import end
from relay.errors import StoreUnavailable
from relay.ports import NodeDirectory, NodeRecord

_AGAIN_S = 0.1  # after a failure; the gate before the store refuses meanwhile at no cost

log = structlog.get_logger(__name__)


class NodeTable:
    """What is believed of the nodes, given what the store says and when. No I/O; time in seconds, monotonic.

    A node is gone when the store lists the others but not it. While the store is away everything stays as it was; and
    for `grace_s` after it came back, or after it forgot everybody at once, those that are missing have time to announce
    themselves: they could not while it was away.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._records: dict[str, NodeRecord] = {}
        self._listed: tuple[NodeRecord, ...] | None = ()
        self._ids: frozenset[str] = frozenset()
        self._grace_until = float("-inf")
        self._away = False
        self._empty = True

    @property
    def records(self) -> tuple[NodeRecord, ...]:
        """The nodes, by id."""
        if self._listed is None:  # sorted once for each change: many look, few change
            self._listed = tuple(self._records[name] for name in sorted(self._records))
        return self._listed

    @property
    def ids(self) -> frozenset[str]:
        """The nodes' ids: the same object until they change."""
        return self._ids

    def get(self, node: str) -> NodeRecord | None:
        """One node's record."""
        return self._records.get(node)

    @property
    def away(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._away

    def failed(self) -> bool:
        """The store did not answer. Returns whether it had answered before."""
        was, self._away = self._away, True
        return not was

    def took(self, records: Iterable[NodeRecord], now: float) -> bool:
        """The store's list. Returns whether what is believed has changed."""
        listed = {record.id: record for record in records}
        if self._away or (not listed and not self._empty):
            self._grace_until = now + self._grace_s
        self._away, self._empty = False, not listed
        kept = self._records if now < self._grace_until else {}
        believed = {**kept, **listed} if kept else listed
        if believed == self._records:
            return False
        if believed.keys() != self._records.keys():
            self._ids = frozenset(believed)
        self._records, self._listed = believed, None
        return True


class NodeCache:
    """A `KnownNodes` that follows the directory. `start` it, `close` it; it closes the directory."""

    def __init__(
        self,
        directory: NodeDirectory,
        *,
        look_s: float,
        grace_s: float,
        on_change: Callable[[], Awaitable[None]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look_s`: longest time between two looks, and the shortest once something has changed: where many nodes
        change, all would ask all the time. `on_change` is awaited after each change of `records`."""
        self._directory = directory
        self._look_s = look_s
        self._table = NodeTable(grace_s)
        self._on_change = on_change
        self._monotonic = monotonic
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def records(self) -> tuple[NodeRecord, ...]:
        """See `KnownNodes.records`."""
        return self._table.records

    def get(self, node: str) -> NodeRecord | None:
        """See `KnownNodes.get`."""
        return self._table.get(node)

    @property
    def current(self) -> bool:
        """See `KnownNodes.current`."""
        return not self._table.away

    async def start(self) -> None:
        """Read the directory once and keep following it. A store that is not there yet is waited for in vain."""
        await self.look()
        self._task = asyncio.create_task(self._follow(), name="directory of nodes")

    async def look(self) -> bool:
        """Bring the copy up to date now. False when the store does not answer; then it stays as it is."""
        async with self._looking:
            try:
                records = await self._directory.nodes()
            except StoreUnavailable as error:
                if self._table.failed():
                    log.warning("the directory of nodes cannot be read; the last list holds", reason=str(error))
                return False
            if self._table.took(records, self._monotonic()) and self._on_change is not None:
                await self._on_change()
            return True

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            await end([self._task])
        await self._directory.close()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            looked = loop.time()
            try:
                await self._directory.changed(self._look_s)
                answered = await self.look()
            except StoreUnavailable:
                answered = await self.look()  # the one that counts: it tells the table
            except Exception:
                log.exception("a look into the directory of nodes failed")
                answered = False
            if not answered:
                await asyncio.sleep(_AGAIN_S)
            elif (early := looked + self._look_s - loop.time()) > 0:
                await asyncio.sleep(early)

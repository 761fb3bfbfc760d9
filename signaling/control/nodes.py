"""The relays that a signaling service which runs apart can reach, as the directory lists them.

The directory is read again and again into a cache: a request never waits for it. With the store gone the last list
holds. No links between nodes yet, so a room lives on one node: where it is published, else where it was placed before,
else where its id hashes to.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from relay.errors import CostreamError, NodeUnreachable, NotFound, Overloaded, StoreUnavailable
from relay.ports import NodeDirectory, NodeRecord, RoomStore
from relay.settings import SignalingSettings
from signaling.control.client import Deadlines, RemoteNode, Tokens
from signaling.control.trust import Trust
from signaling.nodes import Node, node_of

PROBE_S = 1.0
"""Seconds between two tries of a node that does not answer, so that no client's request is the trial."""
_SOONEST_S = 0.5  # between two looks for a node that is not known: ids in requests may be invented
_REMEMBERED = 10_000

log = structlog.get_logger(__name__)


class RemoteNodes:
    """`signaling.nodes.Nodes` by the directory. `start` it, `close` it."""

    def __init__(
        self,
        settings: SignalingSettings,
        store: RoomStore,
        directory: NodeDirectory,
        caller: str,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`caller` names this process in its tokens. Raises SettingsError when the CA's file cannot be used."""
        self._settings = settings
        self._store = store
        self._directory = directory
        self._caller = caller
        self._deadlines = deadlines
        self._trust = Trust(settings.cluster)
        self._nodes: dict[str, RemoteNode] = {}
        self._places: OrderedDict[str, str] = OrderedDict()
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the directory once and keep reading it. A store that is not there yet is waited for."""
        await self._look()
        self._tasks = [asyncio.create_task(self._keep_looking()), asyncio.create_task(self._keep_probing())]

    async def close(self) -> None:
        """End all connections."""
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()  # again: Python 3.11's wait_for, with which the store's client sends, can swallow one
            await asyncio.wait(running, timeout=0.1)
        nodes, self._nodes = self._nodes, {}
        await asyncio.gather(*(node.disconnect() for node in nodes.values()))
        await self._directory.close()

    # --- signaling asks ----------------------------------------------------------------------------------------------

    def all(self) -> list[Node]:
        """See `Nodes.all`."""
        return list(self._nodes.values())

    async def holding(self, session: str) -> Node:
        """See `Nodes.holding`."""
        name = node_of(session)
        if name not in self._nodes and time.monotonic() - self._looked_at > _SOONEST_S:
            await self._look()  # it may have come a moment ago
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"no session {session!r}", code="session-not-found") from None

    async def choose(self, room: str) -> Node:
        """See `Nodes.choose`. A node that hosts the room is returned even if it is full: it is for it to refuse."""
        staying = {name: node for name, node in self._nodes.items() if not node.record.draining}
        if not staying:
            raise Overloaded("no relay is there to take the session", self._retry_after)
        try:
            chosen = await self._where(room, staying)
        except StoreUnavailable:
            chosen = self._places.get(room, "")
        if chosen not in staying:
            chosen = self._by_hash(room, staying)
        self._remember(room, chosen)
        return staying[chosen]

    # --- placement ---------------------------------------------------------------------------------------------------

    async def _where(self, room: str, staying: Mapping[str, RemoteNode]) -> str:
        """Return the node of a room that is published, or was placed; otherwise place it. Raises StoreUnavailable."""
        try:
            document = await self._store.read(room)
        except NotFound:  # to be made, or the request is refused a little later
            document = {}
        publishing = publishing_nodes(document, staying)
        if publishing:
            return publishing
        wanted = self._by_hash(room, staying)
        if not document:
            return wanted
        placed = await self._directory.place(room, wanted)
        node = staying.get(placed)
        if (
            node is None or not node.breaker.is_closed
        ):  # nobody publishes there: the room can go where it will be served
            placed = await self._directory.place(room, wanted, instead_of=placed)
        return placed

    def _by_hash(self, room: str, staying: Mapping[str, RemoteNode]) -> str:
        """Choose among those that are not full and answer; among the rest when there are none."""
        best = [name for name, node in staying.items() if node.breaker.is_closed and not node.record.full]
        answering = [name for name, node in staying.items() if node.breaker.is_closed]
        return rendezvous(room, best or answering or staying)

    def _remember(self, room: str, node: str) -> None:
        self._places[room] = node
        self._places.move_to_end(room)
        if len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)

    @property
    def _retry_after(self) -> int:
        return max(1, round(self._settings.cluster.heartbeat_s))

    # --- the list ----------------------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._settings.cluster.heartbeat_s / 2)
            await self._look()

    async def _look(self) -> None:
        """Bring the cache up to date; with the store gone it stays as it is."""
        async with self._looking:
            self._looked_at = time.monotonic()
            try:
                records = {record.id: record for record in await self._directory.nodes()}
            except StoreUnavailable as error:
                log.warning("the directory of nodes cannot be read", reason=str(error))
                return
            for record in records.values():
                await self._take(record)
            gone = [node for name, node in self._nodes.items() if name not in records]
            await asyncio.gather(*(self._drop_if_dead(node) for node in gone))

    async def _take(self, record: NodeRecord) -> None:
        known = self._nodes.get(record.id)
        if known is not None and _address(known.record) == _address(record):
            known.record = record
            return
        tokens = Tokens(self._settings.auth.keys, self._caller, record.id)
        try:
            self._nodes[record.id] = RemoteNode(record, tokens, self._trust, self._deadlines)
        except NodeUnreachable as error:
            log.error("a node in the directory cannot be called", node=record.id, reason=str(error))
            return
        log.info("a node is there", node=record.id, control_url=record.control_url)
        if known is not None:
            await known.disconnect()

    async def _drop_if_dead(self, node: RemoteNode) -> None:
        """Forget a node whose record is gone, unless it answers: a store that was emptied gets its record again."""
        try:
            await node.status()
        except CostreamError:
            if self._nodes.get(node.node_id) is node:
                del self._nodes[node.node_id]
            await node.disconnect()
            log.warning("a node is gone", node=node.node_id)

    async def _keep_probing(self) -> None:
        """Ask those that did not answer, so that they are used again once they do."""
        while True:
            await asyncio.sleep(PROBE_S)
            failing = [node for node in self._nodes.values() if not node.breaker.is_closed]
            await asyncio.gather(*(node.status() for node in failing), return_exceptions=True)


def publishing_nodes(document: Mapping[str, Any], among: Mapping[str, object]) -> str:
    """Return the node with most live publications of a room, or else with most paused ones; empty for none."""
    for state in ("live", "paused"):
        found_in = document.get("publications", {}).values()
        nodes = Counter(str(each["node"]) for each in found_in if each["state"] == state)
        found = sorted((-count, name) for name, count in nodes.items() if name in among)
        if found:
            return found[0][1]
    return ""


def rendezvous(room: str, nodes: Iterable[str]) -> str:
    """Return the node with the highest hash for this room (Thaler and Ravishankar, 1998): a node that comes or goes
    moves only its own rooms."""
    return max(nodes, key=lambda name: hashlib.blake2b(f"{room}\0{name}".encode(), digest_size=8).digest())


def _address(record: NodeRecord) -> tuple[str, str]:
    return record.control_url, record.certificate

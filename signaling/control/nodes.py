"""The relays that a signaling service which runs apart can reach, as the directory lists them.

The directory is followed into a cache: a request never waits for it, and with the store gone the last list holds. Where
a room goes is `relay.cluster.placement`'s: to the nodes that serve it while they have room to spare, then to any that
can be linked to them. Without links a room lives on one node: where it is published, else where it was placed before.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import structlog

from relay.cluster.known import NodeCache
from relay.cluster.placement import rank, weight
from relay.errors import CostreamError, NodeUnreachable, NotFound, Overloaded, StoreUnavailable
from relay.ports import NodeDirectory, NodeRecord, RoomStore
from relay.settings import SignalingSettings
from signaling.control.client import Deadlines, RemoteNode, Tokens
from signaling.control.trust import Trust
from signaling.nodes import Node, node_of

PROBE_S = 0.5
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
        self._served: OrderedDict[str, list[str]] = OrderedDict()
        self._looked_at = float("-inf")
        cluster = settings.cluster
        self._known = NodeCache(
            directory, look_s=cluster.heartbeat_s / 2, grace_s=cluster.expiry_s, on_change=self._bring_up_to_date
        )
        self._probing: asyncio.Task[None] | None = None
        self._probe_now = asyncio.Event()

    async def start(self) -> None:
        """Read the directory once and keep following it. A store that is not there yet is waited for."""
        await self._known.start()
        self._probing = asyncio.create_task(self._keep_probing())

    async def close(self) -> None:
        """End all connections."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._known.close()
        nodes, self._nodes = self._nodes, {}
        await asyncio.gather(*(node.disconnect() for node in nodes.values()))

    # --- signaling asks ----------------------------------------------------------------------------------------------

    def all(self) -> list[Node]:
        """See `Nodes.all`."""
        return list(self._nodes.values())

    async def holding(self, session: str) -> Node:
        """See `Nodes.holding`."""
        name = node_of(session)
        now = asyncio.get_running_loop().time()
        if name not in self._nodes and now - self._looked_at > _SOONEST_S:
            self._looked_at = now
            await self._known.look()  # it may have come a moment ago
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"no session {session!r}", code="session-not-found") from None

    def elsewhere(self, room: str, region: str = "") -> str:
        """See `Nodes.elsewhere`: there is no node in this process, so `choose` says all."""
        return ""

    def bases(self) -> list[str]:
        """See `Nodes.bases`: relays that clients reach serve all of the API."""
        records = sorted((node.record for node in self._nodes.values()), key=lambda record: record.id)
        return [record.public_url for record in records if record.public_url and not record.draining]

    async def choose(self, room: str, region: str = "", without: Collection[str] = ()) -> Node:
        """See `Nodes.choose`. Where no link leads elsewhere, the room's node is returned even if it is full: it is for
        it to refuse, since who returns to a seat is let in."""
        staying = {name: node for name, node in self._nodes.items() if not node.record.draining}
        if not staying:
            raise Overloaded("no relay is there to take the session", self._retry_after)
        try:
            chosen = await self._where(room, region or self._settings.node.region, staying, without)
        except StoreUnavailable:
            chosen = self._choice(room, region, staying, self._served.get(room, []), without)
        if not chosen:
            raise Overloaded("no other relay can take the session", self._retry_after)
        self._remember(room, chosen)
        return staying[chosen]

    # --- placement ---------------------------------------------------------------------------------------------------

    async def _where(self, room: str, region: str, staying: Mapping[str, RemoteNode], without: Collection[str]) -> str:
        """Return the node for a newcomer to a room; empty for none. Raises StoreUnavailable."""
        try:
            document = await self._store.read(room)
        except NotFound:  # to be made, or the request is refused a little later
            document = {}
        holders = [name for name in publishing_nodes(document, staying) if staying[name].breaker.is_closed]
        if holders:
            return self._choice(room, region, staying, holders, without)
        wanted = self._choice(room, region, staying, (), without)
        if not document or not wanted:
            return wanted
        placed = await self._directory.place(room, wanted)
        node = staying.get(placed)
        if node is None or not node.breaker.is_closed or placed in without:
            # Nobody publishes there: the room can go where it will be served.
            placed = await self._directory.place(room, wanted, instead_of=placed)
        return placed if placed in staying else wanted

    def _choice(
        self,
        room: str,
        region: str,
        staying: Mapping[str, RemoteNode],
        holders: Collection[str],
        without: Collection[str],
    ) -> str:
        """Choose among those that are linked to the room's `holders`; among these when there are no links."""
        records = [node.record for node in staying.values()]
        down = {name for name, node in staying.items() if not node.breaker.is_closed} | set(without)
        held = [record for record in records if record.id in holders]
        if held and not any(record.link for record in held):
            left = [name for name in holders if name in staying and name not in without]
            return next((name for name in left if name not in down), next(iter(left), ""))
        if held:
            records = held + [record for record in records if record.link and record not in held]
        present = {*holders, *self._served.get(room, ())}
        ranked = [record.id for record in rank(room, records, present=present, region=region, down=down)]
        # All that are left are full or do not answer: the one that refuses says when to come back.
        fallback = sorted(
            (record.id for record in records if record.id not in without),
            key=lambda name: (name not in holders, name in down, weight(room, name)),
        )
        return next(iter(ranked + fallback), "")

    def _remember(self, room: str, node: str) -> None:
        """Keep in mind which nodes serve a room: those that pull it already take the next viewer at no cost."""
        others = [name for name in self._served.pop(room, []) if name != node and name in self._nodes]
        self._served[room] = [node, *others]
        if len(self._served) > _REMEMBERED:
            self._served.popitem(last=False)

    @property
    def _retry_after(self) -> int:
        return max(1, round(self._settings.cluster.heartbeat_s))

    # --- the list ----------------------------------------------------------------------------------------------------

    async def _bring_up_to_date(self) -> None:
        for record in self._known.records():
            await self._take(record)
        self._probe_now.set()

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
        """Ask those that did not answer, so that they are used again once they do, and those no longer listed."""
        while True:
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._probe_now.wait()
            except TimeoutError:
                pass
            self._probe_now.clear()
            gone = [node for name, node in self._nodes.items() if self._known.get(name) is None]
            failing = [node for node in self._nodes.values() if not node.breaker.is_closed and node not in gone]
            await asyncio.gather(
                *(self._drop_if_dead(node) for node in gone),
                *(node.status() for node in failing),
                return_exceptions=True,
            )


def publishing_nodes(document: Mapping[str, Any], among: Iterable[str]) -> list[str]:
    """Return the nodes with live publications of a room, or else with paused ones, those with most first."""
    known = set(among)
    for state in ("live", "paused"):
        found_in = document.get("publications", {}).values()
        nodes = Counter(str(each["node"]) for each in found_in if each["state"] == state)
        found = sorted((-count, name) for name, count in nodes.items() if name in known)
        if found:
            return [name for _, name in found]
    return []


def _address(record: NodeRecord) -> tuple[str, str]:
    return record.control_url, record.certificate

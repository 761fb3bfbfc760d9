"""The other relays of a cluster as one relay calls them: for what only the node that has it can do."""

from __future__ import annotations

import asyncio

import structlog

from relay.errors import NodeUnreachable
from relay.ports import KnownNodes, NodeRecord
from relay.settings import SignalingSettings
from signaling.control.client import RemoteNode, Tokens
from signaling.control.trust import Trust
from signaling.nodes import Node

log = structlog.get_logger(__name__)


class OtherNodes:
    """See `signaling.egress.control.Others`. Connections are made when first used; `close` ends them."""

    def __init__(self, settings: SignalingSettings, node_id: str, known: KnownNodes) -> None:
        """Raises SettingsError when the CA's file cannot be used."""
        self._settings, self._node_id, self._known = settings, node_id, known
        self._trust = Trust(settings.cluster)
        self._nodes: dict[str, RemoteNode] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def all(self) -> list[Node]:
        """Those in the directory, but for this process's own."""
        records = {record.id: record for record in self._known.records() if record.id != self._node_id}
        for gone in self._nodes.keys() - records.keys():
            self._end(self._nodes.pop(gone))
        found = [self._node(record) for record in records.values()]
        return [node for node in found if node is not None]

    async def close(self) -> None:
        """End all connections."""
        nodes, self._nodes = list(self._nodes.values()), {}
        await asyncio.gather(*(node.disconnect() for node in nodes), *self._ending)

    def _node(self, record: NodeRecord) -> Node | None:
        node = self._nodes.get(record.id)
        if node is not None:
            if (node.record.control_url, node.record.certificate) == (record.control_url, record.certificate):
                node.record = record
                return node
            self._end(self._nodes.pop(record.id))
        try:
            tokens = Tokens(self._settings.auth.keys, self._node_id, record.id)
            node = self._nodes[record.id] = RemoteNode(record, tokens, self._trust)
        except NodeUnreachable as error:
            log.error("a node in the directory cannot be called", node=record.id, reason=str(error))
        return node

    def _end(self, node: RemoteNode) -> None:
        task = asyncio.ensure_future(node.disconnect())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

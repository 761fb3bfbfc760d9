"""Egress of rooms as the API sees it: asks the node that has the source, or the egress, in whatever process it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from relay.egress.events import EgressRequest
from relay.egress.playback import PlaylistReply
from relay.errors import NodeUnreachable, NotFound
from relay.stage.document import PROGRAM, RoomState
from signaling.nodes import Node, Nodes, node_of

T = TypeVar("T")


class Others(Protocol):
    """The nodes of other processes, for a relay, which has one in its own."""

    def all(self) -> list[Node]:
        """Those that are known now."""
        ...


class Player(NamedTuple):
    """Where an HLS stream plays: `base` is the address of the node that serves it, empty when this process does."""

    egress: str
    base: str


class RoomEgress:
    """All egress that this process reaches. An id begins with its node's name, as a session's does.

    Errors: those of `relay.errors`; NotFound with the code `egress-not-found` also for an id of a node that is gone.
    """

    def __init__(self, nodes: Nodes, others: Others | None = None) -> None:
        self._nodes, self._others = nodes, others

    async def start(self, request: EgressRequest, state: RoomState) -> dict[str, Any]:
        """Begin an egress on the node that its source is sent to. See `EgressManager.start`."""
        node = await self._node_of(request, state)
        return await node.egress.start_egress(request)

    async def stop(self, egress: str) -> dict[str, Any]:
        """See `EgressManager.stop`."""
        return await self._holding(egress).egress.stop_egress(egress)

    async def read(self, egress: str) -> dict[str, Any]:
        """See `EgressManager.get`."""
        return await self._holding(egress).egress.read_egress(egress)

    async def of_room(self, room: str) -> list[dict[str, Any]]:
        """That of all nodes, oldest first. A node that does not answer is left out."""
        answers = await self._ask(lambda node: node.egress.list_egress(room), self._everybody())
        found: list[dict[str, Any]] = [each for _, facts in answers for each in facts]
        return sorted(found, key=lambda each: (each["since"], each["id"]))

    async def find_hls(self, room: str, source: str) -> Player:
        """The living HLS of a source. Raises NotFound."""
        own = self._nodes.all()
        # Thousands ask: the others are only asked for what is not here.
        for nodes in (own, [node for node in self._everybody() if node not in own]):
            found = await self._ask(lambda node: node.egress.find_hls(room, source), nodes)
            if found:
                node, egress = found[0]
                return Player(egress, node.public_url)
        raise NotFound(f"room {room!r} has no HLS", code="egress-not-found")

    async def playlist(self, egress: str, sequence: int | None, part: int | None) -> PlaylistReply:
        """See `HlsStream.playlist`."""
        return await self._holding(egress).egress.playlist(egress, sequence, part)

    async def file(self, egress: str, name: str) -> Path | bytes:
        """See `HlsStream.file`; the bytes of a file that another process has."""
        return await self._holding(egress).egress.file(egress, name)

    def _everybody(self) -> list[Node]:
        own = self._nodes.all()
        names = {node.node_id for node in own}
        others = [] if self._others is None else self._others.all()
        return own + [node for node in others if node.node_id not in names]

    def _holding(self, egress: str) -> Node:
        name = node_of(egress)
        for node in self._everybody():
            if node.node_id == name:
                return node
        raise NotFound(f"no egress {egress!r}", code="egress-not-found")

    async def _node_of(self, request: EgressRequest, state: RoomState) -> Node:
        """The node to which a source is sent: the room's document says so; else one that serves the room may know."""
        published = [each for each in state.publications.values() if request.source in (each.id, each.identity)]
        published.sort(key=lambda each: (each.state != "live", each.kind != "video"))
        for publication in published:
            for node in self._everybody():
                if node.node_id == publication.node:
                    return node
        if request.source == PROGRAM and state.program is not None:
            for node in self._everybody():  # it was begun just now, and is not published yet
                if node.node_id == state.program.node:
                    return node
        return await self._nodes.choose(request.room)

    async def _ask(self, ask: Callable[[Node], Awaitable[T]], nodes: list[Node]) -> list[tuple[Node, T]]:
        async def one(node: Node) -> list[tuple[Node, T]]:
            try:
                return [(node, await ask(node))]
            except (NodeUnreachable, NotFound):
                return []

        answers = await asyncio.gather(*map(one, nodes))
        return [each for answer in answers for each in answer]

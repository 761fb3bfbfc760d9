"""Nodes as signaling sees them: which one takes a new session, and which one holds a given session.

A session id is `<node id>~<random>`, so that any signaling process finds the node without a look-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Protocol, TypeVar

from relay.errors import NodeUnreachable, NotFound, Overloaded
from relay.ports import Answer, IceFragment, NodeControl, Offer, RoomEvent, SlotChange

SEPARATOR = "~"

T = TypeVar("T")


class Node(Protocol):
    """A node, in this process or elsewhere.

    Errors: those of `relay.errors`; from elsewhere also NodeUnreachable, from every method.
    """

    @property
    def node_id(self) -> str: ...

    @property
    def public_url(self) -> str:
        """Where clients reach it themselves; empty when they do not."""
        ...

    async def publish(self, offer: Offer) -> Answer:
        """See `NodeControl.publish`."""
        ...

    async def watch(self, offer: Offer) -> Answer:
        """See `NodeControl.watch`."""
        ...

    async def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        """See `NodeControl.trickle`."""
        ...

    async def close(self, session: str) -> None:
        """See `NodeControl.close`."""
        ...

    async def session(self, session: str) -> dict[str, Any]:
        """See `NodeControl.session`."""
        ...

    async def sessions(self, room: str | None = None) -> list[dict[str, Any]]:
        """See `NodeControl.sessions`."""
        ...

    async def change_slot(self, session: str, index: int, change: SlotChange) -> dict[str, Any]:
        """See `NodeControl.change_slot`."""
        ...

    async def status(self) -> dict[str, Any]:
        """See `NodeControl.status`."""
        ...

    async def links(self) -> list[dict[str, Any]]:
        """See `NodeControl.links`."""
        ...

    async def change_link(self, link: str, action: str) -> dict[str, Any]:
        """See `NodeControl.change_link`."""
        ...

    async def admit(self, room: str, identity: str, publishing: bool) -> None:
        """Raise Overloaded when a new session of this kind would be refused now.

        Cheap: it is asked before the offer is read. A publisher who returns to its seat is let in.
        """
        ...

    async def knows(self, room: str) -> dict[str, Any] | None:
        """Return the newest document of a room that the node hosts; None when it hosts no session of the room."""
        ...

    async def active_speaker(self, room: str) -> str | None:
        """Return who speaks in a room, as far as this node hears it; None for nobody."""
        ...

    async def session_events(self, session: str) -> AsyncIterator[RoomEvent]:
        """Follow the events of one session (`slot.bound`) until it ends. Raises NotFound.

        Begins when this returns; a follower that lags loses the oldest events.
        """
        ...


class Nodes(Protocol):
    """The nodes that this signaling process can reach."""

    async def choose(self, room: str, region: str = "", without: Collection[str] = ()) -> Node:
        """Return the node for a new session of a room by somebody in `region`; none of those `without`, which refused.

        Raises Overloaded when there is none.
        """
        ...

    def elsewhere(self, room: str, region: str = "") -> str:
        """Return the public URL of a node in another process that may take the session; empty when there is none."""
        ...

    def bases(self) -> list[str]:
        """Return the base URLs, other than this process's own, at which clients reach this API: see `/v1/bases`."""
        ...

    async def holding(self, session: str) -> Node:
        """Return the node that holds a session. Raises NotFound."""
        ...

    def all(self) -> list[Node]:
        """Return every node."""
        ...


class HostedNode(NodeControl, Protocol):
    """What `relay.node.Node` is: answers at once, being in this process. The methods mean what `Node`'s do."""

    def admit(self, room: str, identity: str, publishing: bool) -> None: ...
    def knows(self, room: str) -> dict[str, Any] | None: ...
    def active_speaker(self, room: str) -> str | None: ...
    def session_events(self, session: str) -> AsyncIterator[RoomEvent]: ...


class LocalNode:
    """A node in this process, as `Node`."""

    def __init__(self, node: HostedNode) -> None:
        self._node = node

    @property
    def node_id(self) -> str:
        return self._node.node_id

    @property
    def public_url(self) -> str:
        return ""

    async def publish(self, offer: Offer) -> Answer:
        return await self._node.publish(offer)

    async def watch(self, offer: Offer) -> Answer:
        return await self._node.watch(offer)

    async def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        return await self._node.trickle(session, fragment, etag)

    async def close(self, session: str) -> None:
        await self._node.close(session)

    async def session(self, session: str) -> dict[str, Any]:
        return self._node.session(session)

    async def sessions(self, room: str | None = None) -> list[dict[str, Any]]:
        return self._node.sessions(room)

    async def change_slot(self, session: str, index: int, change: SlotChange) -> dict[str, Any]:
        return await self._node.change_slot(session, index, change)

    async def status(self) -> dict[str, Any]:
        return self._node.status()

    async def links(self) -> list[dict[str, Any]]:
        return self._node.links()

    async def change_link(self, link: str, action: str) -> dict[str, Any]:
        return await self._node.change_link(link, action)

    async def admit(self, room: str, identity: str, publishing: bool) -> None:
        self._node.admit(room, identity, publishing)

    async def knows(self, room: str) -> dict[str, Any] | None:
        return self._node.knows(room)

    async def active_speaker(self, room: str) -> str | None:
        return self._node.active_speaker(room)

    async def session_events(self, session: str) -> AsyncIterator[RoomEvent]:
        self._node.session(session)
        return self._node.session_events(session)


class LocalNodes:
    """The one node in this process. `others` ranks the public URLs of those elsewhere, given room and region."""

    def __init__(self, node: HostedNode, others: Callable[[str, str], list[str]] | None = None) -> None:
        self._node = LocalNode(node)
        self._others = others

    async def choose(self, room: str, region: str = "", without: Collection[str] = ()) -> Node:
        if self._node.node_id in without:
            raise Overloaded("this node is the only one here")
        return self._node

    def elsewhere(self, room: str, region: str = "") -> str:
        found = [] if self._others is None else self._others(room, region)
        return found[0] if found else ""

    def bases(self) -> list[str]:
        return [] if self._others is None else self._others("", "")

    async def holding(self, session: str) -> Node:
        if node_of(session) != self._node.node_id:
            raise NotFound(f"no session {session!r}")
        return self._node

    def all(self) -> list[Node]:
        return [self._node]


def node_of(session: str) -> str:
    """Return the node id in a session id; empty when it has none."""
    return session.rpartition(SEPARATOR)[0]


async def ask_all(nodes: Nodes, ask: Callable[[Node], Awaitable[T]]) -> list[T]:
    """Ask every node at once and return the answers; a node that does not answer is left out."""
    answers = await asyncio.gather(*(_ask(ask, node) for node in nodes.all()))
    return [answer for each in answers for answer in each]


async def _ask(ask: Callable[[Node], Awaitable[T]], node: Node) -> list[T]:
    try:
        return [await ask(node)]
    except NodeUnreachable:
        return []

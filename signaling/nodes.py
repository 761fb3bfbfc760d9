"""Nodes as signaling sees them: which one takes a new session, and which one holds a given session.

A session id is `<node id>~<random>`, so that any signaling process finds the node without a look-up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from relay.errors import NotFound
from relay.ports import NodeControl, RoomEvent

SEPARATOR = "~"


class Node(NodeControl, Protocol):
    """A node, with what joining and event streams need beside `NodeControl`."""

    def admit(self, room: str, identity: str, publishing: bool) -> None:
        """Raise Overloaded when a new session of this kind would be refused now.

        Cheap, no I/O: it is asked before the offer is read. A publisher who returns to its seat is let in.
        """
        ...

    def knows(self, room: str) -> dict[str, Any] | None:
        """Return the newest document of a room that the node hosts; None when it hosts no session of the room."""
        ...

    def active_speaker(self, room: str) -> str | None:
        """Return who speaks in a room, as far as this node hears it; None for nobody."""
        ...

    def session_events(self, session: str) -> AsyncIterator[RoomEvent]:
        """Follow the events of one session (`slot.bound`) until it ends. Raises NotFound.

        Bounded: a follower that lags loses the oldest events.
        """
        ...


class Nodes(Protocol):
    """The nodes that this signaling process can reach."""

    def choose(self, room: str) -> Node:
        """Return the node for a new session of a room. Raises Overloaded when there is none."""
        ...

    def holding(self, session: str) -> Node:
        """Return the node that holds a session. Raises NotFound."""
        ...

    def all(self) -> list[Node]:
        """Return every node."""
        ...


class LocalNodes:
    """The one node in this process."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def choose(self, room: str) -> Node:
        return self._node

    def holding(self, session: str) -> Node:
        if node_of(session) != self._node.node_id:
            raise NotFound(f"no session {session!r}")
        return self._node

    def all(self) -> list[Node]:
        return [self._node]


def node_of(session: str) -> str:
    """Return the node id in a session id; empty when it has none."""
    return session.rpartition(SEPARATOR)[0]

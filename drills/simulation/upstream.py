"""What a node takes from others, as `relay.node.upstream` does, without packets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.link import messages

if TYPE_CHECKING:
    from drills.simulation.node import SimNode

_NOTHING: Mapping[str, messages.Publication] = {}


class SimUpstream:
    """The `Upstream` of one node: links that are there whenever both nodes reach each other."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self.rooms: dict[str, frozenset[str]] = {}
        self.wishes: dict[tuple[str, str], int] = {}
        """(origin, publication) → the epoch under which it is taken."""

    def follow(self, room: str, nodes: frozenset[str]) -> None:
        """See `Upstream`."""
        if self.rooms.get(room) != nodes:
            self.rooms[room] = nodes
            self._node.wake(room)

    def subscribe(self, node: str, publication: str, epoch: int, layers: tuple[int, ...]) -> None:
        """See `Upstream`."""
        if not layers:
            self.wishes.pop((node, publication), None)
            return
        self.wishes[node, publication] = epoch
        self._node.world.subscribed(self._node, self._node.room_of(publication), node, publication, epoch)

    def request_keyframe(self, node: str, publication: str, layer: int) -> None:
        """See `Upstream`."""

    def catalog(self, node: str) -> Mapping[str, messages.Publication]:
        """See `Upstream`."""
        peer = self._node.world.peer(node)
        if peer is None or not self._node.world.network.reaches(self._node.name, node):
            return _NOTHING
        return peer.offers()

    def origins(self) -> list[str]:
        """The nodes that something is taken from, by name."""
        return sorted(set[str]().union(*self.rooms.values()))

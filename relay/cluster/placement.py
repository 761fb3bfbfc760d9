"""Which nodes should take a newcomer to a room, best first. Pure: the same facts give the same answer everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from relay.ports import NodeRecord

SPARE_LOAD = 0.85
"""Up to this load a node that serves the room already takes more of it; the rest is for those who are inside."""
_STEPS = 20
"""Loads are compared in steps of 5 %: what differs less is equal, and no newcomer follows a flicker."""


def rank(
    room: str,
    nodes: Iterable[NodeRecord],
    *,
    present: Collection[str] = (),
    region: str = "",
    down: Collection[str] = (),
) -> list[NodeRecord]:
    """Return the nodes that may take a newcomer to `room`, in the order in which to ask them.

    First those that serve the room already (`present`) and have room to spare, then those in the newcomer's region,
    then the less loaded. Among equals the room's name decides (rendezvous hashing), so that host and viewers meet
    without asking anybody; and of the first two by name the less loaded is taken: where all went to the least loaded, a
    burst between two heartbeats would overrun it. Left out: draining, full, unhealthy ones, and those that are `down`.
    """
    usable = [node for node in nodes if not (node.draining or node.full or not node.healthy or node.id in down)]
    serving = [node for node in usable if node.id in present and node.load <= SPARE_LOAD]
    others = [node for node in usable if node not in serving]
    ranked: list[NodeRecord] = []
    for group in (serving, others):
        near = [node for node in group if region and node.region == region]
        far = [node for node in group if node not in near]
        ranked += _balanced(room, near) + _balanced(room, far)
    return ranked


def _balanced(room: str, nodes: list[NodeRecord]) -> list[NodeRecord]:
    by_name = sorted(nodes, key=lambda node: weight(room, node.id), reverse=True)
    pair = sorted(by_name[:2], key=_step)  # stable: equals stay as their names have it
    return pair + sorted(by_name[2:], key=_step)


def weight(room: str, node: str) -> bytes:
    """Return the node's hash for this room (Thaler and Ravishankar, 1998); the highest wins. A node that comes or goes
    moves only its own rooms."""
    return hashlib.blake2b(f"{room}\0{node}".encode(), digest_size=8).digest()


def rendezvous(room: str, nodes: Iterable[str]) -> str:
    """Return the node with the highest hash for this room."""
    return max(nodes, key=lambda name: weight(room, name))


def load_of(shares: Iterable[tuple[float, float]]) -> float:
    """Return a node's load from what is used and its limit, each: the greatest share, 0 to 1, in steps of 5 %.

    Rounded down, so that 1 means a limit is reached; coarse, so that a record changes only when it matters.
    """
    greatest = max((used / limit for used, limit in shares if limit > 0), default=0.0)
    return int(min(max(greatest, 0.0), 1.0) * _STEPS) / _STEPS


def _step(node: NodeRecord) -> int:
    return round(node.load * _STEPS)

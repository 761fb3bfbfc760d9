"""Who should leave this node because it cannot bring what they watch, while another node can.

A partition may cut a node off from the origin of a room and not from the room's viewers: they see a picture that
stands still, and whoever they ask says that all is well. The node itself tells them to go, but only when it knows of a
place that is better, so all of this has to hold for `after_s`: the store answers; the origin stands in the directory;
this node hears nothing of it; and a node that can take somebody is the origin, or says that it hears it. A node that is
cut off from the store as well knows nothing of others, and keeps its viewers.

Each viewer is told at a time of its own within `spread_s`, and again after `REPEAT_S` if it is still here. When all
have gone, the room stays stranded for `KEPT_S`: without viewers no link is tried, and whoever came would only wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from relay.ports import NodeRecord

REPEAT_S = 15.0
KEPT_S = 30.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A room as it is here: the origins of its publications, other than this node, and the sessions that watch."""

    origins: frozenset[str]
    viewers: tuple[str, ...]


@dataclass(slots=True)
class _Cut:
    since: float
    until: float = 0.0
    """When it is over if nobody watches; 0 until somebody was to be told."""
    due: dict[str, float] = field(default_factory=dict)
    """When each viewer is told next."""


class Stranded:
    """No I/O; time in seconds of a clock that never goes back."""

    def __init__(self, node: str, after_s: float, spread_s: float, dice: Random) -> None:
        self._node = node
        self._after_s = after_s
        self._spread_s = spread_s
        self._dice = dice
        self._cut: dict[str, _Cut] = {}

    def __contains__(self, room: str) -> bool:
        """Whether a room is better watched elsewhere now: nobody else should come for it."""
        found = self._cut.get(room)
        return found is not None and found.until > 0

    def tick(
        self, rooms: Mapping[str, Watched], heard: frozenset[str], records: Iterable[NodeRecord] | None, now: float
    ) -> list[str]:
        """Return the sessions to tell now. `heard`: the nodes of which a link brings something; `records`: the
        directory, None while the store does not answer. `rooms` are those that are watched here."""
        nodes = {} if records is None else {record.id: record for record in records}
        told: list[str] = []
        for room, cut in list(self._cut.items()):
            if room not in rooms and now >= cut.until:
                del self._cut[room]
        for room, watched in rooms.items():
            if not self._is_cut(watched.origins, heard, nodes):
                self._cut.pop(room, None)
                continue
            cut = self._cut.setdefault(room, _Cut(now))
            if now - cut.since >= self._after_s:
                cut.until = now + KEPT_S
                told += self._due(cut, watched.viewers, now)
        return told

    def _is_cut(self, origins: frozenset[str], heard: frozenset[str], nodes: Mapping[str, NodeRecord]) -> bool:
        if not any(origin in nodes for origin in origins - heard):
            return False
        wanted = {origin for origin in origins if origin in nodes}
        return any(
            wanted <= {name, *record.hears}
            for name, record in nodes.items()
            if name != self._node and record.healthy and not record.draining and not record.full
        )

    def _due(self, cut: _Cut, viewers: tuple[str, ...], now: float) -> list[str]:
        cut.due = {
            viewer: cut.due[viewer] if viewer in cut.due else now + self._dice.random() * self._spread_s
            for viewer in viewers
        }
        told = [viewer for viewer, at in cut.due.items() if at <= now]
        for viewer in told:
            cut.due[viewer] = now + REPEAT_S + self._dice.random() * self._spread_s
        return told

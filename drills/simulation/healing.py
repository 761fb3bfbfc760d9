"""Whether rooms are whole again after faults, and how long that took."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from drills.simulation.trace import Violation
from relay.stage.document import RoomState

if TYPE_CHECKING:
    from drills.simulation.world import World

LOOK_S = 0.5


class Healing:
    """A room is watched from when the last fault that touches it ended until it is whole, or for too long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = asyncio.get_running_loop()
        self._active: Counter[str] = Counter()
        self._turn: Counter[str] = Counter()
        self._stored: dict[str, tuple[str, RoomState]] = {}
        self.times: list[float] = []

    def touched(self, rooms: Iterable[str], on: bool) -> None:
        """A fault that touches these rooms began, or ended."""
        for room in rooms:
            self._active[room] = max(0, self._active[room] + (1 if on else -1))
            self._turn[room] += 1
            if not self._active[room]:
                self._loop.call_later(LOOK_S, self._look, room, self._turn[room], self._loop.time())

    def _look(self, room: str, turn: int, since: float) -> None:
        if turn != self._turn[room]:
            return  # touched again
        if room not in self._world.store.rooms and not self._world.hosts_of(room):
            self._world.make_room(room)  # the store and every node that knew it lost it: only its application is left
        wrong = self.wrong(room)
        now = self._loop.time()
        if wrong is None:
            self.times.append(now - since)
            self._world.tell(f"{room} is whole after {now - since:.3f} s")
        elif now - since > self._world.plan.heal_s:
            self._world.fail(Violation(wrong[0], now, f"{room}, {now - since:.1f} s after the last fault: {wrong[1]}"))
        else:
            self._loop.call_later(LOOK_S, self._look, room, turn, since)

    def wrong(self, room: str) -> tuple[str, str] | None:
        """The rule that does not hold and why; None for a room that is whole."""
        world = self._world
        stored = world.store.rooms.get(room)
        if stored is None:
            return "heals", "the store has no document"
        document = self._document(room, stored.body)
        for node in world.hosts_of(room):
            hosted = node.rooms.get(room)
            if hosted is not None and replace(hosted.state, sync_id="0") != document:
                return (
                    "converges",
                    f"{node.name} has another document than the store: {_differ(hosted.state, document)}",
                )
        return self._hosts_are_wrong(room, document)

    def _hosts_are_wrong(self, room: str, document: RoomState) -> tuple[str, str] | None:
        world = self._world
        for client in world.people.hosts(room):
            node = world.nodes.get(client.node)
            if client.made is None or node is None:
                return "heals", f"{client.identity} is on no node"
            mine = [each for each in document.publications.values() if each.identity == client.identity]
            if len(mine) != 1:
                return "heals", f"{client.identity} has {len(mine)} publications"
            each = mine[0]
            if (each.node, each.session, each.state) != (node.name, client.made.info.id, "live"):
                return "heals", f"{client.identity} is on {node.name} as {client.made.info.id}, the document has {each}"
            epoch = node.keeper.epoch(room, each.id, node.mono())
            if epoch != each.epoch:
                return "heals", f"{node.name} holds {each.id} under {epoch}, the document has {each.epoch}"
            for viewer in world.people.viewers(room):
                watching = world.nodes.get(viewer.node)
                if viewer.made is None or watching is None:
                    return "heals", f"{viewer.identity} is on no node"
                if watching is not node and watching.upstream.wishes.get((node.name, each.id)) != each.epoch:
                    wishes = {key: epoch for key, epoch in watching.upstream.wishes.items() if key[1] == each.id}
                    return "heals", f"{watching.name} does not take {each.id} from {node.name} under {epoch}: {wishes}"
        return None

    def _document(self, room: str, body: str) -> RoomState:
        known = self._stored.get(room)
        if known is None or known[0] is not body:
            known = self._stored[room] = body, replace(RoomState.from_json(json.loads(body)), sync_id="0")
        return known[1]


def _differ(one: RoomState, other: RoomState) -> str:
    """Name the fields that differ."""
    names = [name for name in RoomState.__dataclass_fields__ if name != "sync_id"]
    return "; ".join(f"{name}: {getattr(one, name)} / {getattr(other, name)}" for name in names
                     if getattr(one, name) != getattr(other, name))[:600]  # fmt: skip

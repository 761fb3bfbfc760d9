"""Rooms and PKs in a store whose every step somebody else decides: which process goes on, and which dies."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from relay.cluster.pk_desk import PkDesk
from relay.errors import Conflict, NotFound, RequestError
from relay.stage import pk as pks
from relay.stage import pk_room
from relay.stage.document import RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.pk import Pk
from relay.stage.room import create

ROOMS = ("red", "blue", "green")


class Turn:
    """Awaited wherever a real store would make its caller wait."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SteppedDocuments:
    """Documents under compare-and-set, a turn before the read and one before the write."""

    def __init__(self, missing: Callable[[str], Exception]) -> None:
        self.held: dict[str, tuple[dict[str, Any], int]] = {}
        self._missing = missing

    async def read(self, name: str) -> tuple[dict[str, Any], int]:
        await Turn()
        if name not in self.held:
            raise self._missing(name)
        return self.held[name]

    async def swap(self, name: str, version: int, document: dict[str, Any]) -> bool:
        await Turn()
        if self.held.get(name, ({}, 0))[1] != version:
            return False
        self.held[name] = (document, version + 1)
        return True


class SteppedPks:
    """See `relay.ports.PkStore`."""

    def __init__(self) -> None:
        self.documents = SteppedDocuments(lambda name: NotFound(name, code="pk-not-found"))

    async def create(self, pk: str, document: dict[str, Any], ttl_s: float) -> None:
        assert await self.documents.swap(pk, 0, document)

    async def read(self, pk: str) -> dict[str, Any]:
        return (await self.documents.read(pk))[0]

    async def change(self, pk: str, apply: Callable[[Any], Any], ttl_s: float) -> dict[str, Any]:
        while True:
            document, version = await self.documents.read(pk)
            changed: dict[str, Any] = apply(document)
            if changed is document or await self.documents.swap(pk, version, changed):
                return changed


class SteppedRooms:
    """What `PkDesk` uses of `relay.ports.RoomStore`. `told` is each room's stream."""

    def __init__(self) -> None:
        self.pks = SteppedPks()
        self.documents = SteppedDocuments(lambda name: NotFound(name, code="room-not-found"))
        self.told: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.lives = 0

    def make(self, room: str, now: float) -> None:
        state, _ = create(Actor("test", Role.SERVICE), room, now)
        self.lives += 1000  # versions of another life are never met again
        self.documents.held[room] = (state.to_json(), self.lives)
        self.told[room] = []

    def end(self, room: str) -> None:
        self.documents.held.pop(room, None)

    async def read(self, room: str) -> dict[str, Any]:
        return (await self.documents.read(room))[0]

    async def change(self, room: str, apply: Callable[[Any], Any]) -> tuple[dict[str, Any], list[Any]]:
        while True:
            document, version = await self.documents.read(room)
            changed, told = apply(document)
            if changed is document or await self.documents.swap(room, version, changed):
                self.told[room] += told
                return changed, []

    def state(self, room: str) -> RoomState | None:
        held = self.documents.held.get(room)
        return RoomState.from_json(held[0]) if held else None

    def records(self) -> list[Pk]:
        return [Pk.from_json(document) for document, _ in self.pks.documents.held.values()]


@dataclass
class World:
    """Three rooms, processes in the middle of something, and a clock that only the test moves."""

    now: float = 1_000_000.0
    rooms: SteppedRooms = field(default_factory=SteppedRooms)
    running: list[Coroutine[Any, Any, Any]] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.desk = PkDesk(self.rooms, lambda: self.now)  # type: ignore[arg-type]
        for room in ROOMS:
            self.rooms.make(room, self.now)

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        if not advance(work):
            self.running.append(work)

    def step(self, index: int) -> None:
        """Let one process go on to its next call to the store."""
        if self.running:
            work = self.running[index % len(self.running)]
            if advance(work):
                self.running.remove(work)

    def die(self, index: int) -> None:
        """A process dies between two of its calls."""
        if self.running:
            self.running.pop(index % len(self.running)).close()

    def finish(self, rng: random.Random) -> None:
        while self.running:
            self.step(rng.randrange(len(self.running)))

    # --- what processes do

    def invite(self, inviting: str, invited: str) -> None:
        self.made += 1
        if inviting != invited:
            self.begin(self.desk.invite(pks.invite(f"pk{self.made}", inviting, invited, "olga", self.now)))

    def on_any(self, room: str, pick: int, do: Callable[[Pk], Awaitable[Any]]) -> None:
        state = self.rooms.state(room)
        known = list(state.pk.known.values()) if state else []
        if known:
            self.begin(_run(do(known[pick % len(known)])))

    def accept(self, room: str, pick: int) -> None:
        self.on_any(room, pick, lambda pk: self.desk.accept(pk.id, room, "bella"))

    def end(self, room: str, pick: int) -> None:
        self.on_any(room, pick, lambda pk: self.desk.end(pk.id, "ended", "olga"))

    def score(self, room: str, pick: int) -> None:
        self.on_any(room, pick, lambda pk: self.desk.score(pk.id, room, 3, "gus", None))

    def look(self, rooms: Iterable[str] = ROOMS) -> None:
        for room in rooms:
            state = self.rooms.state(room)
            if state is not None:
                self.begin(self.desk.look(state))

    def begin_anew(self, room: str) -> None:
        self.rooms.end(room)
        self.rooms.make(room, self.now)

    # --- what has to hold at every moment

    def check(self) -> None:
        for pk in self.rooms.records():
            if pk.state != "running":
                continue
            for room in pk.rooms:
                state = self.rooms.state(room)
                fresh = state is None or pk.id not in state.pk.known
                assert fresh or pk_room.stands_by(state, pk), f"{room} lets {pk.id} go while it runs"  # type: ignore[arg-type]
        for room in ROOMS:
            self.check_told(room)
        for first in ROOMS:
            for second in ROOMS:
                self.check_pair(first, second)

    def check_pair(self, first: str, second: str) -> None:
        """A room shows another only by a record that was decided; and the other does, or is about to hear of it."""
        one, two = self.rooms.state(first), self.rooms.state(second)
        pk = pk_room.current(one) if one else None
        if pk is None or pk.other(first) != second or two is None:
            return
        (decided,) = (each for each in self.rooms.records() if each.id == pk.id)
        assert decided.epoch >= pk.epoch
        assert decided.starts_at == pk.starts_at
        theirs = pk_room.current(two)
        if pk_room.stands_by(two, pk) and decided.state == "running":
            assert theirs is None or theirs.id == pk.id

    def check_told(self, room: str) -> None:
        """Each PK's events reach a room once, in order."""
        by_pk: dict[str, list[str]] = {}
        for kind, data in self.rooms.told[room]:
            by_pk.setdefault(data["pk"], []).append(kind)
        for kinds in by_pk.values():
            assert kinds[0] == "pk.invited"
            assert kinds.count("pk.invited") == 1
            for once in ("pk.started", "pk.ended", "pk.declined"):
                assert kinds.count(once) <= 1
            if "pk.ended" in kinds:
                assert kinds.index("pk.ended") == len(kinds) - 1
                assert "pk.started" in kinds
            assert not ("pk.started" in kinds and "pk.declined" in kinds)


def advance(work: Coroutine[Any, Any, Any]) -> bool:
    """Run to the next turn. Whether the work is over; what the rules refuse is no failure."""
    try:
        work.send(None)
    except (StopIteration, RequestError, Conflict):
        return True
    return False


async def _run(work: Awaitable[Any]) -> None:
    await work

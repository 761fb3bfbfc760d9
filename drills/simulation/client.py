"""A node's way to the store: each step takes time, may fail, and may have been carried out all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from drills.simulation.network import TIMEOUT_S, Network
from drills.simulation.store import StoreModel, Told
from relay.cluster.lease_keeper import Acquire, LeaseKeeper, Release, Renew, Request
from relay.errors import CostreamError, LeaseHeld, Overloaded, StoreUnavailable
from relay.ids import HybridClock
from relay.ports import ChangeRoom, Lease, RoomEvent

T = TypeVar("T")

GONE_S = 5.0
"""So long a reader waits for news until it asks whether the stream is still there (`follow.BLOCK_MS`)."""
_ATTEMPTS = 64


class StoreClient:
    """The `RoomStore` of one life of one node, and the carrier of its leases' requests."""

    def __init__(self, node: str, store: StoreModel, network: Network, wall: Callable[[], float]) -> None:
        self.clock = HybridClock()
        self._node, self._store, self._network, self._wall = node, store, network, wall
        self._waiting: dict[str, list[asyncio.Event]] = {}

    # --- rooms -------------------------------------------------------------------------------------------------------

    async def create(self, room: str, document: dict[str, Any], events: Told = ()) -> None:
        """See `RoomStore`."""
        told = list(events)
        await self._trip(lambda: self._store.create(room, document, self._stamp(), told))

    async def read(self, room: str) -> dict[str, Any]:
        """See `RoomStore`."""
        return (await self._read(room))[0]

    async def change(self, room: str, apply: ChangeRoom) -> tuple[dict[str, Any], list[RoomEvent]]:
        """See `RoomStore`."""
        for _ in range(_ATTEMPTS):
            document, version = await self._read(room)
            changed, told = apply(document)
            told = list(told)
            if not told and (changed is document or changed == document):
                return document, []
            body, stamp = changed, self._stamp()
            events = await self._trip(
                lambda body=body, version=version, stamp=stamp, told=told: self._store.write(  # type: ignore[misc]
                    room, body, version, stamp, told
                )
            )
            if events is not None:
                for event in events:
                    self.clock.observe(event.sync_id)
                return {**changed, "sync_id": str(events[-1].sync_id) if events else document["sync_id"]}, events
        raise Overloaded(f"room {room} is changed by too many at once", retry_after=1)

    async def append(
        self, room: str, events: Iterable[tuple[str, dict[str, Any]]], *, late: bool = False
    ) -> list[RoomEvent]:
        """See `RoomStore`; nothing here is kept of a room that is over, so `late` changes nothing."""
        told = list(events)
        return await self._trip(lambda: self._store.append(room, self._stamp(), told))

    async def events(self, room: str, after: int | None = None) -> AsyncIterator[RoomEvent]:
        """See `RoomStore`: an outage is told at the start only, later ones are waited out."""
        position = 0 if after is None else after
        await self._trip(lambda: self._store.since(room, position))
        news = asyncio.Event()
        self._waiting.setdefault(room, []).append(news)
        try:
            while True:
                found = self._store.since(room, position) if self._network.reaches_store(self._node) else []
                for event in found:
                    position = event.sync_id
                    yield event
                if not found:
                    await news.wait()
                    news.clear()
        finally:
            self._waiting[room].remove(news)

    async def put_viewer(self, room: str, identity: str, data: dict[str, Any]) -> None:
        """See `RoomStore`."""
        self._store.ops["viewer.put"] += 1

    async def drop_viewer(self, room: str, identity: str) -> None:
        """See `RoomStore`."""
        self._store.ops["viewer.drop"] += 1

    def poke(self, room: str) -> None:
        """There may be news of a room."""
        for news in self._waiting.get(room, ()):
            news.set()

    def poke_all(self) -> None:
        """The store may be reached again."""
        for room in self._waiting:
            self.poke(room)

    def follows(self, room: str) -> bool:
        """Whether anybody here waits for a room's news."""
        return bool(self._waiting.get(room))

    async def _read(self, room: str) -> tuple[dict[str, Any], int]:
        document, version = await self._trip(lambda: self._store.read(room))
        self.clock.observe(int(document["sync_id"]))
        return document, version

    def _stamp(self) -> int:
        return self.clock.next(int(self._wall() * 1000))

    async def _trip(self, work: Callable[[], T]) -> T:
        """There, a step at the store, and back. What takes longer than the time-out is carried out all the same."""
        network, node = self._network, self._node
        there, back = network.delay(node), network.delay(node)
        if not network.reaches_store(node):
            await asyncio.sleep(TIMEOUT_S)
            raise StoreUnavailable("the room store did not answer", retry_after=1)
        if there >= TIMEOUT_S:
            asyncio.get_running_loop().call_later(there, self._late, work)
            await asyncio.sleep(TIMEOUT_S)
            raise StoreUnavailable("the room store did not answer", retry_after=1)
        await asyncio.sleep(there)
        result, error = _tried(work) if network.reaches_store(node) else (None, None)
        lost = not network.reaches_store(node) or network.is_lost(node) or there + back >= TIMEOUT_S
        await asyncio.sleep(TIMEOUT_S - there if lost else back)
        if lost or not network.reaches_store(node):
            raise StoreUnavailable("the room store did not answer", retry_after=1)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _late(self, work: Callable[[], object]) -> None:
        if self._network.reaches_store(self._node):
            _tried(work)

    # --- leases ------------------------------------------------------------------------------------------------------

    def ask(self, request: Request, keeper: LeaseKeeper, ttl_s: float, mono: Callable[[], float],
            answered: Callable[[], None]) -> None:  # fmt: skip
        """Carry a request there and the answer back into `keeper`, then call `answered`."""
        loop, network, node = asyncio.get_running_loop(), self._network, self._node
        asked = loop.time()

        def failed() -> None:
            keeper.failed(request, mono())
            answered()

        def give_up() -> None:
            loop.call_at(max(loop.time(), asked + TIMEOUT_S), failed)

        def arrive() -> None:
            if not network.reaches_store(node):
                if loop.time() < asked + TIMEOUT_S:
                    give_up()
                return
            tell = self._carry_out(request, keeper, ttl_s)
            if loop.time() >= asked + TIMEOUT_S:
                return  # was given up before
            back = network.delay(node)
            if network.is_lost(node) or loop.time() + back >= asked + TIMEOUT_S:
                give_up()
            else:
                loop.call_later(back, lambda: back_with(tell))

        def back_with(tell: Callable[[], None]) -> None:
            if not network.reaches_store(node):
                give_up()
                return
            tell()
            answered()

        there = network.delay(node)
        if there >= TIMEOUT_S:
            give_up()
        loop.call_later(there, arrive)

    def _carry_out(self, request: Request, keeper: LeaseKeeper, ttl_s: float) -> Callable[[], None]:
        match request:
            case Acquire(room, publication, over, _):
                lease, error = _tried(lambda: self._store.acquire(room, publication, self._node, ttl_s, over))
                if isinstance(error, LeaseHeld):
                    held = error
                    return lambda: keeper.refused(request, held.owner, held.epoch)
                assert isinstance(lease, Lease)
                epoch = lease.epoch
                return lambda: keeper.acquired(request, epoch)
            case Renew(room, epochs, _):
                lost = self._store.renew(room, self._node, epochs, ttl_s)
                return lambda: keeper.renewed(request, lost)
            case Release(room, epochs):
                self._store.release(room, self._node, epochs)
                return lambda: None


def _tried(work: Callable[[], T]) -> tuple[T | None, CostreamError | None]:
    """Its result, or the answer that it is an error."""
    try:
        return work(), None
    except CostreamError as error:
        return None, error

"""A node's leases, kept alive: `LeaseKeeper` with the store and a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from relay.cluster.lease_keeper import Acquire, LeaseEvent, LeaseKeeper, Release, Renew, Request
from relay.ending import end
from relay.errors import LeaseHeld, StoreUnavailable
from relay.ports import LeaseStore

_CLOSE_S = 1.0

log = structlog.get_logger(__name__)


class LeaseHolder:
    """Keeps what was wanted until it is given up or lost. `start` it, `close` it; it closes the store's client."""

    def __init__(
        self,
        store: LeaseStore,
        node: str,
        ttl_s: float,
        on_event: Callable[[LeaseEvent], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_event` is called from the loop; it may call `want` and `give_up`."""
        self._store = store
        self._node = node
        self._ttl_s = ttl_s
        self._on_event = on_event
        self._monotonic = monotonic
        self._keeper = LeaseKeeper(node, ttl_s)
        self._changed = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._run(), name="leases")

    def want(self, room: str, publication: str, over: int | None = None) -> None:
        """See `LeaseKeeper.want`."""
        self._keeper.want(room, publication, over)
        self._changed.set()

    def give_up(self, room: str, publication: str) -> None:
        """See `LeaseKeeper.give_up`."""
        self._keeper.give_up(room, publication)
        self._changed.set()

    def epoch(self, room: str, publication: str) -> int | None:
        """See `LeaseKeeper.epoch`."""
        return self._keeper.epoch(room, publication, self._monotonic())

    async def close(self) -> None:
        """Give everything back, within a second; what the store does not hear of ends by itself."""
        await end({self._task} if self._task is not None else set())
        for room, publication in self._keeper.kept():
            self._keeper.give_up(room, publication)
        self._ask()
        if self._asking:
            await asyncio.wait(self._asking, timeout=_CLOSE_S)
        await end(self._asking)
        await self._store.close()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            self._ask()
            for event in self._keeper.events():
                self._tell(event)
            at = self._keeper.next_timeout()
            try:
                async with asyncio.timeout(None if at is None else max(0.0, at - self._monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _ask(self) -> None:
        for request in self._keeper.requests(self._monotonic()):
            task = asyncio.create_task(self._carry_out(request))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _carry_out(self, request: Request) -> None:
        try:
            match request:
                case Acquire(room, publication, over, _):
                    lease = await self._store.acquire(room, publication, self._node, self._ttl_s, over)
                    self._keeper.acquired(request, lease.epoch)
                case Renew(room, epochs, _):
                    self._keeper.renewed(request, await self._store.renew(room, self._node, epochs, self._ttl_s))
                case Release(room, epochs):
                    await self._store.release(room, self._node, epochs)
        except LeaseHeld as error:
            assert isinstance(request, Acquire)
            self._keeper.refused(request, error.owner, error.epoch)
        except StoreUnavailable:
            self._keeper.failed(request, self._monotonic())
        except Exception:
            log.exception("a lease could not be asked for", request=request)
            self._keeper.failed(request, self._monotonic())
        finally:
            self._changed.set()

    def _tell(self, event: LeaseEvent) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("what became of a lease could not be told", lease=event)

"""A hosted room's PK on this node: follows the other room, shows its stage when both rooms do, and looks at the record.

The other room is hosted here too while the PK lasts, with or without sessions of its own: what it publishes on other
nodes comes by its own links, once, however many rooms show it here. From `starts_at` to `ends_at` its tracks are lent
to this room, and its hosts stand on this room's stage as guests, so that slots, layers and speakers treat them as any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from relay.cluster.pk_desk import PkDesk
from relay.errors import CostreamError, Overloaded
from relay.ids import sync_id_at, sync_id_microseconds
from relay.stage import pk as pks
from relay.stage.document import RoomState
from relay.stage.pk_room import PkView, current, pk_view, shown, with_guests

if TYPE_CHECKING:
    from relay.node.room import HostedRoom

log = structlog.get_logger()

LOOK_S = 1.0
"""A room in a PK looks at the record this often: what it was not told it learns before a countdown is over."""


class PkStage:
    """One room's. `wall` and `monotonic` in seconds; `close` ends its tasks."""

    def __init__(
        self,
        room: HostedRoom,
        open_room: Callable[[str], Awaitable[HostedRoom]],
        desk: PkDesk,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._room = room
        self._open_room = open_room
        self._desk = desk
        self._wall, self._monotonic = wall, monotonic
        self.other: HostedRoom | None = None
        """The other room, once it is hosted here as well."""
        self._shows = False
        self._looked_at = float("-inf")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    # --- what is shown ------------------------------------------------------------------------------------------------

    @property
    def view(self) -> PkView | None:
        """What is to be seen of the PK now."""
        return pk_view(self._room.state, self._others(), self._now())

    def on_stage(self, state: RoomState) -> RoomState:
        """Return the room's document with those on its stage who are there as guests."""
        others = self._others()
        return with_guests(state, others) if self._shows and others is not None else state

    # --- the room tells -----------------------------------------------------------------------------------------------

    def update(self) -> None:
        """One of the two documents changed, or a moment has come: show what is to be shown now. `on_stage` says it."""
        pk = current(self._room.state)
        if self.other is not None and (pk is None or pk.other(self._room.id) != self.other.id or self.other.ended):
            self._leave()
        if pk is not None and self.other is None:
            self._spawn("open", self._open(pk.other(self._room.id)))
        shows = self.other is not None and shown(self._room.state, self._others(), self._now()) is not None
        if shows != self._shows:
            self._show(shows)
        self._set_timer(pk)

    def tick(self) -> None:
        """Let time pass."""
        now = self._monotonic()
        if self.other is not None:
            self.other.stay()  # it is needed here, whoever watches it
        state = self._room.state
        waits = state.pk.claim is not None or any(
            due is not None and due <= self._wall() for due in map(pks.due_at, state.pk.known.values())
        )
        if waits and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._spawn("look", self._desk.look(state))
        self._changed()

    def flushed(self) -> None:
        """What the room's viewers need was decided anew: the other room asks for it, too."""
        if self._shows and self.other is not None:
            self.other.demand()

    async def close(self) -> None:
        """Give back what was lent."""
        self._leave()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return sync_id_at(round(self._wall() * 1e6))

    def _others(self) -> RoomState | None:
        return self.other.state if self.other is not None and not self.other.ended else None

    def _changed(self) -> None:
        before = self._shows
        self.update()
        if before != self._shows:
            self._room.stage_changed()

    def _other_changed(self) -> None:
        self.update()
        self._room.stage_changed()

    async def _open(self, name: str) -> None:
        other = await self._open_room(name)
        pk = current(self._room.state)
        if self.other is None and pk is not None and pk.other(self._room.id) == name:
            self.other = other
            other.watchers.append(self._other_changed)
            self._other_changed()

    def _show(self, shows: bool) -> None:
        assert self.other is not None
        self._shows, now = shows, self._monotonic()
        if shows:
            self.other.live.lend(self._room.live, now)
        else:
            self.other.live.take_back(self._room.live, now)
        log.info("PK is shown" if shows else "PK is no longer shown", room=self._room.id, other=self.other.id)

    def _leave(self) -> None:
        other = self.other
        if other is None:
            return
        if self._shows:
            self._show(False)
        other.watchers.remove(self._other_changed)
        self.other = None

    def _set_timer(self, pk: pks.Pk | None) -> None:
        """Wake at the very moments: both rooms change their stages by the same clock, not by their nodes' ticks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moments = [] if pk is None else [at for at in (pk.starts_at, pk.ends_at) if at > self._now()]
        if moments:
            after = sync_id_microseconds(moments[0]) / 1e6 - self._wall()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, after), self._changed)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background, one of a name at a time. What fails is tried again with a later tick."""
        running = self._tasks.get(name)
        if running is not None and not running.done():
            work.close()
            return

        async def run() -> None:
            try:
                await work
            except Overloaded:
                pass  # the store is away: what is shown stays, and ends by its own time at the latest
            except CostreamError as error:
                log.warning("a PK could not be followed", room=self._room.id, what=name, error=str(error))

        self._tasks[name] = asyncio.get_running_loop().create_task(run())

"""What happens to rooms: reading, making and ending them, and following their events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from relay import errors
from relay.stage import room as stage
from relay.stage.document import RoomChange, RoomState
from relay.stage.people import check_ban
from relay.stage.permissions import Action
from relay.stage.room import changing
from relay.stage.views import room_view
from signaling.auth import Caller
from signaling.context import Context
from signaling.events import EventStream, Listener, parse_position
from signaling.nodes import LocalNode, Node
from signaling.problems import RoomExists, RoomNotFound
from signaling.rooms.schemas import ALL_CODECS, AppEvent, CreateRoom

READS_AT_ONCE = 8


async def read_room(context: Context, room: str) -> RoomState:
    """Return a room. Raises RoomNotFound, StoreUnavailable."""
    try:
        return RoomState.from_json(await context.store.read(room))
    except errors.NotFound:
        raise RoomNotFound(f"no room {room!r}") from None


async def change_room(context: Context, room: str, change: Callable[[RoomState], RoomChange]) -> RoomState:
    """Change a room under compare-and-set and return it.

    `change` may run several times. Raises RoomNotFound, StoreUnavailable, and what `change` raises.
    """
    try:
        document, _ = await context.store.change(room, changing(change))
    except errors.NotFound as error:
        if error.code not in {"", "room-not-found"}:
            raise
        raise RoomNotFound(f"no room {room!r}") from None
    return RoomState.from_json(document)


async def create(context: Context, caller: Caller, wanted: CreateRoom) -> dict[str, Any]:
    """Create a room as asked. Raises WrongRoom, Forbidden, RoomExists."""
    caller.enter(wanted.id)
    return room_view(await make_room(context, caller, wanted))


async def make_room(context: Context, caller: Caller, wanted: CreateRoom) -> RoomState:
    """Store a new room; what is not asked for is as the settings say. Raises Forbidden, RoomExists."""
    defaults = context.settings.room
    state, events = stage.create(
        caller.actor,
        wanted.id,
        context.wall(),
        codecs=tuple(wanted.codecs or ALL_CODECS),
        max_seats=wanted.max_seats or defaults.max_seats,
        stage_policy=wanted.stage_policy or defaults.stage_policy,
        metadata=wanted.metadata,
    )
    try:
        await context.store.create(wanted.id, state.to_json(), events)
    except errors.Conflict:
        raise RoomExists(f"room {wanted.id!r} exists") from None
    return await read_room(context, wanted.id)


async def list_rooms(context: Context, caller: Caller) -> list[dict[str, Any]]:
    """Return all rooms that the caller's token opens."""
    turns = asyncio.Semaphore(READS_AT_ONCE)

    async def view(room: str) -> dict[str, Any] | None:
        async with turns:
            try:
                return await _view(context, room)
            except RoomNotFound:  # it ended meanwhile
                return None

    wanted = [room for room in await context.store.rooms() if caller.opens(room)]
    return [found for found in await asyncio.gather(*map(view, wanted)) if found is not None]


async def show(context: Context, caller: Caller, room: str) -> dict[str, Any]:
    """Return a room as the API shows it."""
    caller.enter(room)
    caller.require(Action.READ_ROOM)
    return await _view(context, room)


async def end(context: Context, caller: Caller, room: str) -> None:
    """End a room: the nodes that follow it close its sessions."""
    caller.enter(room)
    caller.require(Action.END_ROOM)
    try:
        await context.store.delete(room, ("room.ended", {"by": caller.identity}))
    except errors.NotFound:
        raise RoomNotFound(f"no room {room!r}") from None


async def send_event(context: Context, caller: Caller, room: str, event: AppEvent) -> str:
    """Append an application's event and return its sync id."""
    caller.enter(room)
    caller.require(Action.SEND_EVENT)
    await read_room(context, room)
    data: dict[str, Any] = {"by": caller.identity, "data": event.data}
    if event.at is not None:
        data["at"] = event.at
    (stored,) = await context.store.append(room, [(event.type, data)])
    return str(stored.sync_id)


async def listen(
    context: Context,
    caller: Caller,
    room: str,
    last_event_id: str | None,
    node: Node | None = None,
    session: str = "",
) -> EventStream:
    """Return the event stream of a room, with the own events of `session` on `node` when given.

    Raises WrongRoom, Forbidden, RoomNotFound, EventsGone, StoreUnavailable, all before the first byte.
    """
    caller.enter(room)
    caller.require(Action.READ_EVENTS)
    after = parse_position(last_event_id)
    latest = await _latest(context, caller, room, after)
    listener = Listener(context, room, caller.identity)
    try:
        await listener.follow_room(latest if after is None else after, session, up_to_date=after in {None, latest})
        if node is not None:
            listener.follow_session(await node.session_events(session))
    except BaseException:
        await listener.close()
        raise
    listener.follow_drain(announced=node is None or isinstance(node, LocalNode))
    listener.end_in(max(0.0, caller.expires - context.wall()))
    return EventStream(listener)


async def _latest(context: Context, caller: Caller, room: str, after: int | None) -> int:
    """Return the sync id of the room's last event. Raises RoomNotFound, and Forbidden while the caller is banned.

    The stream of a room that just ended can still be resumed, so that everybody learns of the end: -1 then.
    """
    try:
        state = await read_room(context, room)
    except RoomNotFound:
        if after is None:
            raise
        return -1
    check_ban(state, caller.identity, context.wall(), caller.role)
    return int(state.sync_id)


async def _view(context: Context, room: str) -> dict[str, Any]:
    state = await read_room(context, room)
    return room_view(state, await context.store.count_viewers(room))

"""What happens on the stage through the API; the rules are in `relay.stage.seats`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Response

from relay.stage import seats
from relay.stage.document import RoomChange, RoomState, SeatState
from relay.stage.permissions import Action
from relay.stage.room import leave_seat
from relay.stage.views import stage_view
from signaling.auth import Caller
from signaling.context import Context
from signaling.nodes import ask_all
from signaling.rooms.service import change_room, find_room
from signaling.token_api.routes import mint


async def show(context: Context, caller: Caller, room: str, response: Response) -> dict[str, Any]:
    """Return the stage."""
    caller.enter(room)
    caller.require(Action.READ_ROOM)
    found = await find_room(context, room)
    found.label(response)
    return await _view(context, found.state)


async def invite(context: Context, caller: Caller, room: str, identity: str) -> dict[str, Any]:
    """Invite somebody and return the stage."""
    now = context.wall()
    return await _change(context, caller, room, lambda state: seats.invite(state, caller.actor, identity, now))


async def accept(context: Context, caller: Caller, room: str, identity: str) -> dict[str, Any]:
    """Accept an invitation; return the stage and a token that publishes."""
    now = context.wall()
    view = await _change(context, caller, room, lambda state: seats.accept(state, caller.actor, identity, now))
    return {"stage": view, "token": mint(context, caller, room, identity, "guest").token}


async def decline(context: Context, caller: Caller, room: str, identity: str) -> dict[str, Any]:
    """Decline or withdraw an invitation and return the stage."""
    now = context.wall()
    return await _change(context, caller, room, lambda state: seats.decline(state, caller.actor, identity, now))


async def change_seat(context: Context, caller: Caller, room: str, identity: str, wanted: SeatState) -> dict[str, Any]:
    """Put a host on air or backstage and return the stage."""
    now = context.wall()
    return await _change(
        context, caller, room, lambda state: seats.set_seat(state, caller.actor, identity, wanted, now)
    )


async def leave(context: Context, caller: Caller, room: str, identity: str) -> dict[str, Any]:
    """Take somebody off the stage and return it."""
    now = context.wall()
    return await _change(context, caller, room, lambda state: leave_seat(state, caller.actor, identity, now))


async def _change(
    context: Context, caller: Caller, room: str, change: Callable[[RoomState], RoomChange]
) -> dict[str, Any]:
    caller.enter(room)
    return await _view(context, await change_room(context, room, change))


async def _view(context: Context, state: RoomState) -> dict[str, Any]:
    speakers = await ask_all(context.nodes, lambda node: node.active_speaker(state.id))
    return stage_view(state, next((speaker for speaker in speakers if speaker), None))

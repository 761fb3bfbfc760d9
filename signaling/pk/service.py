"""What happens to PKs through the API; the rules are in `relay.stage.pk` and `pk_room`, the steps in `PkDesk`."""

from __future__ import annotations

import secrets
from typing import Any

from relay import errors
from relay.cluster.pk_desk import PkDesk, check_part
from relay.stage import pk as pks
from relay.stage.document import RoomState
from relay.stage.people import require
from relay.stage.permissions import Action
from relay.stage.pk_room import record_view, room_pk_view
from signaling.auth import Caller
from signaling.context import Context
from signaling.pk.schemas import InviteRoom, Score
from signaling.problems import RoomNotFound
from signaling.rooms.service import read_room


async def show(context: Context, caller: Caller, room: str) -> dict[str, Any]:
    """Return what the room knows of PKs."""
    return room_pk_view(await _enter(context, caller, room, Action.READ_ROOM))


async def invite(context: Context, caller: Caller, room: str, wanted: InviteRoom) -> dict[str, Any]:
    """Invite another room. Raises RoomNotFound for either, and Conflict when one has too many invitations."""
    await _enter(context, caller, room, Action.MANAGE_PK)
    pk = pks.invite(
        secrets.token_hex(8),
        room,
        wanted.room,
        caller.identity,
        context.wall(),
        duration_s=wanted.duration_s,
        countdown_s=wanted.countdown_s,
    )
    try:
        return record_view(await _desk(context).invite(pk), room)
    except errors.NotFound as error:
        raise RoomNotFound(str(error)) from None


async def accept(context: Context, caller: Caller, room: str, pk: str) -> dict[str, Any]:
    """Accept an invitation: both rooms begin to count down."""
    desk = await _at(context, caller, room, pk, Action.MANAGE_PK)
    return record_view(await desk.accept(pk, room, caller.identity), room)


async def decline(context: Context, caller: Caller, room: str, pk: str) -> dict[str, Any]:
    """Decline an invitation, or withdraw one's own."""
    desk = await _at(context, caller, room, pk, Action.MANAGE_PK)
    return record_view(await desk.decline(pk, room, caller.identity), room)


async def score(context: Context, caller: Caller, room: str, pk: str, wanted: Score) -> dict[str, Any]:
    """Give the room's side points."""
    desk = await _at(context, caller, room, pk, Action.SCORE_PK)
    at = None if wanted.at is None else int(wanted.at)
    return record_view(await desk.score(pk, room, wanted.points, caller.identity, at), room)


async def end(context: Context, caller: Caller, room: str, pk: str) -> dict[str, Any]:
    """End a PK in both rooms."""
    desk = await _at(context, caller, room, pk, Action.END_PK)
    return record_view(await desk.end(pk, "ended", caller.identity), room)


async def _enter(context: Context, caller: Caller, room: str, action: Action) -> RoomState:
    caller.enter(room)
    state = await read_room(context, room)
    require(state, caller.actor, action)
    return state


async def _at(context: Context, caller: Caller, room: str, pk: str, action: Action) -> PkDesk:
    await _enter(context, caller, room, action)
    desk = _desk(context)
    check_part(await desk.read(pk), room)
    return desk


def _desk(context: Context) -> PkDesk:
    return PkDesk(context.store, context.wall)

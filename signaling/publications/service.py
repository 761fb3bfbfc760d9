"""What happens to publications through the API; the rules are in `relay.stage.publications`."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from relay.stage import publications as stage
from relay.stage.permissions import Action
from relay.stage.views import publication_view
from signaling.auth import Caller
from signaling.context import Context
from signaling.rooms.service import change_room, find_room


async def list_publications(context: Context, caller: Caller, room: str, response: Response) -> list[dict[str, Any]]:
    """Return what is offered in a room, in join order."""
    caller.enter(room)
    caller.require(Action.READ_ROOM)
    found = await find_room(context, room)
    found.label(response)
    state = found.state
    return [publication_view(state, each) for each in state.publications.values()]


async def mute(context: Context, caller: Caller, room: str, publication: str, *, muted: bool) -> dict[str, Any]:
    """Mute or unmute a publication and return it."""
    caller.enter(room)
    state = await change_room(
        context,
        room,
        lambda before: stage.mute_publication(before, caller.actor, publication, muted=muted),
    )
    return publication_view(state, stage.find(state, publication))


async def end(context: Context, caller: Caller, room: str, publication: str) -> None:
    """End a publication; its session stays."""
    caller.enter(room)
    now = context.wall()
    await change_room(context, room, lambda before: stage.end_publication(before, caller.actor, publication, now))

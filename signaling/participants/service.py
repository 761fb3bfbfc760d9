"""What happens to participants through the API; the rules are in `relay.stage.room`."""

from __future__ import annotations

from typing import Any

from relay.stage import room as stage
from relay.stage.document import RoomChange, RoomState
from relay.stage.people import participant
from relay.stage.permissions import Action, Role
from relay.stage.views import participant_view, viewer_view
from signaling.auth import Caller
from signaling.context import Context
from signaling.participants.schemas import ChangeParticipant
from signaling.rooms.service import change_room, read_room

MAX_VIEWERS_LISTED = 1000


async def list_participants(context: Context, caller: Caller, room: str) -> list[dict[str, Any]]:
    """Return hosts and moderators in join order, then viewers (the first thousand)."""
    caller.enter(room)
    caller.require(Action.READ_PARTICIPANTS)
    state = await read_room(context, room)
    viewers = await context.store.viewers(room, MAX_VIEWERS_LISTED)
    return [participant_view(state, who) for who in state.participants.values()] + [
        _viewer(state, identity, data) for identity, data in viewers.items() if identity not in state.participants
    ]


async def change(
    context: Context, caller: Caller, room: str, identity: str, wanted: ChangeParticipant
) -> dict[str, Any]:
    """Change role and mute in one step, and return the participant."""
    caller.enter(room)
    now = context.wall()

    def apply(state: RoomState) -> RoomChange:
        actor = caller.actor
        events = []
        if wanted.role is not None:
            state, changed = stage.change_role(state, actor, identity, Role(wanted.role), now)
            events += changed
        if wanted.muted is not None:
            audio, video = wanted.muted.audio, wanted.muted.video
            state, muted = stage.mute(state, actor, identity, audio=audio, video=video)
            events += muted
        if wanted.role is None and wanted.muted is None:
            participant(state, identity)
        return state, events

    state = await change_room(context, room, apply)
    who = state.participants.get(identity)
    if who is not None:
        return participant_view(state, who)
    viewers = await context.store.viewers(room, MAX_VIEWERS_LISTED)
    return _viewer(state, identity, viewers.get(identity, {"since": now})) | {"connected": identity in viewers}


async def kick(context: Context, caller: Caller, room: str, identity: str, ban_s: int) -> None:
    """Remove somebody and keep it out for `ban_s` seconds. Nodes close its sessions when they see the event."""
    caller.enter(room)
    now = context.wall()
    await change_room(
        context,
        room,
        lambda state: stage.kick(state, caller.actor, identity, now, ban_s=ban_s),
    )


def _viewer(state: RoomState, identity: str, data: dict[str, Any]) -> dict[str, Any]:
    role = state.roles.get(identity) or data.get("role", "viewer")
    return viewer_view(identity, str(role), float(data.get("since", state.created_at)))

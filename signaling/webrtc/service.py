"""Joining by WHIP or WHEP: everything that is decided before a node sees the offer."""

from __future__ import annotations

from fastapi import Request

from relay import errors
from relay.ports import Answer, Offer
from relay.stage.document import RoomState
from relay.stage.people import as_of_room, check_ban
from relay.stage.permissions import Action, Actor, Role, require
from signaling.auth import Caller, authenticate, bearer_token, count_join
from signaling.bodies import SDP, read_text, require_accepted, require_type
from signaling.context import Context
from signaling.nodes import Node
from signaling.problems import Forbidden, RoomExists, RoomNotFound
from signaling.rooms.schemas import CreateRoom
from signaling.rooms.service import make_room, read_room


async def join(request: Request, context: Context, room: str, *, publishing: bool) -> Answer:
    """Answer an offer. Refuses in the order of cost: draining, token, rate, load, headers, body, room, and then SDP."""
    context.drain.check(context.limits.retry_after_s)
    caller = authenticate(request, context, bearer_token(request))
    caller.enter(room)
    count_join(context, caller)
    node = await _admitting(context, room, caller.identity, publishing)
    require_type(request, SDP)
    require_accepted(request, SDP)
    sdp = await read_text(request, context.limits.offer_bytes)
    state = await _find_room(context, node, room, caller)
    actor = as_of_room(state, caller.actor)
    _check(state, actor, context.wall(), publishing=publishing)
    offer = Offer(room, actor.identity, actor.role.value, sdp, request.headers.get("user-agent", "")[:256])
    try:
        return await (node.publish(offer) if publishing else node.watch(offer))
    except errors.NotFound as error:
        raise RoomNotFound(str(error)) from None


async def _admitting(context: Context, room: str, identity: str, publishing: bool) -> Node:
    """Return the room's node, which takes the newcomer. Raises Overloaded, NodeUnreachable."""
    node = await context.nodes.choose(room)
    try:
        await node.admit(room, identity, publishing)
    except errors.NodeUnreachable:
        other = await context.nodes.choose(room)  # what is known now of that node may lead elsewhere
        if other.node_id == node.node_id:
            raise
        await other.admit(room, identity, publishing)
        return other
    return node


def _check(state: RoomState, actor: Actor, now: float, *, publishing: bool) -> None:
    """Raise Forbidden when the role may not, or a ban does not let the identity in."""
    if publishing and actor.role is Role.SERVICE:
        raise Forbidden("a service is no participant: mint a token of an owner or guest to publish")
    require(actor, Action.PUBLISH if publishing else Action.WATCH, actor.identity)
    check_ban(state, actor.identity, now, actor.role)


async def _find_room(context: Context, node: Node, room: str, caller: Caller) -> RoomState:
    """Return the room, made now where the settings let an owner do so by coming.

    With the store gone, a room that the node hosts goes by the last document that the node saw.
    """
    try:
        return await read_room(context, room)
    except errors.StoreUnavailable:
        document = await node.knows(room)
        if document is None:
            raise
        return RoomState.from_json(document)
    except RoomNotFound:
        if not (context.settings.room.auto_create and caller.role is Role.OWNER):
            raise
    try:
        return await make_room(context, caller, CreateRoom(id=room))
    except RoomExists:  # another request made it first
        return await read_room(context, room)

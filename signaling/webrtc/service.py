"""Joining by WHIP or WHEP: everything that is decided before a node sees the offer."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request

from relay import errors
from relay.guards import within
from relay.ports import Answer, Offer
from relay.stage.document import RoomState
from relay.stage.people import as_of_room, check_ban
from relay.stage.permissions import Action, Actor, Role, require
from signaling.auth import Caller, authenticate, bearer_token, count_join
from signaling.bodies import SDP, read_text, require_accepted, require_type
from signaling.context import Context
from signaling.nodes import Node
from signaling.problems import Draining, Forbidden, RoomExists, RoomNotFound
from signaling.rooms.schemas import CreateRoom
from signaling.rooms.service import make_room, read_room
from signaling.webrtc.redirects import may_follow, redirect_url, redirected, region_of

CHOICES = 3
"""Nodes that are asked for one newcomer at most."""


async def join(
    request: Request, context: Context, room: str, *, publishing: bool, program: bool = False, one_sound: bool = False
) -> Answer | str:
    """Answer an offer, or return the URL of the node that takes it. Raises Draining, Overloaded, NodeUnreachable, and
    the refusals of token, headers, body and room.

    Refuses in the order of cost: draining, token, rate, load, headers, body, room, and then SDP. All of it has to be
    done within `join.timeout_s`.
    """
    with within(context.settings.join.timeout_s):
        return await _join(request, context, room, publishing, program, one_sound)


async def _join(
    request: Request, context: Context, room: str, publishing: bool, program: bool, one_sound: bool
) -> Answer | str:
    draining = context.drain.began.is_set()
    region = region_of(request)
    if draining and not context.nodes.elsewhere(room, region):
        context.drain.check(context.limits.retry_after_s)
    caller = authenticate(request, context, bearer_token(request))
    caller.enter(room)
    count_join(context, caller)
    try:
        context.drain.check(context.limits.retry_after_s)  # again: for those who can be sent elsewhere
        node = await _admitting(context, room, caller.identity, publishing, region)
    except (Draining, errors.Overloaded) as error:
        return redirected(request, context.nodes.elsewhere(room, region), error)
    if context.settings.join.redirect and node.public_url and may_follow(request):
        return redirect_url(request, node.public_url)
    require_type(request, SDP)
    require_accepted(request, SDP)
    sdp = await read_text(request, context.limits.offer_bytes)
    state = await _find_room(context, node, room, caller)
    actor = as_of_room(state, caller.actor)
    _check(state, actor, context.wall(), publishing=publishing)
    client = request.headers.get("user-agent", "")[:256]
    offer = Offer(room, actor.identity, actor.role.value, sdp, client, program, one_sound)
    try:
        return await _offered(context, node, offer, publishing, region)
    except errors.NotFound as error:
        raise RoomNotFound(str(error)) from None


async def _offered(context: Context, node: Node, offer: Offer, publishing: bool, region: str) -> Answer:
    """Hand the offer to the node, or to the next best when it died since it was asked.

    Should the first have opened a session all the same, its client never hears of it and it ends for want of ICE.
    """
    try:
        return await (node.publish(offer) if publishing else node.watch(offer))
    except errors.NodeUnreachable as error:
        try:
            other = await _admitting(context, offer.room, offer.identity, publishing, region, {node.node_id})
        except errors.Overloaded:
            raise error from None
    return await (other.publish(offer) if publishing else other.watch(offer))


async def _admitting(
    context: Context, room: str, identity: str, publishing: bool, region: str, without: Collection[str] = ()
) -> Node:
    """Return the best node that takes the newcomer. Raises Overloaded, NodeUnreachable: what the best said."""
    refused, why = set(without), None
    for _ in range(CHOICES):
        try:
            node = await context.nodes.choose(room, region, refused)
        except errors.Overloaded as error:
            raise why or error from None
        try:
            await node.admit(room, identity, publishing)
        except errors.DeadlineExceeded:
            raise
        except errors.Overloaded as error:
            why = why or error
            refused.add(node.node_id)
        else:
            return node
    assert why is not None
    raise why


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

"""Sessions, their slots and events, and the nodes that hold them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Response

from relay.ports import SlotChange
from relay.stage.permissions import Action
from signaling import problems as p
from signaling.auth import CallerDep, ListenerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.events import EventStream
from signaling.ids import RoomId, SessionId
from signaling.nodes import ask_all
from signaling.openapi import EVENT_STREAM, may_fail
from signaling.rooms.service import listen, read_room
from signaling.sessions import service
from signaling.sessions.schemas import BaseList, ChangeSlot, NodeList, Session, SessionList, Slot, SlotList

router = APIRouter(tags=["sessions"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)
SlotIndex = Annotated[int, Path(ge=0, le=255, description="m-line order among the session's slots")]


@router.get(
    "/v1/rooms/{room}/sessions",
    response_model=SessionList,
    summary="List a room's sessions",
    description="Owners, moderators and services see all, others their own.",
    responses=may_fail(*_REFUSALS, p.RoomNotFound),
)
async def list_sessions(room: RoomId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    caller.enter(room)
    await read_room(context, room)
    return {"sessions": await service.visible(context, caller, room)}


@router.get(
    "/v1/sessions/{session}",
    response_model=Session,
    summary="Read a session",
    responses=may_fail(*_REFUSALS, p.SessionNotFound, p.NodeUnreachable),
)
async def read_session(session: SessionId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return (await service.open_session(context, caller, session, Action.READ_SESSION))[1]


@router.delete(
    "/v1/sessions/{session}",
    status_code=204,
    response_class=Response,
    summary="End a session",
    responses=may_fail(*_REFUSALS, p.SessionNotFound, p.NodeUnreachable),
)
async def end_session(session: SessionId, context: Ctx, caller: CallerDep) -> Response:
    node, _ = await service.open_session(context, caller, session, Action.CLOSE_SESSION)
    with service.session_errors():
        await node.close(session)
    return Response(status_code=204)


@router.get(
    "/v1/sessions/{session}/slots",
    response_model=SlotList,
    summary="List a session's slots",
    responses=may_fail(*_REFUSALS, p.SessionNotFound, p.NodeUnreachable),
)
async def list_slots(session: SessionId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    _, facts = await service.open_session(context, caller, session, Action.READ_SESSION)
    return {"slots": facts["slots"]}


@router.patch(
    "/v1/sessions/{session}/slots/{index}",
    response_model=Slot,
    summary="Re-bind, pause or cap a slot",
    openapi_extra=takes(ChangeSlot, {"publication": None, "max_layer": "h"}),
    responses=may_fail(
        *_REFUSALS,
        *_BODY,
        p.BadRequest,
        p.SessionNotFound,
        p.SlotNotFound,
        p.PublicationNotFound,
        p.Conflict,
        p.NodeUnreachable,
    ),
)
async def change_slot(
    session: SessionId,
    index: SlotIndex,
    context: Ctx,
    caller: CallerDep,
    body: Annotated[ChangeSlot, Depends(json_of(ChangeSlot))],
) -> dict[str, Any]:
    node, _ = await service.open_session(context, caller, session, Action.CHANGE_SLOT)
    with service.session_errors():
        return await node.change_slot(session, index, SlotChange(body.model_dump(exclude_unset=True)))


@router.get(
    "/v1/sessions/{session}/events",
    response_class=Response,
    summary="Follow a session's room and the session's own slot bindings",
    description="As `/v1/rooms/{room}/events`, with `slot.bound` of this session.",
    responses=EVENT_STREAM | may_fail(*_REFUSALS, p.SessionNotFound, p.RoomNotFound, p.EventsGone, p.NodeUnreachable),
)
async def session_events(
    session: SessionId,
    context: Ctx,
    caller: ListenerDep,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> EventStream:
    node, facts = await service.open_session(context, caller, session, Action.READ_SESSION)
    return await listen(context, caller, facts["room"], last_event_id, node=node, session=session)


@router.get(
    "/v1/bases",
    response_model=BaseList,
    tags=["nodes"],
    summary="List where else this API is",
    description="The base URLs of the relays that clients can reach themselves (`cluster.public_url`), the best "
    "first. A client that is sent nowhere by an answer goes there when the one that it asks does not answer any more; "
    "not every one of them knows every session (404).",
    responses=may_fail(p.MissingToken, p.InvalidToken),
)
async def list_bases(context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return {"bases": context.nodes.bases()}


@router.get(
    "/v1/nodes",
    response_model=NodeList,
    tags=["nodes"],
    summary="List the nodes and their load",
    responses=may_fail(p.MissingToken, p.InvalidToken, p.Forbidden),
)
async def list_nodes(context: Ctx, caller: CallerDep) -> dict[str, Any]:
    caller.require(Action.READ_NODES)
    return {"nodes": await ask_all(context.nodes, lambda node: node.status())}

"""Rooms: create, list, read, end; their events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response

from signaling import problems as p
from signaling.auth import CallerDep, ListenerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.events import EventStream
from signaling.ids import RoomId
from signaling.openapi import EVENT_STREAM, may_fail
from signaling.rooms import service
from signaling.rooms.schemas import AppEvent, CreateRoom, EventAccepted, Room, RoomList

router = APIRouter(tags=["rooms"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)
_EXAMPLE = {"id": "demo", "max_seats": 4, "stage_policy": "open"}


@router.post(
    "/v1/rooms",
    status_code=201,
    response_model=Room,
    summary="Create a room",
    description="A service, or an owner whose token names the room.",
    openapi_extra=takes(CreateRoom, _EXAMPLE),
    responses=may_fail(*_REFUSALS, *_BODY, p.RoomExists),
)
async def create_room(
    context: Ctx, caller: CallerDep, response: Response, body: Annotated[CreateRoom, Depends(json_of(CreateRoom))]
) -> dict[str, Any]:
    response.headers["Location"] = f"/v1/rooms/{body.id}"
    return await service.create(context, caller, body)


@router.get(
    "/v1/rooms",
    response_model=RoomList,
    summary="List rooms",
    description="A service sees all, others the room of their token.",
    responses=may_fail(p.MissingToken, p.InvalidToken),
)
async def list_rooms(context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return {"rooms": await service.list_rooms(context, caller)}


@router.get(
    "/v1/rooms/{room}",
    response_model=Room,
    summary="Read a room",
    description="While the store is away: the copy of a node that hosts the room, without those who only watch in "
    "`participants`. The header `Age` then says for how many seconds the store has been silent.",
    responses=may_fail(*_REFUSALS, p.RoomNotFound),
)
async def read_room(room: RoomId, context: Ctx, caller: CallerDep, response: Response) -> dict[str, Any]:
    return await service.show(context, caller, room, response)


@router.delete(
    "/v1/rooms/{room}",
    status_code=204,
    response_class=Response,
    summary="End a room and all its sessions",
    responses=may_fail(*_REFUSALS, p.RoomNotFound),
)
async def end_room(room: RoomId, context: Ctx, caller: CallerDep) -> Response:
    await service.end(context, caller, room)
    return Response(status_code=204)


@router.get(
    "/v1/rooms/{room}/events",
    response_class=Response,
    summary="Follow a room's events (Server-Sent Events)",
    description="`id` is the sync id; `Last-Event-ID` resumes after it without a hole. 410: it is too old, read the "
    "room's state and follow from its `sync_id`.",
    responses=EVENT_STREAM | may_fail(*_REFUSALS, p.RoomNotFound, p.EventsGone),
)
async def follow_events(
    room: RoomId, context: Ctx, caller: ListenerDep, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> EventStream:
    return await service.listen(context, caller, room, last_event_id)


@router.post(
    "/v1/rooms/{room}/events",
    status_code=202,
    response_model=EventAccepted,
    summary="Send an event of the application's own to all who follow the room",
    openapi_extra=takes(AppEvent, {"type": "app.cheer", "data": {"emoji": "👏"}}),
    responses=may_fail(*_REFUSALS, *_BODY, p.RoomNotFound),
)
async def send_event(
    room: RoomId, context: Ctx, caller: CallerDep, body: Annotated[AppEvent, Depends(json_of(AppEvent))]
) -> dict[str, str]:
    return {"sync_id": await service.send_event(context, caller, room, body)}

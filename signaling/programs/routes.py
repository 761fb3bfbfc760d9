"""The program of a room: switched on and off, and arranged."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from relay.stage import program as programs
from relay.stage.permissions import Action
from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.ids import RoomId
from signaling.openapi import may_fail
from signaling.programs.schemas import ChangeLayout, Program, PutProgram
from signaling.rooms.service import change_room, read_room

router = APIRouter(tags=["program"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom, p.RoomNotFound)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest, p.BadRequest)


@router.get(
    "/v1/rooms/{room}/program",
    response_model=Program,
    response_model_exclude_unset=True,
    summary="Read the program",
    responses=may_fail(*_REFUSALS, p.ProgramNotFound),
)
async def read_program(room: RoomId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    caller.enter(room)
    caller.require(Action.READ_ROOM)
    return programs.program_view(await read_room(context, room))


@router.put(
    "/v1/rooms/{room}/program",
    response_model=Program,
    response_model_exclude_unset=True,
    summary="Switch the program on, or change it",
    description="Owners and moderators. Another size, rate or codec begins the picture anew.",
    openapi_extra=takes(PutProgram, {"layout": {"kind": "grid"}, "fps": 30}),
    responses=may_fail(*_REFUSALS, *_BODY, p.CodecNotAllowed),
)
async def put_program(
    room: RoomId, context: Ctx, caller: CallerDep, body: Annotated[PutProgram, Depends(json_of(PutProgram))]
) -> dict[str, Any]:
    caller.enter(room)
    now = context.wall()
    form = programs.Form(body.width or 0, body.height or 0, body.fps or 0, body.codec, body.bitrate_bps or 0)
    layout = None if body.layout is None else body.layout.made()
    state = await change_room(
        context,
        room,
        lambda state: programs.switch_on(state, caller.actor, now, form=form, layout=layout, names=body.names),
    )
    return programs.program_view(state)


@router.delete(
    "/v1/rooms/{room}/program",
    status_code=204,
    response_class=Response,
    summary="Switch the program off",
    description="Owners and moderators.",
    responses=may_fail(*_REFUSALS, p.ProgramNotFound),
)
async def delete_program(room: RoomId, context: Ctx, caller: CallerDep) -> Response:
    caller.enter(room)
    now = context.wall()
    await change_room(context, room, lambda state: programs.switch_off(state, caller.actor, now))
    return Response(status_code=204)


@router.post(
    "/v1/rooms/{room}/program/layout",
    response_model=Program,
    response_model_exclude_unset=True,
    summary="Arrange the program, on a frame of one's choice",
    description="Owners and moderators. All of a change is on the first frame whose sync id is at least `at`.",
    openapi_extra=takes(ChangeLayout, {"layout": {"kind": "speaker", "order": ["alice"]}, "animate": 12}),
    responses=may_fail(*_REFUSALS, *_BODY, p.ProgramNotFound),
)
async def change_layout(
    room: RoomId, context: Ctx, caller: CallerDep, body: Annotated[ChangeLayout, Depends(json_of(ChangeLayout))]
) -> dict[str, Any]:
    caller.enter(room)
    now, at, layout = context.wall(), int(body.at or 0), body.layout.made()
    state = await change_room(
        context,
        room,
        lambda state: programs.change_layout(state, caller.actor, now, layout, at=at, animate=body.animate),
    )
    return programs.program_view(state)

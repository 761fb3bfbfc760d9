"""PKs: two rooms show both stages, with a score and a timer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.ids import PkId, RoomId
from signaling.openapi import may_fail
from signaling.pk import service
from signaling.pk.schemas import InviteRoom, Pk, RoomPk, Score

router = APIRouter(tags=["pk"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom, p.RoomNotFound)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)


@router.get("/v1/rooms/{room}/pk", response_model=RoomPk, summary="Read a room's PKs", responses=may_fail(*_REFUSALS))
async def read_pks(room: RoomId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.show(context, caller, room)


@router.post(
    "/v1/rooms/{room}/pk",
    status_code=201,
    response_model=Pk,
    summary="Invite another room to a PK",
    description="Owners and moderators. Both rooms hear `pk.invited`; an invitation is open for a minute.",
    openapi_extra=takes(InviteRoom, {"room": "blue", "duration_s": 300, "countdown_s": 3}),
    responses=may_fail(*_REFUSALS, *_BODY, p.PkSameRoom, p.RoomFull),
)
async def invite_room(
    room: RoomId, context: Ctx, caller: CallerDep, body: Annotated[InviteRoom, Depends(json_of(InviteRoom))]
) -> dict[str, Any]:
    return await service.invite(context, caller, room, body)


@router.post(
    "/v1/rooms/{room}/pk/{pk}/accept",
    response_model=Pk,
    summary="Accept an invitation to a PK",
    description="Owners and moderators of the invited room. Both rooms hear `pk.started` and show both stages from "
    "`starts_at` to `ends_at`, or neither does.",
    responses=may_fail(*_REFUSALS, p.PkNotFound, p.PkOver, p.PkBusy),
)
async def accept_pk(room: RoomId, pk: PkId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.accept(context, caller, room, pk)


@router.post(
    "/v1/rooms/{room}/pk/{pk}/decline",
    response_model=Pk,
    summary="Decline an invitation to a PK, or withdraw one",
    responses=may_fail(*_REFUSALS, p.PkNotFound, p.PkOver),
)
async def decline_pk(room: RoomId, pk: PkId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.decline(context, caller, room, pk)


@router.post(
    "/v1/rooms/{room}/pk/{pk}/score",
    response_model=Pk,
    summary="Give the room's side points",
    description="Owner, guests, moderators and services, from `starts_at` to `ends_at`. Both rooms hear `pk.scored`.",
    openapi_extra=takes(Score, {"points": 10}),
    responses=may_fail(*_REFUSALS, *_BODY, p.BadRequest, p.PkNotFound, p.PkNotRunning),
)
async def score_pk(
    room: RoomId, pk: PkId, context: Ctx, caller: CallerDep, body: Annotated[Score, Depends(json_of(Score))]
) -> dict[str, Any]:
    return await service.score(context, caller, room, pk, body)


@router.post(
    "/v1/rooms/{room}/pk/{pk}/end",
    response_model=Pk,
    summary="End a PK in both rooms",
    description="Owner, guests, moderators and services of either room. One that is over stays as it ended.",
    responses=may_fail(*_REFUSALS, p.PkNotFound),
)
async def end_pk(room: RoomId, pk: PkId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.end(context, caller, room, pk)

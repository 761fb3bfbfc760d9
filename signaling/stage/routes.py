"""The stage: seats and invitations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.ids import Identity, RoomId
from signaling.openapi import may_fail
from signaling.stage import service
from signaling.stage.schemas import Accepted, ChangeSeat, Invite, Stage

router = APIRouter(tags=["stage"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom, p.RoomNotFound)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)


@router.get("/v1/rooms/{room}/stage", response_model=Stage, summary="Read the stage", responses=may_fail(*_REFUSALS))
async def read_stage(room: RoomId, context: Ctx, caller: CallerDep, response: Response) -> dict[str, Any]:
    return await service.show(context, caller, room, response)


@router.post(
    "/v1/rooms/{room}/stage/invitations",
    status_code=201,
    response_model=Stage,
    summary="Invite somebody to the stage",
    description="Owners and moderators.",
    openapi_extra=takes(Invite, {"identity": "bob"}),
    responses=may_fail(*_REFUSALS, *_BODY, p.Banned, p.AlreadyOnAir, p.RoomFull),
)
async def invite(
    room: RoomId, context: Ctx, caller: CallerDep, body: Annotated[Invite, Depends(json_of(Invite))]
) -> dict[str, Any]:
    return await service.invite(context, caller, room, body.identity)


@router.post(
    "/v1/rooms/{room}/stage/invitations/{identity}/accept",
    response_model=Accepted,
    summary="Accept an invitation",
    description="The invited one, or a moderator for it. The token answered publishes.",
    responses=may_fail(*_REFUSALS, p.InvitationNotFound, p.Banned, p.SeatTaken),
)
async def accept(room: RoomId, identity: Identity, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.accept(context, caller, room, identity)


@router.post(
    "/v1/rooms/{room}/stage/invitations/{identity}/decline",
    response_model=Stage,
    summary="Decline or withdraw an invitation",
    responses=may_fail(*_REFUSALS, p.InvitationNotFound),
)
async def decline(room: RoomId, identity: Identity, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.decline(context, caller, room, identity)


@router.put(
    "/v1/rooms/{room}/stage/seats/{identity}",
    response_model=Stage,
    summary="Go on air or backstage",
    description="The one who sits there; owners and moderators for others.",
    openapi_extra=takes(ChangeSeat, {"state": "on_air"}),
    responses=may_fail(
        *_REFUSALS, *_BODY, p.ParticipantNotFound, p.NotAHost, p.InvitationNeeded, p.SeatTaken, p.RoomFull
    ),
)
async def change_seat(
    room: RoomId,
    identity: Identity,
    context: Ctx,
    caller: CallerDep,
    body: Annotated[ChangeSeat, Depends(json_of(ChangeSeat))],
) -> dict[str, Any]:
    return await service.change_seat(context, caller, room, identity, body.state)


@router.delete(
    "/v1/rooms/{room}/stage/seats/{identity}",
    response_model=Stage,
    summary="Leave the stage, or take somebody off it",
    responses=may_fail(*_REFUSALS, p.ParticipantNotFound),
)
async def leave(room: RoomId, identity: Identity, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return await service.leave(context, caller, room, identity)

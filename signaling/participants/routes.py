"""Participants: list, role, mute, kick."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.ids import Identity, RoomId
from signaling.openapi import may_fail
from signaling.participants import service
from signaling.participants.schemas import ChangeParticipant, Participant, ParticipantList

router = APIRouter(tags=["participants"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom, p.RoomNotFound)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)
BanSeconds = Annotated[int, Query(ge=0, le=86_400, description="Seconds that the identity is kept out")]


@router.get(
    "/v1/rooms/{room}/participants",
    response_model=ParticipantList,
    summary="List participants",
    responses=may_fail(*_REFUSALS),
)
async def list_participants(room: RoomId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
    return {"participants": await service.list_participants(context, caller, room)}


@router.patch(
    "/v1/rooms/{room}/participants/{identity}",
    response_model=Participant,
    summary="Change a role, mute or unmute",
    description="Owners and moderators mute; anyone mutes itself; only owners change roles.",
    openapi_extra=takes(ChangeParticipant, {"muted": {"audio": True}}),
    responses=may_fail(*_REFUSALS, *_BODY, p.ParticipantNotFound, p.OwnerRole, p.RoomFull),
)
async def change_participant(
    room: RoomId,
    identity: Identity,
    context: Ctx,
    caller: CallerDep,
    body: Annotated[ChangeParticipant, Depends(json_of(ChangeParticipant))],
) -> dict[str, Any]:
    return await service.change(context, caller, room, identity, body)


@router.delete(
    "/v1/rooms/{room}/participants/{identity}",
    status_code=204,
    response_class=Response,
    summary="Remove somebody and keep it out for a while",
    description="Owners and moderators; an owner cannot be removed.",
    responses=may_fail(*_REFUSALS, p.ParticipantNotFound),
)
async def kick(room: RoomId, identity: Identity, context: Ctx, caller: CallerDep, ban_s: BanSeconds = 60) -> Response:
    await service.kick(context, caller, room, identity, ban_s)
    return Response(status_code=204)

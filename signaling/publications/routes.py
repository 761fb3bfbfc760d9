"""Publications: list, mute, end."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.ids import PublicationId, RoomId
from signaling.openapi import may_fail
from signaling.publications import service
from signaling.publications.schemas import ChangePublication, Publication, PublicationList

router = APIRouter(tags=["publications"])

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom, p.RoomNotFound)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)


@router.get(
    "/v1/rooms/{room}/publications",
    response_model=PublicationList,
    summary="List publications",
    responses=may_fail(*_REFUSALS),
)
async def list_publications(room: RoomId, context: Ctx, caller: CallerDep, response: Response) -> dict[str, Any]:
    return {"publications": await service.list_publications(context, caller, room, response)}


@router.patch(
    "/v1/rooms/{room}/publications/{publication}",
    response_model=Publication,
    summary="Mute or unmute a publication",
    description="Its publisher; owners and moderators for others.",
    openapi_extra=takes(ChangePublication, {"muted": True}),
    responses=may_fail(*_REFUSALS, *_BODY, p.PublicationNotFound),
)
async def change_publication(
    room: RoomId,
    publication: PublicationId,
    context: Ctx,
    caller: CallerDep,
    body: Annotated[ChangePublication, Depends(json_of(ChangePublication))],
) -> dict[str, Any]:
    return await service.mute(context, caller, room, publication, muted=body.muted)


@router.delete(
    "/v1/rooms/{room}/publications/{publication}",
    status_code=204,
    response_class=Response,
    summary="End a publication",
    responses=may_fail(*_REFUSALS, p.PublicationNotFound, p.ProgramPublication),
)
async def end_publication(room: RoomId, publication: PublicationId, context: Ctx, caller: CallerDep) -> Response:
    await service.end(context, caller, room, publication)
    return Response(status_code=204)

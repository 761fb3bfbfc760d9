"""Egress of a room: HLS, recordings, RTMP pushes; and where its HLS plays."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from relay.egress.events import EgressRequest
from relay.errors import BadRequest
from relay.stage.permissions import Action
from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.egress import tickets
from signaling.egress.control import RoomEgress
from signaling.egress.schemas import Egress, EgressList, Playback, StartEgress
from signaling.ids import RESOURCE_PATTERN, RoomId
from signaling.openapi import may_fail
from signaling.rooms.service import read_room

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)
EgressId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.~-]{1,100}$", description="An egress's id")]
Source = Annotated[str, Query(pattern=RESOURCE_PATTERN, description='"program", a publication\'s id or an identity')]


def build(control: RoomEgress, ticket_s: int) -> APIRouter:
    """The routes that manage egress by `control`. Tickets for HLS live for `ticket_s` seconds."""
    router = APIRouter(tags=["egress"])

    async def find(room: str, egress: str) -> dict[str, Any]:
        facts = await control.read(egress)
        if facts["room"] != room:
            raise p.EgressNotFound(f"no egress {egress!r} here")
        return facts

    @router.post(
        "/v1/rooms/{room}/egress",
        status_code=201,
        response_model=Egress,
        summary="Start HLS, a recording or an RTMP push",
        openapi_extra=takes(StartEgress, {"kind": "hls"}),
        responses=may_fail(
            *_REFUSALS,
            *_BODY,
            p.BadRequest,
            p.TargetNotAllowed,
            p.RoomNotFound,
            p.PublicationNotFound,
            p.EgressExists,
            p.Overloaded,
            p.NodeUnreachable,
        ),
    )
    async def start_egress(
        room: RoomId,
        context: Ctx,
        caller: CallerDep,
        response: Response,
        body: Annotated[StartEgress, Depends(json_of(StartEgress))],
    ) -> dict[str, Any]:
        caller.enter(room)
        caller.require(Action.MANAGE_EGRESS)
        if (body.url is not None) != (body.kind == "rtmp"):
            raise BadRequest("url goes with kind rtmp, and only with it")
        state = await read_room(context, room)
        facts = await control.start(EgressRequest(room, body.kind, body.source, body.url or ""), state)
        response.headers["Location"] = f"/v1/rooms/{room}/egress/{facts['id']}"
        return facts

    @router.get(
        "/v1/rooms/{room}/egress",
        response_model=EgressList,
        summary="List a room's egress, the last that ended included",
        responses=may_fail(*_REFUSALS, p.RoomNotFound, p.NodeUnreachable),
    )
    async def list_egress(room: RoomId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
        caller.enter(room)
        caller.require(Action.MANAGE_EGRESS)
        await read_room(context, room)
        return {"egress": await control.of_room(room)}

    @router.get(
        "/v1/rooms/{room}/egress/{egress}",
        response_model=Egress,
        summary="Read an egress",
        responses=may_fail(*_REFUSALS, p.EgressNotFound, p.NodeUnreachable),
    )
    async def read_egress(room: RoomId, egress: EgressId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
        caller.enter(room)
        caller.require(Action.MANAGE_EGRESS)
        return await find(room, egress)

    @router.delete(
        "/v1/rooms/{room}/egress/{egress}",
        response_model=Egress,
        summary="Stop an egress",
        description="Returns how it ended. One that has ended already stays as it is.",
        responses=may_fail(*_REFUSALS, p.EgressNotFound, p.NodeUnreachable),
    )
    async def stop_egress(room: RoomId, egress: EgressId, context: Ctx, caller: CallerDep) -> dict[str, Any]:
        caller.enter(room)
        caller.require(Action.MANAGE_EGRESS)
        await find(room, egress)
        return await control.stop(egress)

    @router.get(
        "/v1/rooms/{room}/hls",
        response_model=Playback,
        summary="Where the room's HLS plays",
        responses=may_fail(*_REFUSALS, p.RoomNotFound, p.EgressNotFound, p.NodeUnreachable),
    )
    async def playback(room: RoomId, context: Ctx, caller: CallerDep, source: Source = "program") -> dict[str, Any]:
        caller.enter(room)
        caller.require(Action.WATCH)
        await read_room(context, room)
        player = await control.find_hls(room, source)
        # No ticket outlives the token it was given for by more than a request.
        expires = min(int(context.wall()) + ticket_s, caller.expires)
        ticket = tickets.make(context.settings.auth.keys, player.egress, expires)
        date = datetime.datetime.fromtimestamp(expires, datetime.UTC).isoformat(timespec="seconds")
        url = f"{player.base}/hls/{ticket}/{player.egress}/index.m3u8"
        return {"egress": player.egress, "url": url, "expires": date}

    return router

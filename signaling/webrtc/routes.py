"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): endpoints that take offers, and the resources they make."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from relay import errors
from relay.stage.permissions import Action
from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import FRAGMENT, SDP, read_text, require_type
from signaling.context import Ctx
from signaling.ids import RoomId, SessionId
from signaling.nodes import Node
from signaling.openapi import SECURITY, may_fail
from signaling.sessions.service import open_resource, session_errors
from signaling.webrtc.service import join

EVENTS_RELATION = "urn:ietf:params:whep:ext:core:server-sent-events"
_MAX_TAGS = 8

_TEXT_EXAMPLE = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\n…"
_FRAGMENT_EXAMPLE = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n…"
_SDP_BODY = {
    "requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}, "example": _TEXT_EXAMPLE}}}
}
_FRAGMENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {FRAGMENT: {"schema": {"type": "string"}, "example": _FRAGMENT_EXAMPLE}},
    }
}
_TEXT_HEADER = {"schema": {"type": "string"}}
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The answer; Location names the resource",
        "content": {SDP: {"schema": {"type": "string"}}},
        "headers": dict.fromkeys(("Location", "ETag", "Link", "Accept-Patch"), _TEXT_HEADER),
    }
}
_MOVED: dict[int | str, dict[str, Any]] = {
    307: {
        "description": "Offer to the node in Location, with the same token (RFC 9725 section 4.6)",
        "headers": {"Location": _TEXT_HEADER},
    }
}
_RESTARTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "ICE restarted",
        "content": {FRAGMENT: {"schema": {"type": "string"}}},
        "headers": {"ETag": _TEXT_HEADER},
    },
    204: {"description": "Candidates taken"},
}
_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden, p.WrongRoom)
_OFFER_PROBLEMS = may_fail(
    *_REFUSALS,
    p.MalformedBody,
    p.BadOffer,
    p.Banned,
    p.RoomNotFound,
    p.NotAcceptable,
    p.Conflict,
    p.CodecNotAllowed,
    p.TooManyPublications,
    p.TooManyMixes,
    p.RoomFull,
    p.SeatTaken,
    p.BodyTooLarge,
    p.UnsupportedMediaType,
    p.UnacceptableOffer,
    p.Overloaded,
    p.NodeUnreachable,
    p.Draining,
)
_PATCH_PROBLEMS = may_fail(
    *_REFUSALS,
    p.MalformedBody,
    p.BadOffer,
    p.SessionNotFound,
    p.PreconditionFailed,
    p.BodyTooLarge,
    p.UnsupportedMediaType,
    p.PreconditionRequired,
    p.NodeUnreachable,
)


Plays = Literal["stage", "program"]
_PLAY = "WHEP: what the slots play by themselves; the other is there for slots that are pinned to it"
Sounds = Literal["voices", "mix"]
_SOUND = (
    "WHEP: what slots for sound play by themselves. `voices`: each one voice, or the program's sound. `mix`: the first "
    "one everybody who is heard, without the viewer himself if he is a host; the others play what they are pinned to"
)


def build(name: str, kind: str, tag: str) -> APIRouter:
    """Return the routes of `/whip/…` (name "whip", kind "publisher") or `/whep/…` ("whep", "viewer")."""
    router = APIRouter(tags=[tag])
    resource = f"/{name}/{{room}}/{{session}}"
    verb = "Publish to" if kind == "publisher" else "Watch"

    @router.post(
        f"/{name}/{{room}}",
        status_code=201,
        response_class=Response,
        summary=f"{verb} a room",
        operation_id=f"{name}_offer",
        openapi_extra={"security": SECURITY, **_SDP_BODY},
        responses=_CREATED | _MOVED | _OFFER_PROBLEMS,
    )
    async def offer(
        room: RoomId,
        request: Request,
        context: Ctx,
        play: Annotated[Plays | None, Query(description=_PLAY)] = None,
        sound: Annotated[Sounds | None, Query(description=_SOUND)] = None,
    ) -> Response:
        publishing = kind == "publisher"
        if publishing and (play or sound):
            raise p.InvalidParameter("play and sound are for WHEP")
        wish = {"program": play == "program", "one_sound": sound == "mix"}
        answer = await join(request, context, room, publishing=publishing, **wish)
        if isinstance(answer, str):
            return Response(status_code=307, headers={"Location": answer, "Cache-Control": "no-store"})
        headers = {
            "Location": f"/{name}/{room}/{answer.session}",
            "ETag": quote_tag(answer.etag),
            "Accept-Patch": FRAGMENT,
        }
        if kind == "viewer":
            headers["Link"] = f'</v1/sessions/{answer.session}/events>; rel="{EVENTS_RELATION}"; events="slot.bound"'
        return Response(answer.sdp, 201, headers, media_type=SDP)

    @router.patch(
        resource,
        status_code=204,
        response_class=Response,
        summary="Add candidates or restart ICE",
        operation_id=f"{name}_patch",
        openapi_extra=_FRAGMENT_BODY,
        responses=_RESTARTED | _PATCH_PROBLEMS,
    )
    async def patch(
        room: RoomId,
        session: SessionId,
        request: Request,
        context: Ctx,
        caller: CallerDep,
        if_match: Annotated[str | None, Header(max_length=512)] = None,
    ) -> Response:
        node = await open_resource(context, caller, room, session, kind, Action.CLOSE_SESSION)
        require_type(request, FRAGMENT)
        fragment = await read_text(request, context.limits.offer_bytes)
        with session_errors():
            restarted = await _trickle(node, session, fragment, if_match)
        if restarted is None:
            return Response(status_code=204)
        return Response(restarted.sdp, 200, {"ETag": quote_tag(restarted.etag)}, media_type=FRAGMENT)

    @router.get(
        resource,
        status_code=204,
        response_class=Response,
        summary="Whether the resource is there",
        operation_id=f"{name}_probe",
        responses=may_fail(*_REFUSALS, p.SessionNotFound, p.NodeUnreachable),
    )
    @router.head(
        resource,
        status_code=204,
        response_class=Response,
        summary="Whether the resource is there",
        operation_id=f"{name}_probe_head",
        responses=may_fail(*_REFUSALS, p.SessionNotFound, p.NodeUnreachable),
    )
    async def probe(room: RoomId, session: SessionId, context: Ctx, caller: CallerDep) -> Response:
        await open_resource(context, caller, room, session, kind, Action.READ_SESSION)
        return Response(status_code=204, headers={"Accept-Patch": FRAGMENT})

    @router.delete(
        resource,
        status_code=200,
        response_class=Response,
        summary="End the session",
        operation_id=f"{name}_end",
        responses=may_fail(*_REFUSALS, p.SessionNotFound, p.NodeUnreachable),
    )
    async def end(room: RoomId, session: SessionId, context: Ctx, caller: CallerDep) -> Response:
        node = await open_resource(context, caller, room, session, kind, Action.CLOSE_SESSION)
        with session_errors():
            await node.close(session)
        return Response(status_code=200)  # not 204: OBS takes anything but 200 for a failure

    return router


def quote_tag(tag: str) -> str:
    """Return a strong entity tag (RFC 9110 section 8.8.3)."""
    return tag if tag.startswith('"') else f'"{tag}"'


def tags_of(if_match: str | None) -> list[str | None]:
    """Return what If-Match lists: `*`, or opaque tags without quotes. A weak one keeps its `W/` and never matches."""
    if if_match is None or not if_match.strip():
        return [None]
    return [part.strip().removeprefix('"').removesuffix('"') for part in if_match.split(",")[:_MAX_TAGS]]


async def _trickle(node: Node, session: str, fragment: str, if_match: str | None) -> Any:
    """Hand a fragment to the node, trying each tag that If-Match lists: one match is enough."""
    *others, last = tags_of(if_match)
    for tag in others:
        try:
            return await node.trickle(session, fragment, tag)
        except errors.PreconditionFailed:
            continue
    return await node.trickle(session, fragment, last)

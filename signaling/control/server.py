"""The control API of a relay: what `signaling.nodes.Node` says, over HTTP, for a signaling service that runs apart.

Callers show a service token for room `*` whose `aud` names this very node (`tokens.CONTROL_AUDIENCE`): neither a
backend's token passes nor one that was made for another node. It is no part of the public API and of its document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent

from relay import errors
from relay.guards import DEADLINE_HEADER, LONGEST_S, read_deadline, remaining, within
from relay.ports import Offer, RoomEvent, SlotChange
from signaling import tokens
from signaling.auth import ANY_ROOM, address_of, bearer_token, count
from signaling.bodies import JSON, read_bytes, require_type
from signaling.context import Context, Ctx, Drain
from signaling.control.wire import (
    NODE_DRAINING,
    PING_S,
    PREFIX,
    Body,
    EventBody,
    FragmentBody,
    OfferBody,
    SlotBody,
    error_member,
)
from signaling.ids import RoomId, SessionId
from signaling.nodes import Node
from signaling.problems import (
    InternalError,
    InvalidParameter,
    InvalidRequest,
    InvalidToken,
    MissingToken,
    on_bug,
    problem_of,
    respond,
)

SEND_TIMEOUT_S = 10.0
_ESCAPES = 6  # a character of an SDP takes up to six in JSON (\\u0000)
_MARGIN_BYTES = 4096

Model = TypeVar("Model", bound=Body)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Route(APIRoute):
    """Keeps the caller's deadline, and gives every error the member from which the other end makes it again."""

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                with within(_time_left(request)):
                    remaining(LONGEST_S)  # the caller may have given up before this process had time for it
                    return await handle(request)
            except errors.CostreamError as error:
                problem = problem_of(error)
                if problem is None:
                    await on_bug(request, error)  # logs it under an incident
                    problem = InternalError("see the node's log")
                problem.members["error"] = error_member(error)
                return respond(problem, request)

        return handler


def build(node: Node) -> APIRouter:
    """Return the routes, which ask `node`."""

    async def check(request: Request, context: Ctx) -> None:
        """Raise MissingToken, InvalidToken, RateLimited. Only failures are counted: callers are few and trusted."""
        token = bearer_token(request)
        if token is None:
            count(context, f"address {address_of(request)}")
            raise MissingToken("a token for this node's control API", headers={"WWW-Authenticate": "Bearer"})
        try:
            _verify(token, context, node)
        except tokens.InvalidToken as error:
            count(context, f"address {address_of(request)}")
            raise InvalidToken(str(error), headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}) from None

    router = APIRouter(
        prefix=PREFIX, route_class=_Route, dependencies=[Depends(check)], include_in_schema=False, tags=["control"]
    )
    _add_joining(router, node)
    _add_sessions(router, node)
    _add_reads(router, node)
    return router


def _verify(token: str, context: Context, node: Node) -> None:
    audience = tokens.CONTROL_AUDIENCE + node.node_id
    claims = tokens.verify(token, context.settings.auth.keys, context.wall(), audience)
    if claims.role != "service" or claims.room != ANY_ROOM:
        raise tokens.InvalidToken("the token is not a service's for all rooms")


def _add_joining(router: APIRouter, node: Node) -> None:
    def route(path: str, answer: Callable[[Offer], Awaitable[Any]]) -> None:
        @router.post(path)
        async def offer(request: Request, context: Ctx) -> Any:
            body = await _read(OfferBody, request, context.limits.offer_bytes * _ESCAPES)
            remaining(LONGEST_S)  # nobody waits for a session that is opened after the deadline
            return asdict(await answer(Offer(**body.model_dump())))

    route("/publish", node.publish)
    route("/watch", node.watch)

    @router.get("/admission", status_code=204)
    async def admission(
        room: Annotated[str, Query()], identity: Annotated[str, Query()], publishing: Annotated[bool, Query()]
    ) -> Response:
        await node.admit(room, identity, publishing)
        return Response(status_code=204)


def _add_sessions(router: APIRouter, node: Node) -> None:
    @router.get("/sessions")
    async def sessions(room: Annotated[str | None, Query()] = None) -> Any:
        return {"sessions": await node.sessions(room)}

    @router.get("/sessions/{session}")
    async def read(session: SessionId) -> Any:
        return await node.session(session)

    @router.delete("/sessions/{session}", status_code=204)
    async def close(session: SessionId) -> Response:
        await node.close(session)
        return Response(status_code=204)

    @router.post("/sessions/{session}/trickle")
    async def trickle(session: SessionId, request: Request, context: Ctx) -> Any:
        body = await _read(FragmentBody, request, context.limits.offer_bytes * _ESCAPES)
        restarted = await node.trickle(session, body.fragment, body.etag)
        return {"restarted": None if restarted is None else asdict(restarted)}

    @router.patch("/sessions/{session}/slots/{index}")
    async def change_slot(session: SessionId, index: int, request: Request) -> Any:
        body = await _read(SlotBody, request, _MARGIN_BYTES)
        return await node.change_slot(session, index, SlotChange(body.changes))

    @router.get("/sessions/{session}/events")
    async def events(session: SessionId, context: Ctx) -> Response:
        source = await node.session_events(session)
        return EventSourceResponse(
            _messages(source, context.drain),
            ping=PING_S,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            send_timeout=SEND_TIMEOUT_S,
            sep="\n",
        )


def _add_reads(router: APIRouter, node: Node) -> None:
    @router.get("/status")
    async def status() -> Any:
        return await node.status()

    @router.get("/links")
    async def links() -> Any:
        return {"links": await node.links()}

    @router.post("/links/{link}/{action}")
    async def change_link(link: str, action: str) -> Any:
        return await node.change_link(link, action)

    @router.get("/rooms/{room}")
    async def knows(room: RoomId) -> Any:
        return {"document": await node.knows(room)}

    @router.get("/rooms/{room}/speaker")
    async def speaker(room: RoomId) -> Any:
        return {"identity": await node.active_speaker(room)}


async def _messages(source: AsyncIterator[RoomEvent], drain: Drain) -> AsyncIterator[ServerSentEvent]:
    """Yield a comment once the source is being followed, then its events, `node.draining` when the node drains, and
    `end`: what ends without it was cut."""
    draining: asyncio.Future[Any] | None = asyncio.ensure_future(drain.began.wait())
    stopping = asyncio.ensure_future(drain.ended.wait())
    following = asyncio.ensure_future(_next(source))
    try:
        await asyncio.sleep(0)  # lets it come to where it waits
        yield ServerSentEvent(comment="following", sep="\n")
        while True:
            waiting = {following, stopping} | ({draining} if draining is not None else set())
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if draining is not None and draining.done():
                draining = None
                yield ServerSentEvent(EventBody(sync_id=0, type=NODE_DRAINING, data={}).model_dump_json(), sep="\n")
                continue
            if not following.done():
                return
            event = following.result()
            if event is None:
                break
            body = EventBody(sync_id=event.sync_id, type=event.type, data=event.data)
            yield ServerSentEvent(body.model_dump_json(), sep="\n")
            following = asyncio.ensure_future(_next(source))
        yield ServerSentEvent("{}", event="end", sep="\n")
    finally:
        ending = [stopping, following, *([draining] if draining is not None else [])]
        for each in ending:
            each.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


def _time_left(request: Request) -> float:
    """Return the seconds that the caller will still wait. Raises InvalidParameter."""
    try:
        return read_deadline(request.headers.get(DEADLINE_HEADER))
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


async def _next(source: AsyncIterator[RoomEvent]) -> RoomEvent | None:
    return await anext(source, None)


async def _read(model: type[Model], request: Request, limit: int) -> Model:
    """Read a JSON body. Raises UnsupportedMediaType, BodyTooLarge, InvalidRequest."""
    require_type(request, JSON)
    body = await read_bytes(request, limit + _MARGIN_BYTES)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(str(error.errors(include_url=False, include_input=False)[0]["msg"])) from None

"""Problems: every failure of the API as RFC 9457, one class for each, with a `type` that never changes."""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from relay import errors

TYPE_BASE = "https://costream.dev/problems/"
MEDIA_TYPE = "application/problem+json"
API = ("/v1/", "/whip/", "/whep/")
_MAX_DETAIL = 500  # a detail may quote the request; nobody gets megabytes back

_log = structlog.get_logger(__name__)


class Problem(Exception):
    """A failure that the client is told about. Subclasses fix status and title; their name makes the `type`."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = (detail or self.title)[:_MAX_DETAIL]
        self.headers = headers or {}
        self.members = members

    @classmethod
    def name(cls) -> str:
        """The last part of the `type`, e.g. `room-not-found`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def body(self, instance: str) -> dict[str, Any]:
        """Return the JSON members of RFC 9457 section 3.1 and this problem's own."""
        return {
            "type": TYPE_BASE + self.name(),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            **self.members,
        }


class MalformedBody(Problem):
    status, title = 400, "The body is not well-formed JSON or SDP"


class InvalidParameter(Problem):
    status, title = 400, "A parameter in the path, query or header is invalid"


class BadRequest(Problem):
    status, title = 400, "The request cannot be served as asked"


class TargetNotAllowed(Problem):
    status, title = 400, "The address is not allowed"


class BadOffer(Problem):
    status, title = 400, "The SDP is malformed"


class MissingToken(Problem):
    status, title = 401, "A bearer token is needed"


class InvalidToken(Problem):
    status, title = 401, "The bearer token is not valid"


class Forbidden(Problem):
    status, title = 403, "The token's role may not do this"


class WrongRoom(Problem):
    status, title = 403, "The token is for another room"


class Banned(Problem):
    status, title = 403, "This identity was removed from the room"


class NotFound(Problem):
    status, title = 404, "Nothing is here"


class RoomNotFound(Problem):
    status, title = 404, "There is no such room"


class ParticipantNotFound(Problem):
    status, title = 404, "There is no such participant"


class InvitationNotFound(Problem):
    status, title = 404, "There is no open invitation"


class PublicationNotFound(Problem):
    status, title = 404, "There is no such publication"


class SessionNotFound(Problem):
    status, title = 404, "There is no such session"


class SlotNotFound(Problem):
    status, title = 404, "There is no such slot"


class LinkNotFound(Problem):
    status, title = 404, "There is no such link"


class ProgramNotFound(Problem):
    status, title = 404, "The room has no program"


class PkNotFound(Problem):
    status, title = 404, "There is no such PK"


class EgressNotFound(Problem):
    status, title = 404, "There is no such egress"


class WebhookNotFound(Problem):
    status, title = 404, "There is no such webhook"


class MethodNotAllowed(Problem):
    status, title = 405, "The resource does not know this method"


class NotAcceptable(Problem):
    status, title = 406, "The answer cannot be given in an accepted type"


class Conflict(Problem):
    status, title = 409, "The present state does not allow this"


class RoomExists(Problem):
    status, title = 409, "The room exists already"


class SeatTaken(Problem):
    status, title = 409, "All seats are taken"


class RoomFull(Problem):
    status, title = 409, "The room holds no more of these"


class AlreadyOnAir(Problem):
    status, title = 409, "The participant is on air already"


class NotAHost(Problem):
    status, title = 409, "The participant's role has no seat on the stage"


class InvitationNeeded(Problem):
    status, title = 409, "The stage is by invitation"


class OwnerRole(Problem):
    status, title = 409, "The role of owner comes from a token"


class CodecNotAllowed(Problem):
    status, title = 409, "The room does not carry this codec"


class TooManyPublications(Problem):
    status, title = 409, "The participant offers too many tracks"


class ProgramPublication(Problem):
    status, title = 409, "The program's tracks end with the program"


class TooManyMixes(Problem):
    status, title = 409, "As many hosts as may hear one sound only"


class TooManyWebhooks(Problem):
    status, title = 409, "There are as many webhooks as there may be"


class WebhookInSettings(Problem):
    status, title = 409, "The webhook stands in the settings and is changed there"


class EgressExists(Problem):
    status, title = 409, "The same egress runs already"


class PkSameRoom(Problem):
    status, title = 409, "A room cannot have a PK with itself"


class PkBusy(Problem):
    status, title = 409, "One of the rooms is in another PK"


class PkOver(Problem):
    status, title = 409, "The invitation to the PK is over"


class PkNotRunning(Problem):
    status, title = 409, "The PK is not running now"


class EventsGone(Problem):
    status, title = 410, "The events asked for are no longer kept"


class PreconditionFailed(Problem):
    status, title = 412, "The entity tag is not the current one"


class BodyTooLarge(Problem):
    status, title = 413, "The body is too large"


class UnsupportedMediaType(Problem):
    status, title = 415, "The body's media type is not taken here"


class InvalidRequest(Problem):
    status, title = 422, "The body has wrong, missing or unknown fields"


class UnacceptableOffer(Problem):
    status, title = 422, "Nothing in the offer can be answered"


class PreconditionRequired(Problem):
    status, title = 428, "An ICE restart needs If-Match"


class RateLimited(Problem):
    status, title = 429, "Too many requests"


class InternalError(Problem):
    status, title = 500, "An error of ours; the incident id is in the log"


class Overloaded(Problem):
    status, title = 503, "The node is full"


class Draining(Problem):
    status, title = 503, "The node is about to stop"


class NodeUnreachable(Problem):
    status, title = 503, "The node does not answer"


class StoreUnavailable(Problem):
    status, title = 503, "The room store does not answer"


def all_problems() -> list[type[Problem]]:
    """Return every problem class, by status and name."""
    return sorted(Problem.__subclasses__(), key=lambda problem: (problem.status, problem.name()))


_BY_ERROR: dict[type[errors.CostreamError], type[Problem]] = {
    errors.BadOffer: BadOffer,
    errors.UnacceptableOffer: UnacceptableOffer,
    errors.BadRequest: BadRequest,
    errors.Forbidden: Forbidden,
    errors.NotFound: NotFound,
    errors.Conflict: Conflict,
    errors.PreconditionFailed: PreconditionFailed,
    errors.PreconditionRequired: PreconditionRequired,
    errors.StoreUnavailable: StoreUnavailable,
    errors.NodeUnreachable: NodeUnreachable,
    errors.Overloaded: Overloaded,
}


_BY_NAME = {problem.name(): problem for problem in all_problems()}


def problem_of(error: errors.CostreamError) -> Problem | None:
    """Return the problem that an error of the relay is to a client; None when it is a bug of ours.

    An error's `code` names the problem class; the error's own class stands in for a code that has none.
    """
    retry = {"Retry-After": str(error.retry_after)} if isinstance(error, errors.Overloaded) else {}
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            general = _BY_ERROR[kind]
            named = _BY_NAME.get(getattr(error, "code", ""), general)
            return (named if named.status == general.status else general)(str(error), headers=retry)
    return None


def respond(problem: Problem, request: Request) -> JSONResponse:
    """Return the response of a problem."""
    return JSONResponse(
        problem.body(request.url.path),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def field_errors(found: list[Any]) -> list[dict[str, str]]:
    """Return validation errors as JSON pointers and reasons, without the values that were sent."""
    return [
        {"pointer": "/" + "/".join(str(part) for part in error["loc"]), "reason": str(error["msg"])[:_MAX_DETAIL]}
        for error in found[:20]
    ]


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return respond(error, request)


async def _on_relay_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.CostreamError)
    if isinstance(error, errors.StoreUnavailable):
        request.app.state.context.metrics.store_failures.inc()
    problem = problem_of(error)
    return respond(problem, request) if problem else await on_bug(request, error)


async def _on_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = field_errors(list(error.errors()))
    return respond(InvalidParameter("; ".join(f"{e['pointer']}: {e['reason']}" for e in found), errors=found), request)


async def on_bug(request: Request, error: Exception) -> JSONResponse:
    """Answer an error that nobody foresaw: log it whole under an incident id, tell the client the id only."""
    incident = secrets.token_hex(8)
    _log.error("incident", incident=incident, path=request.url.path, method=request.method, exc_info=error)
    return respond(InternalError(f"incident {incident}", incident=incident), request)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    allowed: dict[str, str] = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        path = request.url.path
        methods = request.app.state.allowed_methods(path) or ("" if path.startswith(API) else "GET, HEAD")
        if not methods:  # it fell through to the pages
            return respond(NotFound(), request)
        return respond(MethodNotAllowed(f"allowed: {methods}", headers={"Allow": methods}), request)
    if error.status_code == HTTPStatus.NOT_FOUND:
        methods = request.app.state.allowed_methods(request.url.path)
        if methods and request.method not in methods.split(", "):  # the pages took it, which have nothing there
            return respond(MethodNotAllowed(f"allowed: {methods}", headers={"Allow": methods}), request)
        return respond(NotFound(), request)
    return respond(BadRequest(str(error.detail), headers=allowed), request)


def install(app: FastAPI) -> None:
    """Make every failure of the app a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(errors.CostreamError, _on_relay_error)
    app.add_exception_handler(RequestValidationError, _on_parameter)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, on_bug)

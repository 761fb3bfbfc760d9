"""What the control API's two ends agree on: paths, bodies, deadlines, and how errors travel.

An error is a problem (RFC 9457) with a member `error`, from which the other end makes the same error again.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relay import errors
from signaling.bodies import JSON, read_bytes, require_type
from signaling.problems import InvalidRequest

PREFIX = "/control/v1"
TOKEN_TTL_S = 60
MARGIN_BYTES = 4096
PING_S = 5
"""Seconds between comments in a stream of events; one that is silent for twice as long is dead."""

NODE_DRAINING = "node.draining"
"""In a session's events: its node drains, go elsewhere."""

_ERRORS: dict[str, type[errors.CostreamError]] = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.CostreamError) and kind.__module__ == errors.__name__
}


class Body(BaseModel):
    """Base of what travels: no unknown fields, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True)


Model = TypeVar("Model", bound=Body)


async def read_body(model: type[Model], request: Request, limit: int) -> Model:
    """Read a JSON body. Raises UnsupportedMediaType, BodyTooLarge, InvalidRequest."""
    require_type(request, JSON)
    body = await read_bytes(request, limit + MARGIN_BYTES)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(str(error.errors(include_url=False, include_input=False)[0]["msg"])) from None


class OfferBody(Body):
    """`ports.Offer`."""

    room: str
    identity: str
    role: str
    sdp: str
    client: str = ""
    program: bool = False
    one_sound: bool = False


class FragmentBody(Body):
    """The arguments of `NodeControl.trickle`."""

    fragment: str
    etag: str | None = None


class SlotBody(Body):
    """`ports.SlotChange`."""

    changes: dict[str, Any]


class EventBody(Body):
    """`ports.RoomEvent`."""

    sync_id: Annotated[int, Field(ge=0, le=(1 << 64) - 1)]
    type: str
    data: dict[str, Any]
    stored: bool = True


def error_member(error: errors.CostreamError) -> dict[str, Any]:
    """Return the member `error` of a problem. An error of a class that the other end cannot know goes by its base."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    member: dict[str, Any] = {"name": name, "detail": str(error)[:1000]}
    if isinstance(error, errors.RequestError):
        member["code"] = error.code
    if isinstance(error, errors.Overloaded):
        member["retry_after"] = error.retry_after
    return member


def read_error(member: object) -> errors.CostreamError | None:
    """Make the error again that `error_member` described; None when the member is not such a description."""
    if not isinstance(member, dict):
        return None
    kind, detail, code = _ERRORS.get(str(member.get("name"))), str(member.get("detail", "")), member.get("code", "")
    if kind is None:
        return None
    if issubclass(kind, errors.RequestError):
        return kind(detail, code=code if isinstance(code, str) else "")
    if issubclass(kind, errors.Overloaded):
        retry_after = member.get("retry_after")
        usable = isinstance(retry_after, int) and not isinstance(retry_after, bool) and 1 <= retry_after <= 3600
        return kind(detail, retry_after if usable else 5)  # type: ignore[arg-type]
    return kind(detail)

"""Reading bodies: bounded, of the right media type, checked against a strict schema."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from signaling.problems import (
    BodyTooLarge,
    InvalidRequest,
    MalformedBody,
    NotAcceptable,
    UnsupportedMediaType,
    field_errors,
)

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
JSON = "application/json"

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of all request schemas: no unknown fields, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True)


async def read_bytes(request: Request, limit: int) -> bytes:
    """Read the body. Raises BodyTooLarge as soon as it is known to exceed `limit` bytes."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        raise BodyTooLarge(f"{length[:20]} bytes; at most {limit} are taken", limit_bytes=limit)
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > limit:
            raise BodyTooLarge(f"at most {limit} bytes are taken", limit_bytes=limit)
    return bytes(chunks)


async def read_text(request: Request, limit: int) -> str:
    """Read a body of UTF-8 text. Raises BodyTooLarge, and MalformedBody when it is empty or not UTF-8."""
    body = await read_bytes(request, limit)
    if not body.strip():
        raise MalformedBody("the body is empty")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise MalformedBody("the body is not UTF-8") from None


def require_type(request: Request, wanted: str) -> None:
    """Raise UnsupportedMediaType unless Content-Type is `wanted`, parameters aside (RFC 9110 section 8.3)."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != wanted:
        raise UnsupportedMediaType(f"Content-Type has to be {wanted}", headers={"Accept-Post": wanted})


def require_accepted(request: Request, offered: str) -> None:
    """Raise NotAcceptable when the Accept header excludes `offered` (RFC 9110 section 12.5.1)."""
    ranges = [part for line in request.headers.getlist("accept") for part in line.split(",") if part.strip()]
    if ranges and _quality(ranges, offered) <= 0:
        raise NotAcceptable(f"the answer is {offered}")


def _quality(ranges: list[str], offered: str) -> float:
    """Return the weight of a type by the most specific range that names it; 0 when none does."""
    order = ("*/*", offered.partition("/")[0] + "/*", offered)
    best, quality = -1, 0.0
    for media_range in ranges[:64]:
        name, *parameters = (part.strip().lower() for part in media_range.split(";"))
        rank = order.index(name) if name in order else -1
        if rank > best:
            best, quality = rank, weight(parameters)
    return quality


def weight(parameters: list[str]) -> float:
    """Return the weight (`q`) among a preference's parameters (RFC 9110, 12.4.2)."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def json_of(model: type[Model]) -> Callable[[Request], Awaitable[Model]]:
    """Return a dependency that reads a JSON body as `model`.

    Raises UnsupportedMediaType, BodyTooLarge, MalformedBody (400) and InvalidRequest (422).
    """

    async def read(request: Request) -> Model:
        require_type(request, JSON)
        body = await read_bytes(request, request.app.state.context.settings.http.max_body_bytes)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise MalformedBody(found[0]["msg"])
        named = field_errors(found)
        raise InvalidRequest("; ".join(f"{e['pointer']}: {e['reason']}" for e in named), errors=named)

    return read


def takes(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Describe for OpenAPI the JSON body that `json_of(model)` reads."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    BODIES[model.__name__] = model
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": example}}}}


BODIES: dict[str, type[BaseModel]] = {}
"""The request schemas named by `takes`, for the components of the OpenAPI document."""

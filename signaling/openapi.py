"""The OpenAPI 3.1 document: problem responses with their media type, request bodies, the security scheme."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from signaling.bodies import BODIES
from signaling.problems import MEDIA_TYPE, TYPE_BASE, Problem, RateLimited, StoreUnavailable

DESCRIPTION = """\
Rooms, stage, sessions and events of a costream relay; WHIP (RFC 9725) publishes and WHEP watches.

Every failure is `application/problem+json` (RFC 9457) with a stable `type`. 429 and 503 carry `Retry-After`.
"""
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}]

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events until the room ends; a comment every 15 s keeps the connection alive",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 115604364165120000\nevent: room.created\ndata: {"sync_id":"115604364165120000",'
                '"type":"room.created","room":"demo","data":{}}\n\n',
            }
        },
    }
}

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "the path of the request"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "reason"],
                "properties": {"pointer": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
        "incident": {"type": "string"},
    },
}
_RETRY_HEADER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
_AUTHENTICATE_HEADER = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "RFC 6750"}}


def may_fail(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Describe for a route the problems that it answers with, grouped by status; 429 and the store's 503 always."""
    kinds: list[type[Problem]] = list(dict.fromkeys((*problems, RateLimited, StoreUnavailable)))
    statuses = sorted({kind.status for kind in kinds})
    return {status: _response(status, [kind for kind in kinds if kind.status == status]) for status in statuses}


def _response(status: int, kinds: list[type[Problem]]) -> dict[str, Any]:
    examples = {kind.name(): {"value": {**kind().body("/v1/…"), "type": TYPE_BASE + kind.name()}} for kind in kinds}
    schema = {"$ref": "#/components/schemas/Problem"}
    response: dict[str, Any] = {
        "description": "; ".join(kind.title for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if status in {429, 503}:
        response["headers"] = _RETRY_HEADER
    elif status == 401:
        response["headers"] = _AUTHENTICATE_HEADER
    return response


def install(app: FastAPI) -> None:
    """Make the app serve this document as `/openapi.json`."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        summary="Live co-streaming",
        description=DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _drop_default_errors(document)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    for name, model in BODIES.items():
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    return document


def _drop_default_errors(document: dict[str, Any]) -> None:
    """Take out the 422 that FastAPI adds wherever there are parameters: here those faults are 400 problems."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)


_UNLISTED = {"/hls/{ticket}/{egress}/{name}": ("get",)}
"""Paths that the document leaves out, with their methods: players on other sites' pages ask for these."""


def allowed_methods(app: FastAPI) -> Callable[[str], str]:
    """Return a function from a path to the methods that it allows (`""` for an unknown path), for Allow headers."""
    table: list[tuple[re.Pattern[str], str]] = []

    def build() -> None:
        for template, operations in {**app.openapi()["paths"], **_UNLISTED}.items():
            methods = {name.upper() for name in operations} & {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"}
            methods.add("OPTIONS")
            if "GET" in methods and not template.endswith("/events"):  # a stream has no end whose length could be told
                methods.add("HEAD")
            pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
            table.append((re.compile(pattern), ", ".join(sorted(methods))))

    def look_up(path: str) -> str:
        if not table:
            build()
        return next((methods for pattern, methods in table if pattern.fullmatch(path)), "")

    return look_up


__all__ = ["EVENT_STREAM", "SECURITY", "allowed_methods", "install", "may_fail"]

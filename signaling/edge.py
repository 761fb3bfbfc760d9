"""What every request passes: measuring, CORS, security headers, and the last net for errors nobody foresaw.

Plain ASGI rather than `BaseHTTPMiddleware`, which would buffer event streams and break their cancellation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.metrics import Metrics
from signaling.bodies import FRAGMENT, SDP
from signaling.problems import on_bug

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
REQUEST_HEADERS = "Authorization, Content-Type, If-Match, Last-Event-ID, Accept, Range"
EXPOSED = "Location, ETag, Link, Retry-After, Accept-Patch, Accept-Post, Allow, WWW-Authenticate"
PREFLIGHT_AGE_S = 86_400


class Edge:
    """The outermost layer of the app."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, origins: Sequence[str], allowed_methods: Callable[[str], str]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._origins = frozenset(origins)
        self._allowed_methods = allowed_methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0
        cors = self._cors(Headers(scope=scope).get("origin"))

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(cors)
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        except Exception as error:
            if status:
                raise
            response = await on_bug(Request(scope, receive), error)
            await response(scope, receive, sending)
        finally:
            self._observe(scope, status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        allowed = self._allowed_methods(scope["path"]) if method in ("OPTIONS", "HEAD") else ""
        if method == "OPTIONS" and allowed:
            headers = _options(scope["path"], allowed)
            await Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)(scope, receive, send)
        elif "HEAD" in allowed:
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HEAD is GET without the body (RFC 9110, 9.3.2)."""

        async def without_body(message: Message) -> None:
            if message["type"] != "http.response.start":
                message = {"type": "http.response.body", "more_body": message.get("more_body", False)}
            await send(message)

        asked: Scope = {**scope, "method": "GET"}  # the server goes by its own, and sends no body for it
        try:
            await self._app(asked, receive, without_body)
        finally:
            scope["route"] = asked.get("route")

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Record the latency; an event stream's, which lasts for hours, would drown the others."""
        route = route_of(scope)
        if not route.endswith("/events") or status != HTTPStatus.OK:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.api_latency.labels(method, route, str(status)).observe(seconds)

    def _cors(self, origin: str | None) -> dict[str, str]:
        if "*" in self._origins:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
        if origin in self._origins:
            return {
                "Access-Control-Allow-Origin": str(origin),
                "Access-Control-Expose-Headers": EXPOSED,
                "Vary": "Origin",
            }
        return {"Vary": "Origin"}


def _options(path: str, allowed: str) -> dict[str, str]:
    """Headers for OPTIONS, preflight or not: RFC 9725 section 4.2 wants Accept-Post, section 4.3 Accept-Patch."""
    headers = {
        "Allow": allowed,
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": REQUEST_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_AGE_S),
    }
    if path.startswith(("/whip/", "/whep/")):
        headers |= {"Accept-Patch": FRAGMENT} if "PATCH" in allowed else {"Accept-Post": SDP}
    return headers


def route_of(scope: Scope) -> str:
    """Return the template of the route that answered, so that ids do not become metric labels."""
    return str(getattr(scope.get("route"), "path", "other"))

"""The studio, watch and dashboard pages, and `/docs` with an own copy of Swagger UI: all work without internet."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob: mediastream:; connect-src 'self' https:; font-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""A page has to reach the cluster's other nodes when the one that served it is gone, also those that came after it was
loaded; what may run in it is what we serve, so the wider `connect-src` leads nothing out."""
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".map": "application/json",
}
"""Types of what pages consist of; nothing else is served. Not from the system's table, which differs by machine."""


class Pages(StaticFiles):
    """Static files of known types; neither dot files nor anything outside the directory (Starlette resolves paths)."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        parts = Path(path).parts
        suffix = Path(path).suffix or ".html"
        if suffix not in TYPES or any(part.startswith((".", "_")) for part in parts if part != "."):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Content-Type"] = TYPES[suffix]
        response.headers.update(PAGE_HEADERS)
        return response


def find_pages() -> Path | None:
    """Return the directory of the pages: the installed package, or `web/` of a checkout; None when there is none."""
    try:
        found = Path(str(importlib.resources.files("costream_web")))
    except ModuleNotFoundError:
        found = Path(__file__).resolve().parent.parent / "web"
    return found if (found / "index.html").is_file() else None


_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>costream API</title>
<link rel="icon" href="/docs/assets/favicon.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_DOCS_START = """\
SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, persistAuthorization: false });
"""


def install(app: FastAPI, directory: Path | None) -> None:
    """Serve `/docs` and, when `directory` is given, the pages at `/`. Call it after all API routes are in place."""

    async def docs() -> HTMLResponse:
        return HTMLResponse(_DOCS, headers=PAGE_HEADERS)

    async def start() -> Response:
        return Response(_DOCS_START, media_type=TYPES[".js"], headers=PAGE_HEADERS)

    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/docs/start.js", start, include_in_schema=False)
    assets = Path(str(importlib.resources.files("fastapi_offline"))) / "static"
    app.mount("/docs/assets", Pages(directory=assets), name="docs")
    if directory is not None:
        app.mount("/", Pages(directory=directory, html=True), name="pages")

"""The signaling application: REST, WHIP, WHEP, events, pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fastapi import FastAPI

from relay.metrics import Metrics
from relay.ports import RoomStore
from relay.settings import LimitSettings, NodeSettings, SignalingSettings
from signaling import health, openapi, pages, problems
from signaling.context import Context
from signaling.control import server as control_server
from signaling.edge import Edge
from signaling.limits import RateLimiter
from signaling.links import routes as links
from signaling.nodes import Node, Nodes
from signaling.participants import routes as participants
from signaling.pk import routes as pk
from signaling.programs import routes as programs
from signaling.publications import routes as publications
from signaling.rooms import routes as rooms
from signaling.sessions import routes as sessions
from signaling.stage import routes as stage
from signaling.token_api import routes as token_api
from signaling.webrtc import routes as webrtc


def create_app(
    settings: SignalingSettings,
    store: RoomStore,
    nodes: Nodes,
    metrics: Metrics,
    *,
    control: Node | None = None,
    version: str = "0",
    pages_directory: Path | None = None,
    cors_origins: Sequence[str] = ("*",),
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the application. The caller owns the store, the nodes and the metrics, and closes them.

    `app.state.context.drain` starts and ends the drain. `pages_directory` (see `pages.find_pages`) None: no pages.
    `control` is the node of this process, if a signaling service elsewhere may use it (`signaling.control`).
    """
    app = FastAPI(
        title="costream",
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.allowed_methods = openapi.allowed_methods(app)
    app.add_middleware(Edge, metrics=metrics, origins=cors_origins, allowed_methods=app.state.allowed_methods)
    app.state.context = Context(
        settings=settings,
        limits=settings.limits if isinstance(settings, NodeSettings) else LimitSettings(),
        store=store,
        nodes=nodes,
        metrics=metrics,
        requests=RateLimiter(settings.rate.api_per_minute),
        joins=RateLimiter(settings.rate.joins_per_minute),
        wall=wall,
        monotonic=monotonic,
    )
    problems.install(app)
    openapi.install(app)
    for routes in (
        rooms, participants, stage, programs, pk, publications, sessions, links, token_api, health,
    ):  # fmt: skip
        app.include_router(routes.router)
    app.include_router(webrtc.build("whip", "publisher", "WHIP"))
    app.include_router(webrtc.build("whep", "viewer", "WHEP"))
    if control is not None:
        app.include_router(control_server.build(control))
    pages.install(app, pages_directory)
    return app

"""The signaling service apart from the relays: it keeps nothing, so any number of them can stand side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import FastAPI

from costream.serve import (
    open_directory,
    opened_store,
    prepare_process,
    settle,
    stopping,
    telling_others,
    version,
)
from costream.web_server import http
from relay.errors import SettingsError
from relay.settings import EMBEDDED_STORE, SignalingSettings
from signaling.app import create_app
from signaling.control.nodes import RemoteNodes
from signaling.pages import find_pages

log = structlog.get_logger()

MOVE_S = 1.0  # so long /readyz says no while requests are still answered: a load balancer looks about every second


async def serve_signaling(settings: SignalingSettings) -> None:
    """Run until SIGTERM or SIGINT, then refuse newcomers, end the event streams, and leave. See `run_signaling`."""
    async with stopping() as stop, running_signaling(settings) as app:
        await stop.wait()
        app.state.context.drain.begin()
        await asyncio.sleep(min(MOVE_S, settings.node.drain_timeout_s))
        app.state.context.drain.end()


@contextlib.asynccontextmanager
async def running_signaling(settings: SignalingSettings) -> AsyncIterator[FastAPI]:
    """A signaling service that answers on its ports; closed in the reverse order, whatever happens."""
    if settings.store.url == EMBEDDED_STORE:
        raise SettingsError(
            f"store.url is {EMBEDDED_STORE!r}, but a signaling service finds its relays in the store that they use: "
            "set store.url (or COSTREAM_STORE__URL) to redis://host:port/db, here and at the relays"
        )
    name, metrics = prepare_process(settings)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store(settings))
        nodes = RemoteNodes(settings, store, open_directory(settings), name)
        stack.push_async_callback(nodes.close)
        await nodes.start()
        webhooks = await stack.enter_async_context(telling_others(settings, store, metrics, name))
        app = create_app(
            settings, store, nodes, metrics, webhooks=webhooks, version=version(), pages_directory=find_pages()
        )
        await stack.enter_async_context(http(settings, app))
        settle()
        lag = asyncio.create_task(metrics.measure_loop_lag())
        stack.callback(lag.cancel)
        log.info(
            "signaling is up",
            https=f"{settings.http.host}:{settings.http.port}",
            nodes=[node.node_id for node in nodes.all()],
        )
        yield app

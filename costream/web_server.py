"""The web server of a process: an application over HTTPS, and over plain HTTP where that is on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI

from costream.tls import prepare_tls
from relay.errors import SettingsError
from relay.settings import HttpSettings, SignalingSettings

EXIT_SLACK_S = 5.0  # after the drain: closing sockets and the store is a matter of milliseconds


@contextlib.asynccontextmanager
async def http(settings: SignalingSettings, app: FastAPI) -> AsyncIterator[None]:
    """Serve an application over HTTPS, and over plain HTTP where that is on. Raises SettingsError for a taken port."""
    tls = prepare_tls(settings)
    servers = [_server(app, ssl_certfile=str(tls.certificate), ssl_keyfile=str(tls.key))]
    sockets = [_listen(settings.http.host, settings.http.port)]
    if settings.http.plain_port:
        servers.append(_server(app))
        sockets.append(_listen(settings.http.plain_host, settings.http.plain_port))
    tasks = [
        asyncio.create_task(server.serve(sockets=[opened])) for server, opened in zip(servers, sockets, strict=True)
    ]
    try:
        while not all(server.started for server in servers):
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)
        yield
    finally:
        for server in servers:
            server.should_exit = True
        done, late = await asyncio.wait(tasks, timeout=EXIT_SLACK_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*done, *late, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _server(app: FastAPI, **tls: str) -> _Server:
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=65_536,
        **tls,  # type: ignore[arg-type]
    )
    return _Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"TCP port {port} on {host} cannot be opened: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def base_url(http: HttpSettings) -> str:
    """The HTTPS address of a node for people on this machine."""
    host = "localhost" if http.host in {"0.0.0.0", "::", "127.0.0.1", "::1"} else http.host
    return f"https://{f'[{host}]' if ':' in host else host}:{http.port}"

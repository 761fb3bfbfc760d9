"""A relay's app on a real socket, and nodes that call it as a signaling service elsewhere does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import uvicorn

from relay.metrics import Metrics
from relay.ports import NodeRecord, RoomStore
from relay.settings import ClusterSettings, dev_settings
from signaling.app import create_app
from signaling.control.client import Deadlines, RemoteNode, Tokens
from signaling.control.trust import Trust
from signaling.nodes import LocalNode, LocalNodes
from tests.signaling.memory_node import MemoryNode

PATIENT = Deadlines(connect=30, change=30, read=30)  # on a busy machine time must not decide
KEYS = dict(dev_settings(environ={}).auth.keys)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


class Served:
    """One relay: `node` behind a port on loopback."""

    def __init__(
        self, store: RoomStore, node_id: str = "n1", tls: tuple[Path, Path] | None = None, port: int = 0
    ) -> None:
        self.node = MemoryNode(node_id)
        self.app = create_app(
            dev_settings(environ={}), store, LocalNodes(self.node), Metrics(), control=LocalNode(self.node)
        )
        files = {"ssl_certfile": str(tls[0]), "ssl_keyfile": str(tls[1])} if tls else {}
        self._tls = tls
        self._server = _Server(
            uvicorn.Config(
                self.app,
                port=port,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
                **files,  # type: ignore[arg-type]
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._task is not None:
            self._server.should_exit = self._server.force_exit = True
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]
            await self._task
            self._task = None

    def record(self, **changes: object) -> NodeRecord:
        """What the relay would write into the directory."""
        scheme = "https" if self._tls else "http"
        certificate = self._tls[0].read_text() if self._tls else ""
        fields = {
            "id": self.node.node_id,
            "control_url": f"{scheme}://127.0.0.1:{self.port}",
            "region": "local",
            "version": "0",
            "certificate": certificate,
            "max_sessions": 10,
        }
        return NodeRecord(**(fields | changes))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def serving(store: RoomStore, node_id: str = "n1", tls: tuple[Path, Path] | None = None) -> AsyncIterator[Served]:
    served = Served(store, node_id, tls)
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


@contextlib.asynccontextmanager
async def calling(
    record: NodeRecord,
    keys: Mapping[str, str] = KEYS,
    settings: ClusterSettings | None = None,
    deadlines: Deadlines = PATIENT,
) -> AsyncIterator[RemoteNode]:
    tokens = Tokens(keys, "tests", record.id, time.time)
    node = RemoteNode(record, tokens, Trust(settings or ClusterSettings()), deadlines)
    try:
        yield node
    finally:
        await node.disconnect()

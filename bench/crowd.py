"""Many light viewers that join one endpoint, some at a time."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2

from bench.peer import Peer
from bench.processes import Server
from relay.edge.dtls import Certificate

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Joined:
    """A crowd that is in: how many, and what it cost. `cpu` are seconds of the server's processor time."""

    count: int
    seconds: float
    cpu: float
    resident_before: int
    resident_after: int


@contextlib.asynccontextmanager
async def crowd(server: Server, count: int, kinds: str, warm_up: int) -> AsyncIterator[Joined]:
    """Let `warm_up` viewers in, then measure the next `count` ones; all stay until the end."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    certificate = Certificate.make()
    peers = [Peer(certificate, kinds) for _ in range(warm_up + count)]
    keeping: asyncio.Task[None] | None = None
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
            await _join(server, client, peers[:warm_up], "early")
            await asyncio.sleep(0.5)
            keeping = asyncio.create_task(_keep_alive(peers))
            resident, cpu, begin = server.resident(), server.cpu(), time.perf_counter()
            await _join(server, client, peers[warm_up:], "late")
            seconds, spent = time.perf_counter() - begin, server.cpu() - cpu
            await asyncio.sleep(1.5)  # tasks end, and the node's second tick has passed
            yield Joined(count, seconds, spent, resident, server.resident())
    finally:
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        for peer in peers:
            peer.close()


async def _join(server: Server, client: httpx2.AsyncClient, peers: list[Peer], name: str) -> None:
    waiting = list(enumerate(peers))

    async def work() -> None:
        while waiting:
            number, peer = waiting.pop()
            await peer.connect(client, server.whep, f"{name}-{number}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def _keep_alive(peers: list[Peer]) -> None:
    """Consent checks every 5 s (RFC 7675 5.1)."""
    while True:
        await asyncio.sleep(5)
        for peer in peers:
            if peer.srtp is not None:
                peer.keep_alive()

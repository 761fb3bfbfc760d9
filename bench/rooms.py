"""Rooms of a relay under test: their addresses, tokens for them, and the API with a service's token."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from bench.processes import Server
from relay.settings import DEV_KEY_ID, DEV_SECRET
from signaling.tokens import Role, mint

PATIENCE_S = 30.0
_LOOK_S = 0.05
_numbers = itertools.count(1)


class Room:
    """One room. Use `opened`, which ends it."""

    def __init__(self, server: Server, client: httpx2.AsyncClient) -> None:
        self.id = f"bench-{next(_numbers)}"
        self.base = server.base
        self.whip, self.whep = f"{server.base}/whip/{self.id}", f"{server.base}/whep/{self.id}"
        self._server, self._client = server, client

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, server: Server, **wanted: object) -> AsyncIterator[Room]:
        """A new room; `wanted` are fields of the API's CreateRoom."""
        headers = {"Authorization": f"Bearer {_token('*', 'bench', 'service')}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE_S, headers=headers) as client:
            room = cls(server, client)
            await room.ask("POST", f"{server.base}/v1/rooms", {"id": room.id, **wanted})
            try:
                yield room
            finally:
                with contextlib.suppress(httpx2.HTTPError):  # the relay may have died, which another error tells
                    await client.delete(f"{server.base}/v1/rooms/{room.id}")

    def token(self, identity: str, role: Role) -> str:
        return _token(self.id, identity, role)

    async def ask(self, method: str, path: str = "", body: object = None) -> Any:
        """The API's answer; `path` is relative to the room, or a whole address. Raises RuntimeError for an error."""
        url = path if path.startswith("http") else f"{self.base}/v1/rooms/{self.id}/{path}".rstrip("/")
        response = await self._client.request(method, url, json=body)
        if not response.is_success:
            raise RuntimeError(f"{method} {url}: {response.status_code} {response.text}\n{self._server.tail()}")
        return response.json() if response.content else None

    async def program(self, **wanted: object) -> None:
        """Switch the program on and wait until it is made."""
        await self.ask("PUT", "program", wanted)
        await self.until("program", lambda found: found["state"] == "live" and found["video"] and found["audio"])

    async def until(self, path: str, holds: Callable[[Any], object]) -> Any:
        """Ask until the answer is right, and return it. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._server.alive()
                if holds(found := await self.ask("GET", path)):
                    return found
                await asyncio.sleep(_LOOK_S)


def _token(room: str, identity: str, role: Role) -> str:
    return mint({DEV_KEY_ID: DEV_SECRET}, room=room, identity=identity, role=role, ttl_s=3600, now=time.time())

"""What clients of a drill do beside media, as the pages do: follow a session's events, ask whether it is still there.

A session is asked after at the service that answered the offer first, then at the others the client knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import httpx2

from costream.whip import Resource

ASK_S = 0.5
"""A service that has not said in this time whether a session is there does not know it."""
_AGAIN_S = 0.5
_CONNECT_S = 0.5
_SILENCE_S = 40.0  # between two keep-alive comments of a stream are 15 s
_MOVES = frozenset({"node.draining"})


@dataclass(slots=True)
class Following:
    """A session's events, followed until `close`. `moved_on` is set when the session's node asks to go elsewhere."""

    session: str
    bases: tuple[str, ...]
    _client: httpx2.AsyncClient
    moved_on: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow(), name=f"events of {self.session}")

    async def is_lost(self) -> bool:
        """Whether nobody who answers knows the session."""
        url = f"/v1/sessions/{quote(self.session)}"
        return not any(await asyncio.gather(*(self._knows(base + url) for base in self.bases)))

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def _knows(self, url: str) -> bool:
        try:
            async with asyncio.timeout(ASK_S):
                return (await self._client.get(url)).status_code == 200
        except (httpx2.HTTPError, TimeoutError):
            return False

    async def _follow(self) -> None:
        turn = 0
        while True:
            base = self.bases[turn % len(self.bases)]
            with contextlib.suppress(httpx2.HTTPError):
                async for kind in self._events(f"{base}/v1/sessions/{quote(self.session)}/events"):
                    if kind in _MOVES:
                        self.reason = kind
                        self.moved_on.set()
            turn += 1
            await asyncio.sleep(_AGAIN_S)

    async def _events(self, url: str) -> AsyncIterator[str]:
        timeout = httpx2.Timeout(_SILENCE_S, connect=_CONNECT_S)
        async with self._client.stream("GET", url, timeout=timeout) as response:
            if not response.is_success:
                return
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield str(json.loads(line.removeprefix("data: ")).get("type", ""))


def following(resource: Resource, token: str, urls: Sequence[str]) -> Following:
    """Follow the session of a WHIP or WHEP resource; `urls` are the addresses that offers are sent to."""
    bases = tuple(dict.fromkeys(map(_base, (resource.location, *urls))))
    client = httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, verify=False, trust_env=False, timeout=ASK_S
    )
    found = Following(session_of(resource), bases, client)
    found.start()
    return found


def session_of(resource: Resource) -> str:
    """The session's id."""
    return resource.location.rsplit("/", 1)[1]


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until it holds; False when that takes longer."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def _base(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"

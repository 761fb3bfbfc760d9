"""Egress over the control API: both ends. What players fetch is fetched from the node once for all who ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from relay.egress.events import EgressRequest, Kind
from relay.egress.playback import PlaylistReply
from signaling.control.wire import Body, read_body
from signaling.egress.files import ByteCache
from signaling.nodes import Node

CHANGE_S = 10.0
"""For a start, which looks an address up, and for a stop, which ends files in good order."""
WAIT_S = 45.0
"""For a playlist, which is waited for three segments long."""
MAX_BODY_BYTES = 8192

T = TypeVar("T")
Sequence = Annotated[int | None, Query(ge=0)]


class StartBody(Body):
    """`EgressRequest`."""

    room: str
    kind: Kind
    source: str
    url: str


def add_routes(router: APIRouter, node: Node) -> None:
    """The node's end."""

    @router.post("/egress")
    async def start(request: Request) -> Any:
        body = await read_body(StartBody, request, MAX_BODY_BYTES)
        return await node.egress.start_egress(EgressRequest(**body.model_dump()))

    @router.get("/egress")
    async def egresses(room: Annotated[str, Query()]) -> Any:
        return {"egress": await node.egress.list_egress(room)}

    @router.get("/hls")
    async def find(room: Annotated[str, Query()], source: Annotated[str, Query()]) -> Any:
        return {"egress": await node.egress.find_hls(room, source)}

    @router.get("/egress/{egress}")
    async def read(egress: str) -> Any:
        return await node.egress.read_egress(egress)

    @router.delete("/egress/{egress}")
    async def stop(egress: str) -> Any:
        return await node.egress.stop_egress(egress)

    @router.get("/egress/{egress}/playlist")
    async def playlist(egress: str, sequence: Sequence = None, part: Sequence = None) -> Any:
        reply = await node.egress.playlist(egress, sequence, part)
        return {"text": reply.text, "etag": reply.etag}

    @router.get("/egress/{egress}/files/{name}")
    async def file(egress: str, name: str) -> Response:
        found = await node.egress.file(egress, name)
        data = found if isinstance(found, bytes) else await asyncio.to_thread(found.read_bytes)
        return Response(data, media_type="application/octet-stream")


class Caller(Protocol):
    """What of `RemoteNode` is needed here."""

    async def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
        *,
        seconds: float,
    ) -> dict[str, Any]: ...

    async def fetch(self, path: str, *, seconds: float) -> bytes: ...


class RemoteEgress:
    """The caller's end: a `signaling.nodes.NodeEgress`."""

    def __init__(self, caller: Caller, read_s: float) -> None:
        self._caller, self._read_s = caller, read_s
        self._flying: dict[str, asyncio.Task[Any]] = {}
        self._files = ByteCache()

    async def start_egress(self, request: EgressRequest) -> dict[str, Any]:
        return await self._caller.ask("POST", "/egress", asdict(request), seconds=CHANGE_S)

    async def stop_egress(self, egress: str) -> dict[str, Any]:
        return await self._caller.ask("DELETE", f"/egress/{quote(egress)}", seconds=CHANGE_S)

    async def read_egress(self, egress: str) -> dict[str, Any]:
        return await self._caller.ask("GET", f"/egress/{quote(egress)}", seconds=self._read_s)

    async def list_egress(self, room: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (
            await self._caller.ask("GET", "/egress", query={"room": room}, seconds=self._read_s)
        )["egress"]
        return found

    async def find_hls(self, room: str, source: str) -> str:
        query = {"room": room, "source": source}
        found = await self._shared(
            f"{room} {source}", lambda: self._caller.ask("GET", "/hls", query=query, seconds=self._read_s)
        )
        return str(found["egress"])

    async def playlist(self, egress: str, sequence: int | None, part: int | None) -> PlaylistReply:
        given = {"sequence": sequence, "part": part}
        query = {name: str(value) for name, value in given.items() if value is not None}
        path = f"/egress/{quote(egress)}/playlist"
        found = await self._shared(
            f"{path} {query}", lambda: self._caller.ask("GET", path, query=query, seconds=WAIT_S)
        )
        return PlaylistReply(found["text"], found["etag"])

    async def file(self, egress: str, name: str) -> Path | bytes:
        path = f"/egress/{quote(egress)}/files/{quote(name)}"
        if (known := self._files.get(path)) is not None:
            return known
        data = await self._shared(path, lambda: self._caller.fetch(path, seconds=WAIT_S))
        self._files.put(path, data)
        return data

    async def _shared(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        """One call for all who ask the same while it is under way; it goes on when one of them gives up."""
        task = self._flying.get(key)
        if task is None:
            task = asyncio.ensure_future(ask())
            self._flying[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        del self._flying[key]
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

"""HLS as players fetch it: the playlist, which waits for what it is asked for, and its files (RFC 8216bis)."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from relay.egress.playback import PlaylistReply
from relay.errors import NotFound
from signaling import problems as p
from signaling.bodies import weight
from signaling.context import Context, Ctx
from signaling.egress import tickets
from signaling.egress.control import RoomEgress
from signaling.egress.files import ByteCache
from signaling.openapi import may_fail

PLAYLIST = "application/vnd.apple.mpegurl"
TYPES = {".mp4": "video/mp4", ".m4s": "video/iso.segment"}
IMMUTABLE = "max-age=31536000, immutable"
Sequence = Annotated[int | None, Query(alias="_HLS_msn", ge=0, le=10**12)]
Part = Annotated[int | None, Query(alias="_HLS_part", ge=0, le=10**4)]


def build(playback: RoomEgress) -> APIRouter:
    """The routes below `/hls`."""
    router = APIRouter(tags=["egress"])
    cache = ByteCache()
    zipped = _Zipped()

    @router.api_route(
        "/hls/{ticket}/{egress}/index.m3u8",
        methods=["GET", "HEAD"],
        response_class=Response,
        summary="The media playlist; `_HLS_msn` and `_HLS_part` wait for what is not there yet",
        responses=may_fail(p.BadRequest, p.InvalidToken, p.EgressNotFound, p.Overloaded),
        include_in_schema=False,
    )
    async def playlist(
        request: Request, ticket: str, egress: str, context: Ctx, sequence: Sequence = None, part: Part = None
    ) -> Response:
        _check(context, ticket, egress)
        reply = await playback.playlist(egress, sequence, part)
        age = "max-age=1" if sequence is None else "max-age=12"
        zips = _takes_gzip(request)
        etag = f'{reply.etag[:-1]}.gz"' if zips else reply.etag  # other bytes, another tag (RFC 9110, 8.8.1)
        headers = {"ETag": etag, "Cache-Control": age, "Vary": "Accept-Encoding"}
        if _matches(request, etag):
            return Response(status_code=304, headers=headers)
        if zips:
            headers["Content-Encoding"] = "gzip"
            return Response(zipped.of(egress, reply), media_type=PLAYLIST, headers=headers)
        return Response(reply.text, media_type=PLAYLIST, headers=headers)

    @router.api_route(
        "/hls/{ticket}/{egress}/{name}", methods=["GET", "HEAD"], response_class=Response, include_in_schema=False
    )
    async def file(request: Request, ticket: str, egress: str, name: str, context: Ctx) -> Response:
        _check(context, ticket, egress)
        found = await playback.file(egress, name)
        etag = f'"{egress}.{name}"'
        headers = {"ETag": etag, "Cache-Control": IMMUTABLE}
        if _matches(request, etag):
            return Response(status_code=304, headers=headers)
        media_type = TYPES[Path(name).suffix]
        if isinstance(found, bytes):
            return Response(found, media_type=media_type, headers=headers)
        # A server that can (granian) sends the file from the kernel; uvicorn cannot.
        if "http.response.pathsend" in request.scope.get("extensions", {}):
            return FileResponse(found, media_type=media_type, headers=headers)
        return Response(_read(cache, found), media_type=media_type, headers=headers)

    return router


def _read(cache: ByteCache, path: Path) -> bytes:
    """A file's bytes. Files are of 10 to 1000 KB, in the page cache as a rule: reading is faster than a thread."""
    data = cache.get(str(path))
    if data is None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # it left the window just now
            raise NotFound("no such file, or not any more") from None
        cache.put(str(path), data)
    return data


class _Zipped:
    """The last playlist of each stream, compressed once for all who fetch it."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[str, bytes]] = OrderedDict()

    def of(self, egress: str, reply: PlaylistReply) -> bytes:
        etag, data = self._last.get(egress, ("", b""))
        if etag != reply.etag:
            data = gzip.compress(reply.text.encode(), 5)
            self._last[egress] = (reply.etag, data)
            while len(self._last) > 256:
                self._last.popitem(last=False)
        return data


def _check(context: Context, ticket: str, egress: str) -> None:
    if not tickets.check(context.settings.auth.keys, ticket, egress, context.wall()):
        raise p.InvalidToken(
            "the address has expired or is wrong: ask for a new one",
            headers={"WWW-Authenticate": 'Bearer realm="costream"'},
        )


def _takes_gzip(request: Request) -> bool:
    """Accept-Encoding (RFC 9110, 12.5.3)."""
    for each in request.headers.get("accept-encoding", "").lower().split(","):
        coding, *parameters = (part.strip() for part in each.split(";"))
        if coding == "gzip":
            return weight(parameters) > 0
    return False


def _matches(request: Request, etag: str) -> bool:
    """If-None-Match (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return given == "*" or etag in (each.strip().removeprefix("W/") for each in given.split(","))

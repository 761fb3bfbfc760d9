"""The relay's view of an HLS output: who asks for what is not there yet waits, within bounds (RFC 8216bis, 6.2.5.2)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from relay.egress.playlist import END_LINE
from relay.errors import BadRequest, NotFound, Overloaded

MAX_WAITERS = 20_000
"""Of one stream. Each costs about 2 KB."""
AHEAD = 2
"""Segments that one may ask for beyond the last (RFC 8216bis: at least two, or clients are told off)."""
_NAME = re.compile(r"(?:seg(\d{1,12})|part(\d{1,12})\.(\d{1,4}))\.m4s|init\d{1,6}\.mp4")


class PlaylistReply(NamedTuple):
    """`etag` changes whenever the text does."""

    text: str
    etag: str


class HlsStream:
    """What `HlsAdvanced` told last."""

    def __init__(self, egress: str, directory: Path, patience_s: float) -> None:
        self.directory = directory
        self.sequence = self.parts = self.inits = 0
        self._egress, self._patience_s = egress, patience_s
        self._text = ""
        self._ended = False
        self._waiters = 0
        self._advanced = asyncio.Event()

    @property
    def text(self) -> str:
        """The playlist as it stands; empty before there is one."""
        return self._text

    def advance(self, sequence: int, parts: int, inits: int, text: str, *, ended: bool) -> None:
        """There is more; `ended`: and will be no more."""
        self.sequence, self.parts, self.inits, self._text, self._ended = sequence, parts, inits, text, ended
        self._wake()

    def end(self) -> None:
        """Nothing comes any more: nobody has to wait, and the playlist says so, also when the process that wrote it had
        gone before, or did not get to it."""
        self._ended = True
        if self._text and not self._text.endswith(END_LINE):
            lines = self._text.splitlines(keepends=True)
            self._text = "".join(line for line in lines if not line.startswith("#EXT-X-PRELOAD-HINT:")) + END_LINE
        self._wake()

    async def playlist(self, sequence: int | None = None, part: int | None = None) -> PlaylistReply:
        """The playlist, once it has part `part` of segment `sequence` (None: the whole segment; both None: any).

        Raises BadRequest for what is too far ahead, Overloaded when it does not come in time, NotFound before an end
        without a beginning.
        """
        if sequence is None:
            if part is not None:
                raise BadRequest("_HLS_part needs _HLS_msn")
            sequence, part = 0, 0
        elif sequence > self.sequence + AHEAD:
            raise BadRequest(f"segment {sequence} is far ahead: the newest is {self.sequence}")
        await self._until(sequence, part)
        if not self._text:
            raise NotFound("this stream ended before it began")
        return PlaylistReply(
            self._text, f'"{self._egress}.{self.sequence}.{self.parts}.{self.inits}{"e" * self._ended}"'
        )

    async def file(self, name: str) -> Path:
        """The file of that name; the part that comes next is waited for. Raises NotFound, Overloaded."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise NotFound("no such file")
        _, sequence, part = found.groups()
        path = self.directory / name
        if sequence is not None and (int(sequence), int(part)) <= (self.sequence + 1, self.parts):
            await self._until(int(sequence), int(part))
        if not path.is_file():
            raise NotFound("no such file, or not any more")
        return path

    def _has(self, sequence: int, part: int | None) -> bool:
        if self.sequence > sequence:
            return True
        return part is not None and self.sequence == sequence and self.parts > part

    async def _until(self, sequence: int, part: int | None) -> None:
        if self._has(sequence, part) or self._ended:
            return
        if self._waiters >= MAX_WAITERS:
            raise Overloaded("too many wait for this stream", 1)
        self._waiters += 1
        try:
            async with asyncio.timeout(self._patience_s):
                while not (self._has(sequence, part) or self._ended):
                    await self._advanced.wait()
        except TimeoutError:
            raise Overloaded("the stream does not go on", 1) from None
        finally:
            self._waiters -= 1

    def _wake(self) -> None:
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()

"""All egress of a node: started, stopped, listed; processes supervised, and begun again from what is known here."""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay.egress.address import shown
from relay.egress.events import FINAL, EgressChanged, EgressEvent, EgressRequest, RecordingFileClosed, State
from relay.egress.feed import Feeds
from relay.egress.hls import remove_files
from relay.egress.messages import (
    AddHls,
    AddPush,
    AddRecording,
    Counted,
    FileClosed,
    FileOpened,
    FromProcess,
    HlsAdvanced,
    Stated,
)
from relay.egress.playback import HlsStream, PlaylistReply
from relay.egress.playlist import END_LINE
from relay.egress.record import recover
from relay.egress.targets import check_target
from relay.egress.worker import EgressWorker
from relay.errors import Conflict, NotFound, Overloaded
from relay.settings import EgressSettings

REMEMBERED = 64
"""Egresses that have ended and can still be read, with what went wrong."""


class Egress:
    """One egress as the manager knows it."""

    def __init__(self, name: str, request: EgressRequest, directory: Path) -> None:
        self.id = name
        self.request = request
        self.directory = directory
        self.state: State = "starting"
        self.code = self.detail = ""
        self.since = time.time()
        self.files: list[str] = []
        self.closed: set[str] = set()
        """Those of `files` that are whole and were told."""
        self.number = 1
        self.bytes = self.pictures = self.dropped = self.restarts = 0
        self.stream: HlsStream | None = None
        self.stopping = False
        self._before = (0, 0, 0)
        self._of_process = (0, 0, 0)

    def count(self, counted: Counted) -> None:
        """Counts begin at 0 in each process."""
        self._of_process = (counted.bytes, counted.pictures, counted.dropped)
        sums = (before + now for before, now in zip(self._before, self._of_process, strict=True))
        self.bytes, self.pictures, self.dropped = sums

    def begin_again(self) -> None:
        self._before, self._of_process = (self.bytes, self.pictures, self.dropped), (0, 0, 0)

    def facts(self) -> dict[str, Any]:
        """The `Egress` schema of the API."""
        return {
            "id": self.id,
            "room": self.request.room,
            "kind": self.request.kind,
            "source": self.request.source,
            "state": self.state,
            "error": {"code": self.code, "detail": self.detail} if self.code else None,
            "target": shown(self.request.url) if self.request.url else None,
            "files": list(self.files),
            "since": datetime.datetime.fromtimestamp(self.since, datetime.UTC).isoformat(timespec="seconds"),
            "bytes": self.bytes,
            "pictures": self.pictures,
            "dropped": self.dropped,
            "restarts": self.restarts,
        }


class EgressManager:
    """Owns the processes. `on_event` is called in the loop. Call `close`, or they end when this process does."""

    def __init__(
        self,
        settings: EgressSettings,
        state_directory: Path,
        feeds: Feeds,
        on_event: Callable[[EgressEvent], None] = lambda event: None,
        node: str = "",
    ) -> None:
        """`node` begins the ids, as in those of sessions, so that whoever reads one knows whom to ask."""
        self._settings, self._feeds, self._on_event = settings, feeds, on_event
        self._prefix = f"{node}~" if node else ""
        self._hls = Path(settings.hls_directory) if settings.hls_directory else state_directory / "hls"
        own = settings.recording_directory
        self._recordings = Path(own) if own else state_directory / "recordings"
        self._all: dict[str, Egress] = {}
        self._workers: dict[tuple[str, ...], EgressWorker] = {}
        self._leaving: dict[Path, asyncio.TimerHandle] = {}
        """Files of HLS that ended, until nobody plays them any more."""
        self._closed = False

    def tidy(self) -> list[Path]:
        """After a crash of the node: remove what HLS left, finish recordings. Blocking; once, before any `start`."""
        remove_files(self._hls)
        return [path for room in sorted(self._recordings.glob("*/")) for path in recover(room)]

    async def start(self, request: EgressRequest) -> dict[str, Any]:
        """Begin an egress; returns its facts. Raises NotFound (no such source), BadRequest (its codecs, the target),
        Conflict (a second HLS of one source), Overloaded."""
        if self._closed:
            raise Overloaded("the node is about to stop")
        if request.kind == "rtmp":
            await check_target(request.url, self._settings.allow_private_targets)
        living = [each for each in self._all.values() if each.state not in FINAL]
        if len(living) >= self._settings.max_outputs:
            raise Overloaded("the node has all the egress it may have", 30)
        same = [each for each in living if each.request == request]
        if request.kind != "recording" and same:
            raise Conflict(f"{same[0].id} does this already", code="egress-exists")
        egress = self._new(request)
        key = (request.room, request.source, *([egress.id] if request.kind == "rtmp" else []))
        worker = self._workers.get(key)
        if worker is None:
            worker = EgressWorker(
                self._feeds, request.room, request.source, self._settings.hls_segment_ms, self._heard, self._order
            )
            worker.on_done = lambda: self._workers.pop(key, None)
            self._workers[key] = worker
        self._all[egress.id] = egress
        try:
            await worker.add(egress.id, request.kind)
        except BaseException:
            del self._all[egress.id]
            if worker.idle and self._workers.get(key) is worker:
                del self._workers[key]
            if egress.stream is not None:
                remove_files(egress.directory)
            raise
        self._tell(egress)
        return egress.facts()

    async def stop(self, egress: str) -> dict[str, Any]:
        """End one in good order; returns its facts. One that ended already stays as it is. Raises NotFound."""
        return await self._end(egress, "ended")

    async def fail(self, egress: str, code: str, detail: str) -> dict[str, Any]:
        """End one as `stop` does, because of an error that this machine cannot mend. Raises NotFound."""
        return await self._end(egress, "failed", code, detail)

    async def _end(self, egress: str, state: State, code: str = "", detail: str = "") -> dict[str, Any]:
        found = self._find(egress)
        found.stopping = True
        for worker in list(self._workers.values()):
            await worker.remove(egress)
        if found.state == "retrying" and found.request.kind == "recording":  # nobody writes now, nor did finish
            await asyncio.to_thread(recover, found.directory, self._stem(found))
        self._tell_files(found)
        self._move(found, state, code, detail)
        return found.facts()

    def get(self, egress: str) -> dict[str, Any]:
        """Read one. Raises NotFound."""
        return self._find(egress).facts()

    def list(self, room: str | None = None) -> list[dict[str, Any]]:
        """Read all, or those of a room, the last that ended among them; oldest first."""
        return [each.facts() for each in self._all.values() if room in (None, each.request.room)]

    def hls(self, room: str, source: str = "program") -> str:
        """The id of the living HLS output of a source. Raises NotFound."""
        for each in self._all.values():
            wanted = (each.request.room, each.request.kind, each.request.source) == (room, "hls", source)
            if wanted and each.state not in FINAL:
                return each.id
        raise NotFound(f"room {room!r} has no HLS", code="egress-not-found")

    async def playlist(self, egress: str, sequence: int | None, part: int | None) -> PlaylistReply:
        """See `HlsStream.playlist`."""
        return await self._stream(egress).playlist(sequence, part)

    async def file(self, egress: str, name: str) -> Path:
        """See `HlsStream.file`."""
        return await self._stream(egress).file(name)

    async def end_room(self, room: str) -> None:
        """The show is over: end all of its egress."""
        for each in [each.id for each in self._all.values() if each.request.room == room and each.state not in FINAL]:
            await self.stop(each)

    async def close(self) -> None:
        """End all, in good order, and remove what HLS wrote."""
        self._closed = True
        for egress in self._all.values():
            egress.stopping = True
        await asyncio.gather(*(worker.close() for worker in list(self._workers.values())))
        for egress in list(self._all.values()):
            self._tell_files(egress)
            self._move(egress, "ended")
        for directory in list(self._leaving):
            self._remove(directory)

    def _new(self, request: EgressRequest) -> Egress:
        name = f"{self._prefix}eg-{secrets.token_hex(6)}"
        if request.kind == "hls":
            egress = Egress(name, request, self._hls / name.removeprefix(self._prefix))
            patience = 3 * self._settings.hls_segment_ms / 1000
            egress.stream = HlsStream(name, egress.directory, patience)
            return egress
        return Egress(name, request, self._recordings / request.room)

    def _order(self, name: str) -> AddHls | AddRecording | AddPush | None:
        """What a process has to do for an egress, as things stand now; None when it is over."""
        egress, s = self._all.get(name), self._settings
        if egress is None or egress.state in FINAL:
            return None
        egress.begin_again()
        if egress.stream is not None:
            stream = egress.stream
            # Parts of a segment that never became whole are in players' hands: its number is not used again.
            sequence = stream.sequence + (stream.parts > 0)
            return AddHls(
                name, str(egress.directory), s.hls_part_ms, s.hls_segment_ms, s.hls_hold_back_parts, s.hls_window,
                sequence, stream.inits, stream.text,
            )  # fmt: skip
        if egress.request.kind == "recording":
            return AddRecording(
                name, str(egress.directory), self._stem(egress), egress.number, s.recording_fragment_ms,
                s.recording_sync_ms, s.recording_queue_bytes, s.recording_min_free_bytes, s.recording_max_file_bytes,
            )  # fmt: skip
        return AddPush(
            name, egress.request.url, s.allow_private_targets, s.push_queue_bytes, s.push_stall_ms,
            s.push_retry_min_ms, s.push_retry_max_ms,
        )  # fmt: skip

    def _heard(self, message: FromProcess) -> None:
        """What a worker or its process says of one of ours."""
        egress = self._all.get(getattr(message, "id", ""))
        if egress is None:
            return
        match message:
            case HlsAdvanced():
                if egress.stream is not None and egress.state not in FINAL:
                    # A process that ends for want of a source ends its playlist; players would stop for good.
                    over = message.ended and egress.stopping
                    text = message.text if over else message.text.replace(END_LINE, "")
                    egress.stream.advance(message.sequence, message.parts, message.inits, text, ended=over)
                    if message.sequence or message.parts:
                        self._move(egress, "running")
            case FileOpened():
                egress.number = message.number + 1
                self._tell_files(egress)
                egress.files = [*(name for name in egress.files if name in egress.closed), message.name]
            case FileClosed():
                self._tell_file(egress, message.name, message.bytes)
            case Counted():
                egress.count(message)
            case Stated():
                egress.restarts += message.state == "retrying"
                self._move(egress, message.state, message.code, message.detail)

    def _tell_files(self, egress: Egress) -> None:
        """Tell of files that became whole when their process was not there to say so: it was killed and its successor
        finished them, or it ended with its source."""
        for name in egress.files:
            path = egress.directory / name
            if name not in egress.closed and path.is_file():
                self._tell_file(egress, name, path.stat().st_size)

    def _tell_file(self, egress: Egress, name: str, size: int) -> None:
        egress.closed.add(name)
        self._on_event(RecordingFileClosed(egress.id, egress.request.room, name, size))

    def _stem(self, egress: Egress) -> str:
        """How a recording's files begin."""
        return f"{egress.request.source}-{egress.id.removeprefix(self._prefix)}"

    def _move(self, egress: Egress, state: State, code: str = "", detail: str = "") -> None:
        if egress.state in FINAL or (egress.state, egress.code, egress.detail) == (state, code, detail):
            return
        egress.state, egress.code, egress.detail = state, code, detail
        if state in FINAL:
            if egress.stream is not None:
                egress.stream.end()
                self._remove_later(egress.directory)
            ended = [each.id for each in self._all.values() if each.state in FINAL]
            for name in ended[:-REMEMBERED]:
                del self._all[name]
        self._tell(egress)

    def _remove_later(self, directory: Path) -> None:
        """Players are behind, and play to the end: they fetch what the playlist names for as long as it is."""
        linger_s = self._settings.hls_window * self._settings.hls_segment_ms / 1000
        self._leaving[directory] = asyncio.get_running_loop().call_later(linger_s, self._remove, directory)

    def _remove(self, directory: Path) -> None:
        self._leaving.pop(directory).cancel()
        remove_files(directory)

    def _tell(self, egress: Egress) -> None:
        request = egress.request
        self._on_event(
            EgressChanged(
                egress.id, request.room, request.kind, request.source, egress.state, egress.code, egress.detail
            )
        )

    def _find(self, egress: str) -> Egress:
        if egress not in self._all:
            raise NotFound(f"no egress {egress!r}", code="egress-not-found")
        return self._all[egress]

    def _stream(self, egress: str) -> HlsStream:
        stream = self._find(egress).stream
        if stream is None:
            raise NotFound(f"{egress} is not HLS", code="egress-not-found")
        return stream

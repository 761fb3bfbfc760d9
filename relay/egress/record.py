"""Recording: fragmented MP4 that a kill -9 leaves playable up to its last fragment.

A thread writes, so that a slow disk holds back nobody: each fragment in one `write`, to disk every `sync_ms`. A file is
called `<stem>-<number>.recording.mp4` while it grows and `<stem>-<number>.mp4` when it is whole. `recover` makes the
second of the first after a crash. When the disk has less than `min_free_bytes` the recording ends with ENOSPC: the
rest of the node needs room too.
"""

from __future__ import annotations

import errno
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from relay.egress.media import AudioConfig, Unit, VideoUnit
from relay.egress.messages import AddRecording, FileClosed, FileOpened, Stated
from relay.egress.mp4 import whole_boxes
from relay.egress.segmenter import InitReady, PartReady, Segmenter

GROWING = ".recording.mp4"
CLOSE_S = 2.0


class RecordingOutput:
    """One recording. Raises OSError from `take` or `tick` once the thread has failed."""

    def __init__(
        self,
        wanted: AddRecording,
        audio: AudioConfig,
        video: bool,
        tell: Callable[[FileOpened | FileClosed | Stated], object],
    ) -> None:
        self.id = wanted.id
        directory = Path(wanted.directory)
        directory.mkdir(parents=True, exist_ok=True)
        recover(directory, wanted.stem)
        fragment_us = 1000 * wanted.fragment_ms
        self._segmenter = Segmenter(audio, fragment_us, fragment_us, 1 << 62, video=video)
        self._writer = _Writer(wanted, directory, tell)
        self._video = video
        self._skips = False
        self.dropped = 0

    @property
    def bytes(self) -> int:
        return self._writer.bytes

    @property
    def pictures(self) -> int:
        return self._writer.pictures

    def take(self, unit: Unit) -> None:
        """After an overflow of the queue, everything up to the next keyframe is left out."""
        if self._skips:
            if (self._video and not (isinstance(unit, VideoUnit) and unit.keyframe)) or self._writer.is_full():
                self.dropped += 1
                return
            self._skips = False
        self._put(self._segmenter.take(unit))

    def tick(self, now: int) -> None:
        self._put(self._segmenter.tick(now))
        if self._writer.error is not None:
            raise self._writer.error

    def close(self) -> None:
        """Write what is waiting, for `CLOSE_S` at most."""
        self._put(self._segmenter.finish())
        self._writer.close()
        if self._writer.error is not None:
            raise self._writer.error

    def _put(self, events: list[InitReady | PartReady] | list) -> None:  # type: ignore[type-arg]
        for event in events:
            if isinstance(event, InitReady | PartReady) and not self._writer.put(event):
                self._skips = True
                self._segmenter.finish()
                self.dropped += 1
                return


class _Writer:
    """The thread and its queue."""

    def __init__(self, wanted: AddRecording, directory: Path, tell: Callable[..., object]) -> None:
        self.bytes = self.pictures = 0
        self.error: OSError | None = None
        self._wanted, self._directory, self._tell = wanted, directory, tell
        self._number = wanted.number
        self._waiting = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[InitReady | PartReady | None] = queue.SimpleQueue()
        self._file: int | None = None
        self._name = ""
        self._size = 0
        self._init: InitReady | None = None
        self._synced = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def is_full(self) -> bool:
        return self._waiting > self._wanted.queue_bytes // 2

    def put(self, event: InitReady | PartReady) -> bool:
        with self._lock:
            if self._waiting + len(event.data) > self._wanted.queue_bytes:
                return False
            self._waiting += len(event.data)
        self._queue.put(event)
        return True

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            while (event := self._queue.get()) is not None:
                with self._lock:
                    self._waiting -= len(event.data)
                if isinstance(event, InitReady):
                    self._init = event
                    self._end_file()
                else:
                    self._append(event)
            self._end_file()
        except OSError as error:
            self._give_up()
            self.error = error

    def _append(self, part: PartReady) -> None:
        if self._file is not None and self._size >= self._wanted.max_file_bytes and part.independent:
            self._end_file()
        if self._file is None:
            self._open()
        self._write(part.data)
        self.pictures += part.pictures
        if time.monotonic() - self._synced >= self._wanted.sync_ms / 1000:
            assert self._file is not None
            os.fdatasync(self._file)
            self._synced = time.monotonic()

    def _open(self) -> None:
        assert self._init is not None
        space = os.statvfs(self._directory)
        if space.f_bavail * space.f_frsize < self._wanted.min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while True:
            self._name = f"{self._wanted.stem}-{self._number:04}"
            if not (self._directory / f"{self._name}.mp4").exists():
                break
            self._number += 1
        path = self._directory / (self._name + GROWING)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0
        self._write(self._init.data)
        _sync_directory(self._directory)
        self._tell(FileOpened(self._wanted.id, self._number, f"{self._name}.mp4"))
        self._tell(Stated(self._wanted.id, "running"))

    def _write(self, data: bytes) -> None:
        """Whole or not at all: what a full disk took of it is cut off again."""
        assert self._file is not None
        written = os.write(self._file, data)
        if written < len(data):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self.bytes += written

    def _end_file(self) -> None:
        if self._file is None:
            return
        descriptor, self._file = self._file, None
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(self._directory / (self._name + GROWING), self._directory / f"{self._name}.mp4")
        _sync_directory(self._directory)
        self._tell(FileClosed(self._wanted.id, f"{self._name}.mp4", self._size))
        self._number += 1

    def _give_up(self) -> None:
        """Keep what there is."""
        try:
            self._end_file()
        except OSError:
            pass  # the error that brought us here says why


def recover(directory: Path, stem: str = "") -> list[Path]:
    """Cut torn ends off files that a crash left growing, and give them their names. Returns these.

    Files without a whole fragment are removed. Only for a directory (and stem) that nobody records into now.
    """
    found: list[Path] = []
    for path in sorted(directory.glob(f"{stem}*{GROWING}")):
        size = _whole_size(path)
        if not size:
            path.unlink()
            continue
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
        whole = path.with_name(path.name.removesuffix(GROWING) + ".mp4")
        path.rename(whole)
        found.append(whole)
    return found


def _whole_size(path: Path) -> int:
    """Bytes up to the end of the last whole fragment; 0 when there is none."""
    size = path.stat().st_size
    if size < 8:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        boxes = whole_boxes(data, size)
    ends = [
        offset + length
        for (before, _, _), (kind, offset, length) in pairwise(boxes)
        if (before, kind) == (b"moof", b"mdat")
    ]
    return ends[-1] if ends else 0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

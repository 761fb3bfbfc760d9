"""LL-HLS as files of a directory, with the playlist told to the relay, which serves both."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from relay.egress.media import AudioConfig, Unit
from relay.egress.messages import AddHls, HlsAdvanced
from relay.egress.playlist import Playlist
from relay.egress.segmenter import Event, InitReady, PartReady, Segmenter, SegmentReady


class HlsOutput:
    """Writes what it is given; OSError when it cannot. `wall` is the wall clock's lead over the units' axis in µs."""

    def __init__(
        self, wanted: AddHls, audio: AudioConfig, video: bool, wall: int, tell: Callable[[HlsAdvanced], object]
    ) -> None:
        self.id = wanted.id
        self._directory = Path(wanted.directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        part_us, segment_us = 1000 * wanted.part_ms, 1000 * wanted.segment_ms
        self._segmenter = Segmenter(audio, part_us, segment_us, 3 * segment_us // 2, video=video)
        # Rounded as players round a segment's duration (RFC 8216bis, 4.4.3.1), a part longer than the longest segment.
        target_s = max(1, round((3 * segment_us // 2 + part_us) / 1_000_000))
        new = partial(Playlist, part_us, wanted.hold_back_parts, target_s, wanted.window)
        self._playlist = self._resumed(new, wanted.text) or new(sequence=wanted.sequence, discontinuity=wanted.init > 0)
        self._inits = wanted.init
        self._wall = wall
        self._tell = tell
        self._parts: list[bytes] = []
        self.bytes = self.pictures = self.dropped = 0

    def _resumed(self, new: Callable[[], Playlist], text: str) -> Playlist | None:
        """The playlist of an earlier process, to go on with: players never meet an empty one, and count breaks right.
        Its growing segment ends with what there is. None when that cannot be."""
        if not text:
            return None
        playlist = new()
        try:
            parts = playlist.go_on(text)
            playlist.note_left(path.name for path in self._directory.iterdir())
            if parts:
                whole = b"".join((self._directory / name).read_bytes() for name in parts)
                name, _, gone = playlist.end_segment()
                (self._directory / name).write_bytes(whole)
                for each in gone:
                    (self._directory / each).unlink(missing_ok=True)
        except (OSError, ValueError):
            return None
        return playlist

    def take(self, unit: Unit) -> None:
        self._write(self._segmenter.take(unit))

    def tick(self, now: int) -> None:
        self._write(self._segmenter.tick(now))

    def close(self) -> None:
        """End the playlist: players play to its end and stop."""
        with contextlib.suppress(OSError):
            self._write(self._segmenter.finish())
        self._playlist.ended = True
        self._advance()

    def _write(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case InitReady():
                    name = f"init{self._inits}.mp4"
                    self._inits += 1
                    (self._directory / name).write_bytes(event.data)
                    self._playlist.init(name)
                case PartReady():
                    (self._directory / self._playlist.next_part()).write_bytes(event.data)
                    self._parts.append(event.data)
                    wall = (event.start + self._wall) / 1_000_000
                    self._playlist.add_part(event.duration, event.independent, wall)
                    self.bytes += len(event.data)
                    self.pictures += event.pictures
                case SegmentReady():
                    self._end_segment()
        if events:
            self._advance()

    def _end_segment(self) -> None:
        if not self._parts:
            return
        whole, self._parts = b"".join(self._parts), []
        name, _, gone = self._playlist.end_segment()
        (self._directory / name).write_bytes(whole)
        for each in gone:
            (self._directory / each).unlink(missing_ok=True)

    def _advance(self) -> None:
        playlist = self._playlist
        self._tell(
            HlsAdvanced(self.id, playlist.sequence, playlist.parts, self._inits, playlist.ended, playlist.render())
        )


def remove_files(directory: Path) -> None:
    """Remove all that an output wrote."""
    shutil.rmtree(directory, ignore_errors=True)

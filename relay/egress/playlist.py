"""A live media playlist with partial segments (RFC 8216bis). Sans-IO.

Names tell everything apart for ever (`seg<sequence>.m4s`, `part<sequence>.<index>.m4s`, `init<number>.mp4`), so that
whatever they name may be cached without end.
"""

from __future__ import annotations

import datetime
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

END_LINE = "#EXT-X-ENDLIST\n"
PARTS_KEPT_TARGETS = 3
"""Parts older than three target durations from the end are left out (RFC 8216bis, 4.4.4.9)."""

_MAP = re.compile(r'#EXT-X-MAP:URI="(init\d{1,6}\.mp4)"')
_DATE = re.compile(r"#EXT-X-PROGRAM-DATE-TIME:(\S{1,40})")
_PART = re.compile(r'#EXT-X-PART:DURATION=(\d{1,6}\.\d{5}),URI="(part\d{1,12}\.\d{1,4}\.m4s)"(,INDEPENDENT=YES)?')
_INF = re.compile(r"#EXTINF:(\d{1,6}\.\d{5}),")
_FILE = re.compile(r"(?:seg(\d{1,12})|part(\d{1,12})\.\d{1,4})\.m4s")


@dataclass(slots=True)
class Part:
    name: str
    duration: int
    independent: bool


@dataclass(slots=True)
class Segment:
    sequence: int
    init: str
    discontinuity: bool
    wall: float
    """Seconds since the epoch of its first moment."""
    parts: list[Part] = field(default_factory=list)
    duration: int = 0

    @property
    def name(self) -> str:
        return f"seg{self.sequence}.m4s"


class Playlist:
    """The last `window` whole segments and the one that grows. Durations in microseconds."""

    def __init__(
        self,
        part_us: int,
        hold_back_parts: float,
        target_s: int,
        window: int,
        *,
        sequence: int = 0,
        discontinuity: bool = False,
    ) -> None:
        self._part_us, self._target_s, self._window = part_us, target_s, window
        self._hold_back_us = round(part_us * hold_back_parts)
        self._segments: deque[Segment] = deque()
        self._open: Segment | None = None
        self._sequence = sequence
        self._discontinuities = 0
        """Breaks that have left the list (EXT-X-DISCONTINUITY-SEQUENCE)."""
        self._init = ""
        self._breaks = discontinuity
        self._left: dict[int, set[str]] = {}
        """Files of earlier processes that no segment here knows of, by sequence."""
        self.ended = False

    def go_on(self, text: str) -> list[str]:
        """Begin where a playlist of an earlier process ended, with a break. Call it first. Returns the names of the
        parts of the segment that was growing: make it whole, and call `end_segment`.

        Raises ValueError for what `render` cannot have written.
        """
        found = re.search(r"^#EXT-X-MEDIA-SEQUENCE:(\d{1,12})$", text, re.M)
        breaks = re.search(r"^#EXT-X-DISCONTINUITY-SEQUENCE:(\d{1,12})$", text, re.M)
        if found is None or breaks is None:
            raise ValueError("no live playlist of ours")
        self._sequence, self._discontinuities = int(found[1]), int(breaks[1])
        fresh = Segment(self._sequence, "", False, 0.0)
        for line in text.splitlines():
            if line == "#EXT-X-DISCONTINUITY":
                fresh.discontinuity = True
            elif (match := _MAP.fullmatch(line)) is not None:
                self._init = match[1]
            elif (match := _DATE.fullmatch(line)) is not None:
                fresh.wall = datetime.datetime.fromisoformat(match[1]).timestamp()
            elif (match := _PART.fullmatch(line)) is not None:
                fresh.parts.append(Part(match[2], _microseconds(match[1]), bool(match[3])))
            elif (match := _INF.fullmatch(line)) is not None:
                fresh.init, fresh.duration = self._init, _microseconds(match[1])
                self._segments.append(fresh)
                self._sequence += 1
                fresh = Segment(self._sequence, "", False, 0.0)
        self._breaks = True
        if fresh.parts:
            fresh.init, fresh.duration = self._init, sum(part.duration for part in fresh.parts)
            self._open = fresh
        return [part.name for part in fresh.parts]

    def note_left(self, names: Iterable[str]) -> None:
        """These files are there. Those that `go_on` had no word of are told among the names that nobody needs any more
        when it is their time. Call it after `go_on`."""
        known = {each.name for each in self._segments}
        known |= {part.name for each in (*self._segments, *([self._open] if self._open else [])) for part in each.parts}
        for name in set(names) - known:
            if (found := _FILE.fullmatch(name)) is not None:
                self._left.setdefault(int(found[1] or found[2]), set()).add(name)

    @property
    def sequence(self) -> int:
        """Of the segment that grows, or comes next."""
        return self._sequence

    @property
    def parts(self) -> int:
        """Of the segment that grows."""
        return len(self._open.parts) if self._open else 0

    def next_part(self) -> str:
        """The name of the part that comes next."""
        return f"part{self._sequence}.{self.parts}.m4s"

    def init(self, name: str) -> None:
        """The parts from now on need another init segment. Call it between segments."""
        self._breaks = self._breaks or bool(self._init)
        self._init = name

    def add_part(self, duration: int, independent: bool, wall: float) -> None:
        """The part `next_part` is there; `wall` is when it begins."""
        name = self.next_part()
        if self._open is None:
            self._open = Segment(self._sequence, self._init, self._breaks, wall)
            self._breaks = False
        self._open.parts.append(Part(name, duration, independent))
        self._open.duration += duration

    def end_segment(self) -> tuple[str, list[str], list[str]]:
        """The growing segment is whole. Returns its name, its parts' names, and the names that nobody needs any more.

        Gone are segments that left the list as many places ago as it has: a player may be that late.
        """
        assert self._open is not None
        done, self._open = self._open, None
        self._segments.append(done)
        self._sequence += 1
        if len(self._segments) > self._window:
            self._discontinuities += self._segments[-self._window - 1].discontinuity
        gone: list[str] = []
        while len(self._segments) > 2 * self._window:
            old = self._segments.popleft()
            gone += [old.name, *(part.name for part in old.parts)]
        for sequence in [each for each in self._left if each < self._sequence - 2 * self._window]:
            gone += sorted(self._left.pop(sequence))
        return done.name, [part.name for part in done.parts], gone

    def render(self) -> str:
        """The playlist's text."""
        listed = list(self._segments)[-self._window :]
        first = listed[0].sequence if listed else self._sequence
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:9",
            f"#EXT-X-TARGETDURATION:{self._target_s}",
            f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={_seconds(self._hold_back_us)}",
            f"#EXT-X-PART-INF:PART-TARGET={_seconds(self._part_us)}",
            f"#EXT-X-MEDIA-SEQUENCE:{first}",
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{self._discontinuities}",
        ]
        init = ""
        ahead = sum(segment.duration for segment in listed) + (self._open.duration if self._open else 0)
        for segment in [*listed, *([self._open] if self._open else [])]:
            lines += self._lines(segment, segment.init != init, ahead)
            ahead -= segment.duration
            init = segment.init
        if self.ended:
            lines.append(END_LINE.rstrip())
        elif self._init:
            lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{self.next_part()}"')
        return "\n".join(lines) + "\n"

    def _lines(self, segment: Segment, names_init: bool, ahead: int) -> list[str]:
        lines = []
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if names_init:
            lines.append(f'#EXT-X-MAP:URI="{segment.init}"')
        date = datetime.datetime.fromtimestamp(segment.wall, datetime.UTC).isoformat(timespec="milliseconds")
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{date.replace('+00:00', 'Z')}")
        is_open = segment is self._open
        if is_open or ahead - segment.duration < PARTS_KEPT_TARGETS * self._target_s * 1_000_000:
            for part in segment.parts:
                independent = ",INDEPENDENT=YES" if part.independent else ""
                lines.append(f'#EXT-X-PART:DURATION={_seconds(part.duration)},URI="{part.name}"{independent}')
        if not is_open:
            lines += [f"#EXTINF:{_seconds(segment.duration)},", segment.name]
        return lines


def _microseconds(seconds: str) -> int:
    return round(float(seconds) * 1_000_000)


def _seconds(duration: int) -> str:
    return f"{duration / 1_000_000:.5f}"

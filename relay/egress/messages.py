"""What a relay and its egress processes say to each other (see `relay.process.control`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.egress.source import Stream
from relay.process.control import Message
from relay.stage.sender_clock import Anchor

# --- relay to process -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Read these streams of the tap ring. Said once, first. A keyframe is asked for when none came for so long."""

    streams: tuple[Stream, ...]
    keyframe_ms: int


@dataclass(frozen=True, slots=True)
class AddHls(Message):
    """Write LL-HLS into `directory`. `text` is the playlist of an earlier process to go on with; where that cannot be
    read, `sequence` and `init` are at least not used again."""

    id: str
    directory: str
    part_ms: int
    segment_ms: int
    hold_back_parts: float
    window: int
    sequence: int = 0
    init: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class AddRecording(Message):
    """Record into files `<stem>-<number>.mp4` of `directory`, from `number` on."""

    id: str
    directory: str
    stem: str
    number: int
    fragment_ms: int
    sync_ms: int
    queue_bytes: int
    min_free_bytes: int
    max_file_bytes: int


@dataclass(frozen=True, slots=True)
class AddPush(Message):
    """Push to an RTMP(S) address. `url` holds the stream's key: never logged."""

    id: str
    url: str
    allow_private: bool
    queue_bytes: int
    stall_ms: int
    retry_min_ms: int
    retry_max_ms: int


@dataclass(frozen=True, slots=True)
class Remove(Message):
    """End an output in good order; `Ended` answers."""

    id: str


@dataclass(frozen=True, slots=True)
class KnowSender(Message):
    """Which session sends both picture and sound ("": no single one does), and when a frame of each stream, by number,
    was captured by its sender reports, where they say so. It holds until it is said anew."""

    session: str
    captured: tuple[tuple[int, Anchor], ...]


@dataclass(frozen=True, slots=True)
class Follow(Message):
    """Go on with this stream of the same picture, from its next keyframe on; `Switched` answers then."""

    stream: Stream


ToProcess = Begin | AddHls | AddRecording | AddPush | Remove | KnowSender | Follow
TO_PROCESS = (Begin, AddHls, AddRecording, AddPush, Remove, KnowSender, Follow)

# --- process to relay -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HlsAdvanced(Message):
    """The playlist grew: `parts` of segment `sequence` are there. `inits` were written so far."""

    id: str
    sequence: int
    parts: int
    inits: int
    ended: bool
    text: str


@dataclass(frozen=True, slots=True)
class FileOpened(Message):
    """A recording goes on in file `number`."""

    id: str
    number: int
    name: str


@dataclass(frozen=True, slots=True)
class FileClosed(Message):
    """A recording's file is whole."""

    id: str
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Stated(Message):
    """An output's state changed. After `failed` and `ended` it is gone. `code` names the error for programs."""

    id: str
    state: Literal["starting", "running", "retrying", "failed", "ended"]
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Counted(Message):
    """An output's counts so far, once a second: bytes written, pictures written, units dropped because it was slow."""

    id: str
    bytes: int
    pictures: int
    dropped: int


@dataclass(frozen=True, slots=True)
class KeyframeWanted(Message):
    """The publisher of a stream has to be asked for a keyframe."""

    stream: int


@dataclass(frozen=True, slots=True)
class Switched(Message):
    """Pictures come from this stream now, and no more from any before it."""

    stream: int


FromProcess = HlsAdvanced | FileOpened | FileClosed | Stated | Counted | KeyframeWanted | Switched
FROM_PROCESS = (HlsAdvanced, FileOpened, FileClosed, Stated, Counted, KeyframeWanted, Switched)

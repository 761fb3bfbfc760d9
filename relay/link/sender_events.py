"""What happened in a link's sender: every transition is one of these, told once."""

from __future__ import annotations

from dataclasses import dataclass

from relay.link.paths import PathName


@dataclass(frozen=True, slots=True)
class FlowOpened:
    flow: int


@dataclass(frozen=True, slots=True)
class FlowClosed:
    flow: int


@dataclass(frozen=True, slots=True)
class FlowPaused:
    """A flow stopped or went on by the subscriber's wish."""

    flow: int
    paused: bool


@dataclass(frozen=True, slots=True)
class MediaMoved:
    """Media goes to other paths from the frame after `sync_id` on (0: before any frame). `resent` packets that were
    unacknowledged go again on the new path, `too_old` ones do not."""

    before: tuple[PathName, ...]
    after: tuple[PathName, ...]
    sync_id: int
    resent: int
    too_old: int


@dataclass(frozen=True, slots=True)
class PathOpened:
    path: PathName


@dataclass(frozen=True, slots=True)
class PathClosed:
    path: PathName


@dataclass(frozen=True, slots=True)
class FramesSkipped:
    """A path is too slow: a flow's waiting packets were dropped, and it skips to its next decodable frame there."""

    flow: int
    path: PathName
    packets: int


@dataclass(frozen=True, slots=True)
class KeyframeWanted:
    """No path carries a flow any more until its next keyframe: one should be asked for."""

    flow: int


@dataclass(frozen=True, slots=True)
class ParityChanged:
    """Loss was seen, or is over: one parity packet for `group` packets from now on, 0 for none."""

    group: int


SenderEvent = (
    FlowOpened
    | FlowClosed
    | FlowPaused
    | MediaMoved
    | PathOpened
    | PathClosed
    | FramesSkipped
    | KeyframeWanted
    | ParityChanged
)

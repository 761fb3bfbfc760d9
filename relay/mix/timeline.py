"""Program time: which frame of an input an output frame shows, and the timestamps of the output.

All times are monotonic microseconds of this machine. Every process of a node reads the same clock, so that a
program's timeline is a matter of arithmetic: a worker that takes over computes the timestamps that the one before it
would have computed, and needs only its sequence number.

An input's frames are due `delay` after the earliest arrival that they could have had, which is the lower envelope of
arrival over media time. How long after capture that is, is known where the sender's clock is (`InputTimeline.lag`):
`relay.stage.lips` chooses `delay` by it, so that sound and picture of one moment are due together.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from relay.errors import UsageError
from relay.ids import sync_id_at

VIDEO_CLOCK_HZ = 90_000
JUMP_US = 1_000_000
"""A frame that is further than this from where its clock says is one of a clock that jumped."""
WINDOW_US = 4_000_000
"""The envelope forgets an early arrival after one to two of these: clocks drift, and routes get longer."""
MAX_WAITING = 90
"""Frames of an input that wait for their time: 1.5 s at 60 a second."""

NEAR_US = 1000
"""A change so shortly after a frame is meant to be in it."""

_TURN = 1 << 32
_HALF_TURN = 1 << 31


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """An input's timestamps went `by_us` away from its arrivals; the input goes on from here."""

    by_us: int


class OutputTimeline:
    """The frames of a program: frame `n` is at `epoch + n / fps`, whoever makes it."""

    def __init__(self, epoch: int, timestamp: int, fps: int, wall_offset: int) -> None:
        """`timestamp` is that of frame 0, `wall_offset` the wall clock (µs since the Unix epoch) minus program time."""
        if fps < 1:
            raise UsageError(f"a program of {fps} frames a second")
        self.epoch, self.fps = epoch, fps
        self._timestamp, self._wall_offset = timestamp, wall_offset

    def at(self, frame: int) -> int:
        """When a frame is due."""
        return self.epoch + frame * 1_000_000 // self.fps

    def frame_after(self, now: int) -> int:
        """The first frame that is due after `now`."""
        frame = max(0, (now - self.epoch) * self.fps // 1_000_000)
        while self.at(frame) <= now:
            frame += 1
        return frame

    def timestamp(self, frame: int) -> int:
        """Its RTP timestamp."""
        return (self._timestamp + frame * VIDEO_CLOCK_HZ // self.fps) % _TURN

    def wall_us(self, frame: int) -> int:
        """Its wall time in µs since the epoch."""
        return self.at(frame) + self._wall_offset

    def sync_id(self, frame: int) -> int:
        """Its sync id."""
        return sync_id_at(self.wall_us(frame))

    def holds(self, frame: int) -> int:
        """The last sync id of a change that is in it. A viewer knows a frame's sync id from its RTP timestamp, not to
        the microsecond; what he asks for on that frame must not come one later."""
        return sync_id_at(self.wall_us(frame) + NEAR_US)


class InputTimeline:
    """The clock of one input: RTP timestamps and arrivals in, program time out."""

    def __init__(self, delay: int, clock_hz: int = VIDEO_CLOCK_HZ) -> None:
        self.delay = delay
        self._clock_hz = clock_hz
        self._last: int | None = None
        self._ticks = 0
        self._offset = 0
        self._window_start = 0
        self._window_least: int | None = None

    def receive(self, timestamp: int, arrival: int) -> tuple[int, ClockJumped | None]:
        """Take a frame's RTP timestamp and arrival. Returns its media time, which `due` takes, and any jump."""
        jumped = None
        if self._last is None:
            self._begin(arrival)
            ticks = 0
        else:
            ticks = self._ticks + self._steps(timestamp)
            away = arrival - self._micros(ticks) - self._offset
            if abs(away) > JUMP_US:
                jumped = ClockJumped(-away)
                ticks = self._restart(arrival)
            else:
                self._narrow(arrival - self._micros(ticks), arrival)
        if self._last is None or ticks >= self._ticks:
            self._last, self._ticks = timestamp, ticks
        return self._micros(ticks), jumped

    def lag(self, timestamp: int, captured: int) -> int:
        """How long after capture the earliest frames arrive, when `timestamp` was captured at `captured` µs of any
        clock. Call it after `receive`."""
        return self._offset + self._micros(self._ticks + self._steps(timestamp)) - captured

    def due(self, media: int) -> int:
        """When a frame is to be shown."""
        return media + self._offset + self.delay

    def _begin(self, arrival: int) -> None:
        self._offset = arrival
        self._window_start, self._window_least = arrival, None

    def _restart(self, arrival: int) -> int:
        """Media time goes on by one tick from the newest frame and stands for now."""
        ticks = self._ticks + 1
        self._last = None  # whatever comes is the newest
        self._begin(arrival - self._micros(ticks))
        self._window_start = arrival
        return ticks

    def _micros(self, ticks: int) -> int:
        return ticks * 1_000_000 // self._clock_hz

    def _narrow(self, offset: int, arrival: int) -> None:
        least = self._window_least
        self._window_least = offset if least is None else min(least, offset)
        if arrival - self._window_start > WINDOW_US:
            self._offset, self._window_start, self._window_least = self._window_least, arrival, None
        self._offset = min(self._offset, offset)

    def _steps(self, timestamp: int) -> int:
        assert self._last is not None
        return ((timestamp - self._last + _HALF_TURN) % _TURN) - _HALF_TURN


F = TypeVar("F")


class DueQueue(Generic[F]):
    """Coded frames of an input that wait for their time, in the order in which they have to be decoded.

    They are decoded when they are due and not before: a decoded frame is large, and is still in the cache then.
    """

    def __init__(self, timeline: InputTimeline) -> None:
        self.timeline = timeline
        self._waiting: deque[tuple[int, F]] = deque()
        self._started = False

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, media: int, frame: F) -> bool:
        """Add a frame. False when too many wait: all are dropped, and what comes next cannot be decoded."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            return False
        self._waiting.append((media, frame))
        return True

    def take(self, now: int) -> list[F]:
        """The frames that are due by `now`: decode all, show the last. The very first one is due at once."""
        due = []
        while self._waiting:
            media, frame = self._waiting[0]
            if self._started and self.timeline.due(media) > now:
                break
            self._started = True
            self._waiting.popleft()
            due.append(frame)
        return due

    def restart(self) -> None:
        """Drop what waits; the next frame is due at once again."""
        self._waiting.clear()
        self._started = False

"""When a layer's frames were, told by one process to another: readings of its line (`relay.stage.timeline`).

A line is known by one frame on it. It is told again now and then, and at once when what was told is off.
"""

from __future__ import annotations

from relay.stage.timeline import Reading, Timeline

REPEAT_S = 1.0
"""Between readings of a line that does not move."""
JUMP_US = 1_000
"""A line that is off by more is told at once."""

_JUMP = JUMP_US * 8192 // 125  # as sync ids differ


class ToldLine:
    """What the other process was told of one layer's line. Times in seconds."""

    def __init__(self, clock_hz: int) -> None:
        self._line = LedTimeline(clock_hz)
        self._ssrc = -1
        self._at = 0.0

    def is_due(self, reading: Reading, now: float) -> bool:
        """Say whether a frame's reading has to be told; it is taken for told then."""
        ssrc, timestamp, sync_id = reading
        if ssrc == self._ssrc and now - self._at < REPEAT_S:
            expected = self._line.led(timestamp)
            if expected is not None and abs(expected - sync_id) <= _JUMP:
                return False
        self._line.lead(*reading)
        self._ssrc, self._at = ssrc, now
        return True


class LedTimeline(Timeline):
    """A line that the other process knows better. Of a stream that it has not told of, arrival here has to do."""

    __slots__ = ("_came", "_own")

    def __init__(self, clock_hz: int) -> None:
        super().__init__(clock_hz)
        self._own = Timeline(clock_hz)
        self._came = -1

    def lead(self, ssrc: int, timestamp: int, sync_id: int) -> None:
        """This is a frame on the line now, whatever was said before."""
        self.anchored = False
        self.anchor(ssrc, timestamp, sync_id)

    def led(self, timestamp: int) -> int | None:
        """A frame's sync id by what was told alone."""
        return super().sync_id(timestamp)

    def note(self, ssrc: int, timestamp: int, arrival: int) -> None:
        self._came = ssrc
        self._own.note(ssrc, timestamp, arrival)

    def sync_id(self, timestamp: int) -> int | None:
        return self.led(timestamp) if self._ssrc == self._came else self._own.sync_id(timestamp)

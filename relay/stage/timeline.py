"""When the frames of one layer happened: RTP timestamp to sync id, the same for local viewers and for other nodes.

At the origin a frame's time is when it came, less what the network delayed it beyond the least: the least of
`arrival - timestamp` over the last seconds is the line on which all frames lie. It is followed slowly, so that sync ids
keep the frames' order. A subscriber takes the line from the sync ids that come with the frames.
"""

from __future__ import annotations

from collections import deque

from relay.ids import SYNC_IDS_PER_SECOND, sync_id_at, sync_id_microseconds

BUCKET_US = 1_000_000
BUCKETS = 8  # seconds that the least delay is sought in: a clock that is off by 100 ppm moves 0.8 ms meanwhile
DOWN = 4  # the line moves towards earlier by at most a quarter of the time that passes: order is kept
UP = 50  # and towards later by 20 ms a second: a detour of the network, or a slow clock
RESTART_US = 2_000_000  # beyond this it is another clock
LATE_US = 1_000_000  # and not only a jam when it has been late for so long
NEAR_US = 60_000_000  # timestamps further from the newest are another stream's

Reading = tuple[int, int, int]
"""Of a frame: the stream's SSRC, its RTP timestamp, its sync id."""

_M32 = 0xFFFFFFFF
_HALF32 = 0x80000000


class Timeline:
    """One layer. Times are wall clock in microseconds since the epoch; `clock_hz` is the RTP clock."""

    __slots__ = ("_buckets", "_late_since", "_line", "_ssrc", "_ticks", "anchored", "clock_hz")

    def __init__(self, clock_hz: int) -> None:
        self.clock_hz = clock_hz
        self.anchored = False
        """Whether sync ids came with the frames: then arrival tells nothing more."""
        self._ssrc = -1
        self._ticks = 0  # the newest RTP timestamp, unwrapped
        self._line = 0  # time of a frame minus its media time
        self._buckets: deque[tuple[int, int]] = deque()  # (second of media time, least `arrival - media time`)
        self._late_since = -1

    @property
    def known(self) -> bool:
        """Whether any frame was noted."""
        return self._ssrc >= 0

    @property
    def newest(self) -> int:
        """RTP timestamp of the newest frame that was noted."""
        return self._ticks & _M32

    def note(self, ssrc: int, timestamp: int, arrival: int) -> None:
        """A frame of stream `ssrc` began to arrive. Another stream begins the line anew."""
        if self.anchored:
            return
        if ssrc != self._ssrc:
            self._begin(ssrc, timestamp, arrival)
            return
        ticks = self._unwrap(timestamp)
        media = self._media(ticks)
        delay = arrival - media
        off = delay - self._line
        if off < -RESTART_US or (off > RESTART_US and self._is_late(arrival)):
            self._begin(ssrc, timestamp, arrival)
            return
        if off > RESTART_US:
            return
        self._late_since = -1
        self._remember(media // BUCKET_US, delay)
        passed = media - self._media(self._ticks)
        if passed > 0:
            self._ticks = ticks
            self._follow(min(delay for _, delay in self._buckets), passed)

    def anchor(self, ssrc: int, timestamp: int, sync_id: int) -> None:
        """A frame came with its sync id. One that is older than the newest changes nothing."""
        at = sync_id_microseconds(sync_id)
        if ssrc != self._ssrc or not self.anchored:
            self.anchored = True
            self._begin(ssrc, timestamp, at)
            return
        ticks = self._unwrap(timestamp)
        if ticks > self._ticks:
            self._ticks = ticks
            self._line = at - self._media(ticks)

    def expect(self) -> None:
        """Sync ids will come with the frames. Until one does nothing is known: what arrival has told is forgotten."""
        if not self.anchored:
            self.anchored, self._ssrc = True, -1

    @property
    def reading(self) -> Reading | None:
        """The newest frame that was noted; None before any."""
        sync_id = self.sync_id(self.newest)
        return None if sync_id is None else (self._ssrc, self.newest, sync_id)

    def sync_id(self, timestamp: int) -> int | None:
        """Return a frame's sync id; None before any frame, and for a timestamp that is none of this stream's."""
        if not self.known:
            return None
        ticks = self._unwrap(timestamp)
        if abs(ticks - self._ticks) * 1_000_000 > NEAR_US * self.clock_hz:
            return None
        return max(0, sync_id_at(self._line + self._media(ticks)))

    def timestamp(self, sync_id: int) -> int | None:
        """Return the RTP timestamp of a sync id; None before any frame."""
        if not self.known:
            return None
        return -(-(sync_id_microseconds(sync_id) - self._line) * self.clock_hz // 1_000_000) & _M32

    def _begin(self, ssrc: int, timestamp: int, at: int) -> None:
        self._ssrc, self._ticks, self._late_since = ssrc, timestamp, -1
        self._line = at - self._media(timestamp)
        self._buckets.clear()
        self._buckets.append((self._media(timestamp) // BUCKET_US, self._line))

    def _is_late(self, arrival: int) -> bool:
        """Frames that are far too late are a jam that ends, or, when it does not end, another clock."""
        if self._late_since < 0:
            self._late_since = arrival
        return arrival - self._late_since > LATE_US

    def _remember(self, second: int, delay: int) -> None:
        buckets = self._buckets
        if second > buckets[-1][0]:
            buckets.append((second, delay))
            while buckets[0][0] <= second - BUCKETS:
                buckets.popleft()
        elif second == buckets[-1][0] and delay < buckets[-1][1]:
            buckets[-1] = (second, delay)

    def _follow(self, least: int, passed: int) -> None:
        off = least - self._line
        self._line += max(off, -(passed // DOWN)) if off < 0 else min(off, passed // UP)

    def _unwrap(self, timestamp: int) -> int:
        delta = (timestamp - self._ticks) & _M32
        return self._ticks + (delta if delta < _HALF32 else delta - (1 << 32))

    def _media(self, ticks: int) -> int:
        return ticks * 1_000_000 // self.clock_hz


def advance(sync_id: int, ticks: int, clock_hz: int) -> int:
    """Return the sync id `ticks` of the RTP clock after another one."""
    return max(0, sync_id + ticks * SYNC_IDS_PER_SECOND // clock_hz)

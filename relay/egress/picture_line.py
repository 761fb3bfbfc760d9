"""One stream of pictures, from its packets to units on the time axis. Sans-IO; time in monotonic microseconds."""

from __future__ import annotations

from typing import NamedTuple

from relay.egress.h264 import Depacketiser
from relay.egress.media import VIDEO_RATE, VideoCodec, VideoUnit
from relay.egress.reorder import Ordered, Reorder
from relay.egress.timing import RtpClock
from relay.egress.vp8 import Vp8Depacketiser
from relay.plane.reference.rtp import Packet

KEYFRAME_RETRY_US = 500_000


class Shown(NamedTuple):
    """A picture where its arrival puts it, and which it is of its stream."""

    unit: VideoUnit
    ssrc: int
    timestamp: int


class PictureLine:
    """Its first unit is a keyframe, and so is the first one after a loss. `keyframe_at` is when the last one came."""

    def __init__(self, codec: VideoCodec) -> None:
        self.clock = RtpClock(VIDEO_RATE)
        self.keyframe_at = 0
        self._order = Reorder()
        self._reader = Vp8Depacketiser() if codec == "vp8" else Depacketiser()
        self._asked = 0

    @property
    def lost(self) -> int:
        """Packets."""
        return self._order.lost

    @property
    def damaged(self) -> int:
        """Pictures and packets that were of no use."""
        return self._reader.damaged + self._reader.bad

    def push(self, packet: Packet) -> list[Shown]:
        """Take a packet in any order."""
        return [shown for each in self._order.push(packet) for shown in self._take(each)]

    def expire(self, now: int) -> list[Shown]:
        """Give up what is missing for too long."""
        return [shown for each in self._order.expire(now) for shown in self._take(each)]

    def wants_keyframe(self, now: int, *, soon: bool) -> bool:
        """Whether its publisher has to be asked for a keyframe now, because none can be done without or the next one
        has to come `soon`; true at most once in `KEYFRAME_RETRY_US`."""
        if not (soon or self._reader.waits) or now - self._asked < KEYFRAME_RETRY_US:
            return False
        self._asked = now
        return True

    def _take(self, ordered: Ordered) -> list[Shown]:
        packet = ordered.packet
        if self._reader.waits and packet.payload:  # the first picture's moment comes from more than its own packets
            self.clock.time(packet.timestamp, packet.arrival)
        found: list[Shown] = []
        for picture in self._reader.push(ordered):
            parameters = self._reader.parameters
            assert parameters is not None
            if picture.keyframe:
                self.keyframe_at = picture.arrival
            time = self.clock.time(picture.timestamp, picture.arrival)
            unit = VideoUnit(time, picture.keyframe, parameters, picture.data)
            found.append(Shown(unit, packet.ssrc, picture.timestamp))
        return found

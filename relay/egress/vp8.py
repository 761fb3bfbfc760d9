"""VP8 from RTP packets (RFC 7741) to frames (RFC 6386). Sans-IO.

As with H264, nothing comes after a loss until the next keyframe.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.egress.picture import MAX_PICTURE, Picture
from relay.egress.reorder import Ordered
from relay.errors import PeerError
from relay.plane.reference.descriptors import inspect_vp8
from relay.plane.reference.rtp import Packet
from relay.plane.vp8_payload import vp8_frame

_START_CODE = b"\x9d\x01\x2a"


class Vp8Parameters(NamedTuple):
    """What a keyframe says of itself and those after it. `profile` is its "version" (0 to 3)."""

    profile: int
    width: int
    height: int


def parse_keyframe(data: bytes) -> Vp8Parameters | None:
    """Read a frame's header (RFC 6386 9.1); None for a frame that is no keyframe. Raises PeerError for nonsense."""
    tag = int.from_bytes(data[:3], "little")
    keyframe = not tag & 1
    head = 10 if keyframe else 3
    if len(data) < head or head + (tag >> 5) > len(data):
        raise PeerError("a VP8 frame that ends before its first partition does")
    if tag >> 1 & 7 > 3:
        raise PeerError(f"a VP8 frame of version {tag >> 1 & 7}")
    if not keyframe:
        return None
    width, height = int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    if data[3:6] != _START_CODE or not width or not height:
        raise PeerError("a VP8 keyframe without a start code or a size")
    return Vp8Parameters(tag >> 1 & 7, width, height)


class Vp8Depacketiser:
    """One stream's. `damaged` counts pictures dropped because of loss or nonsense, `bad` those that are nonsense."""

    def __init__(self) -> None:
        self.damaged = 0
        self.bad = 0
        self.parameters: Vp8Parameters | None = None
        self.waits = True
        """For a keyframe."""
        self._timestamp: int | None = None
        self._begin(None)

    def push(self, ordered: Ordered) -> list[Picture]:
        """Take a packet in its place; return the pictures that it completes (at most two)."""
        packet = ordered.packet
        found: list[Picture] = []
        if ordered.lost:
            self._spoil()
        if not packet.payload:  # padding that probes for bandwidth
            return found
        if packet.timestamp != self._timestamp:
            found += self._end()
            self._begin(packet.timestamp)
            # What was lost belongs to this picture unless its beginning is here; so it is with a stream's first packet.
            self._broken = not _begins(packet)
        if not self._broken:
            self._packets.append(packet)
            self._size += packet.payload_end - packet.payload_offset
            if self._size > MAX_PICTURE:
                self._spoil()
        if packet.marker:
            found += self._end()
            self._begin(None)
        return found

    def _begin(self, timestamp: int | None) -> None:
        self._timestamp = timestamp
        self._packets: list[Packet] = []
        self._size = 0
        self._broken = False

    def _spoil(self) -> None:
        """What came so far of this picture, or belongs to it, is of no use, nor is what refers to it."""
        self._broken = self.waits = True
        self._packets.clear()

    def _end(self) -> list[Picture]:
        packets, self._packets = self._packets, []
        if self._broken:
            self.damaged += 1
            self.waits = True
        if self._broken or not packets:
            return []
        first, data = packets[0], vp8_frame(packets) or b""
        try:
            parameters = parse_keyframe(data)
        except PeerError:
            self.bad += 1
            self.damaged += 1
            self.waits = True
            return []
        if parameters is not None:
            self.parameters, self.waits = parameters, False
        if self.waits:
            return []
        return [Picture(first.timestamp, first.arrival, parameters is not None, data)]


def _begins(packet: Packet) -> bool:
    return inspect_vp8(packet.data, packet.payload_offset, packet.payload_end).is_frame_start

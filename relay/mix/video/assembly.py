"""RTP packets of a VP8 or H264 layer become access units that a decoder takes (RFC 7741, RFC 6184). No I/O.

Packets come from a tap, so the relay has already asked for lost ones; what is missing here for `PATIENCE_US` is lost.
After a loss nothing is handed out before the next keyframe, as the frames between refer to what is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.plane.reference import rtp
from relay.plane.reference.descriptors import inspect_h264, inspect_vp8
from relay.plane.vp8_payload import vp8_frame
from relay.stage.capture import captured_ntp

VideoCodec = Literal["vp8", "h264"]

PATIENCE_US = 120_000
MAX_HELD = 2048
"""Packets that wait for others: a keyframe of 2 MB."""
MAX_LEAP = 3000
"""Sequence numbers further away than this are another stream's."""

MAX_EARLY = 128
"""Packets of a stream that just began which are kept in case that earlier ones were overtaken: by a link's two paths,
say, where the first to come need not be the first."""

_START_CODE = b"\x00\x00\x00\x01"
_STAP_A, _FU_A = 24, 28


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """A whole coded frame: `data` as the decoder wants it. `capture` is the sender's NTP time (64 bits) if told."""

    data: bytes
    timestamp: int
    keyframe: bool
    arrival: int
    capture: int | None = None
    ssrc: int = 0


class Assembler:
    """One layer's packets in any order, its access units in theirs."""

    def __init__(self, codec: VideoCodec) -> None:
        self._vp8 = codec == "vp8"
        self._inspect = inspect_vp8 if self._vp8 else inspect_h264
        self._held: dict[int, rtp.Packet] = {}
        self._next: int | None = None
        self._ssrc: int | None = None
        self._frame: list[rtp.Packet] = []
        self._waits_since: int | None = None
        self._early: list[rtp.Packet] | None = []
        self.broken = True
        """True until a keyframe came, and from a loss or a fault to the next one."""
        self.malformed = self.lost = 0

    def receive(self, data: bytes, arrival: int) -> list[AccessUnit]:
        """Take a packet; return the access units that it completes."""
        packet = rtp.parse(data, arrival)
        if packet is None:
            self.malformed += 1
            return []
        if self._ssrc != packet.ssrc:
            self._restart(packet)
        assert self._next is not None
        ahead = rtp.seq_delta(packet.seq, self._next)
        if abs(ahead) > MAX_LEAP:
            self._restart(packet)
        elif ahead < 0:
            if self._early is None:
                return []
            self._begin_at(packet.seq)
        self._held[packet.seq] = packet
        units = self._run()
        if self._held and (self._overdue(arrival) or len(self._held) > MAX_HELD):
            self._give_up()
            units += self._run()
        return units

    def fault(self) -> None:
        """The decoder could not use what it got: begin again at a keyframe."""
        self.broken = True

    def _restart(self, packet: rtp.Packet) -> None:
        self._ssrc, self._next, self.broken = packet.ssrc, packet.seq, True
        self._held.clear()
        self._frame, self._waits_since, self._early = [], None, []

    def _begin_at(self, seq: int) -> None:
        """The stream begins earlier than it seemed, and nothing of it was handed out yet."""
        self._held |= {packet.seq: packet for packet in self._early or ()}
        self._next, self._frame, self._early = seq, [], []

    def _overdue(self, arrival: int) -> bool:
        if self._waits_since is None:
            self._waits_since = arrival
        return arrival - self._waits_since > PATIENCE_US

    def _give_up(self) -> None:
        """Go on behind the gap."""
        assert self._next is not None
        behind, self._early = self._next, None
        nearest = min(self._held, key=lambda seq: (seq - behind) & rtp.SEQ_MASK)
        self.lost += (nearest - behind) & rtp.SEQ_MASK
        self._next, self._frame, self._waits_since, self.broken = nearest, [], None, True

    def _run(self) -> list[AccessUnit]:
        units = []
        assert self._next is not None
        while (packet := self._held.pop(self._next, None)) is not None:
            self._next = (self._next + 1) & rtp.SEQ_MASK
            self._waits_since = None
            if self._early is not None:
                self._early.append(packet)
            if packet.payload_end <= packet.payload_offset:
                continue  # padding
            if self._frame and self._frame[0].timestamp != packet.timestamp:
                units += self._complete()  # its marker was never set
            self._frame.append(packet)
            if packet.marker:
                units += self._complete()
        if units or (self._early is not None and len(self._early) > MAX_EARLY):
            self._early = None
        return units

    def _complete(self) -> list[AccessUnit]:
        frame, self._frame = self._frame, []
        first = frame[0]
        seen = self._inspect(first.data, first.payload_offset, first.payload_end)
        keyframe = seen.is_keyframe_start or (self.broken and not self._vp8 and any(map(self._begins, frame)))
        if self.broken and not keyframe:
            return []
        data = vp8_frame(frame) if self._vp8 else h264_frame(frame)
        # An H264 frame may begin with units that say nothing of it (SEI, a delimiter); its place was checked by order.
        if data is None or (self._vp8 and not seen.is_frame_start):
            self.malformed += 1
            self.broken = True
            return []
        self.broken = False
        return [AccessUnit(data, first.timestamp, keyframe, frame[-1].arrival, captured_ntp(first), first.ssrc)]

    def _begins(self, packet: rtp.Packet) -> bool:
        """A delimiter or SEI may stand before the parameter sets of an H264 keyframe."""
        return self._inspect(packet.data, packet.payload_offset, packet.payload_end).is_keyframe_start


def h264_frame(packets: list[rtp.Packet]) -> bytes | None:
    """The frame's NAL units with start codes (Annex B); None when a payload is malformed (RFC 6184 5.6 to 5.8)."""
    parts: list[bytes] = []
    inside = False  # of a fragmented unit
    for packet in packets:
        data, start, end = packet.data, packet.payload_offset, packet.payload_end
        kind = data[start] & 0x1F
        if kind == _FU_A:
            if end - start < 3:
                return None
            header = data[start + 1]
            if header & 0x80:
                parts += (_START_CODE, bytes((data[start] & 0xE0 | header & 0x1F,)))
            elif not inside:
                return None
            inside = not header & 0x40
            parts.append(data[start + 2 : end])
            continue
        if inside:
            return None
        if kind == _STAP_A:
            if not _unpack_stap_a(data, start + 1, end, parts):
                return None
        elif 1 <= kind <= 23:
            parts += (_START_CODE, data[start:end])
        else:
            return None
    return None if inside else b"".join(parts)


def _unpack_stap_a(data: bytes, position: int, end: int, parts: list[bytes]) -> bool:
    while position + 2 <= end:
        size = data[position] << 8 | data[position + 1]
        position += 2
        if not size or position + size > end:
            return False
        parts += (_START_CODE, data[position : position + size])
        position += size
    return position == end

"""Coded frames of the program become RTP packets: H264 (RFC 6184, packetization mode 1) and VP8 (RFC 7741). No I/O.

Each frame carries its wall time as abs-capture-time, so that a viewer can align sound and picture.
"""

from __future__ import annotations

from relay.mix.video.assembly import VideoCodec
from relay.plane.reference import rtp
from relay.stage.capture import CAPTURE_TIME_ID

MAX_PAYLOAD = 1180
"""Bytes: with header, extensions, SRTP and UDP over IPv6 below 1280, the least that every path carries."""
NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900 to 1970 (RFC 5905)."""

_STAP_A, _FU_A = 24, 28
_PICTURE_IDS = 1 << 15


class Packetizer:
    """One program's stream. `sequence` is the next packet's, `picture_id` the next VP8 frame's."""

    def __init__(self, codec: VideoCodec, ssrc: int, payload_type: int, sequence: int, picture_id: int = 0) -> None:
        self._vp8 = codec == "vp8"
        self._ssrc, self._payload_type = ssrc, payload_type
        self.sequence, self.picture_id = sequence & rtp.SEQ_MASK, picture_id % _PICTURE_IDS

    def packets(self, frame: bytes, timestamp: int, wall_us: int) -> list[bytes]:
        """The packets of a coded frame (H264: Annex B)."""
        if self._vp8:
            payloads = vp8_payloads(frame, self.picture_id)
            self.picture_id = (self.picture_id + 1) % _PICTURE_IDS
        else:
            payloads = h264_payloads(frame)
        made = []
        last = len(payloads) - 1
        capture = [(CAPTURE_TIME_ID, ntp(wall_us))]
        for index, payload in enumerate(payloads):
            extensions = capture if index == 0 else ()
            header = rtp.build_header(
                self._payload_type, index == last, self.sequence, timestamp, self._ssrc, extensions
            )
            made.append(header + payload)
            self.sequence = (self.sequence + 1) & rtp.SEQ_MASK
        return made


def ntp(wall_us: int) -> bytes:
    """64 bits of NTP time (RFC 5905 6): seconds since 1900 and their fraction."""
    seconds, rest = divmod(wall_us, 1_000_000)
    return ((seconds + NTP_EPOCH_S << 32 | (rest << 32) // 1_000_000) % (1 << 64)).to_bytes(8, "big")


def vp8_payloads(frame: bytes, picture_id: int) -> list[bytes]:
    """Cut a frame, with X, I and a picture id of 15 bits before each part, S before the first."""
    tail = bytes((0x80, 0x80 | picture_id >> 8, picture_id & 0xFF))
    size = MAX_PAYLOAD - 1 - len(tail)
    return [
        bytes((0x90 if not start else 0x80,)) + tail + frame[start : start + size]
        for start in range(0, len(frame), size)
    ]


def h264_payloads(frame: bytes) -> list[bytes]:
    """Small NAL units in a row share a STAP-A, large ones become FU-A, the others stand alone."""
    payloads: list[bytes] = []
    together: list[bytes] = []
    held = 1
    for unit in nal_units(frame):
        if len(unit) + 2 + held > MAX_PAYLOAD and together:
            payloads.append(_together(together))
            together, held = [], 1
        if len(unit) > MAX_PAYLOAD:
            payloads += _fragments(unit)
        else:
            together.append(unit)
            held += 2 + len(unit)
    if together:
        payloads.append(_together(together))
    return payloads


def nal_units(frame: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream, without start codes and trailing zeros."""
    units = []
    start = frame.find(b"\x00\x00\x01")
    while start >= 0:
        end = frame.find(b"\x00\x00\x01", start + 3)
        unit = frame[start + 3 : end if end >= 0 else len(frame)].rstrip(b"\x00")
        if unit:
            units.append(unit)
        start = end
    return units


def _together(units: list[bytes]) -> bytes:
    if len(units) == 1:
        return units[0]
    importance = max(unit[0] & 0x60 for unit in units)
    return bytes((_STAP_A | importance,)) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _fragments(unit: bytes) -> list[bytes]:
    """Of even sizes, so that segmentation offload can send them in one call."""
    count = -(-(len(unit) - 1) // (MAX_PAYLOAD - 2))
    size = -(-(len(unit) - 1) // count)
    indicator, kind = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F
    parts = []
    for index in range(count):
        flags = (0x80 if index == 0 else 0) | (0x40 if index == count - 1 else 0)
        parts.append(bytes((indicator, flags | kind)) + unit[1 + index * size : 1 + (index + 1) * size])
    return parts

"""RTP packets: parse, build, serial arithmetic (RFC 3550), header extensions (RFC 8285), retransmission (RFC 4588).

A `Packet` keeps the datagram it came in and the places of its parts, so that forwarding to many viewers copies the
payload once per viewer and parses once in all. A bad header costs the packet; a bad extension block costs only the
extensions of that packet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from types import MappingProxyType
from typing import TYPE_CHECKING

from relay.errors import UsageError

if TYPE_CHECKING:
    from relay.plane.reference.descriptors import Descriptor
    from relay.plane.reference.packets import Place

HEADER_LENGTH = 12
ONE_BYTE_PROFILE = 0xBEDE
TWO_BYTE_PROFILE = 0x1000
TWO_BYTE_MASK = 0xFFF0  # the low four bits are "appbits", free for the application (RFC 8285 4.3)
ONE_BYTE_MAX_ID = 14
ONE_BYTE_MAX_LENGTH = 16
SEQ_MASK = 0xFFFF
TIMESTAMP_MASK = 0xFFFFFFFF
_SEQ_HALF = 0x8000
_TIMESTAMP_HALF = 0x80000000

# URIs as they stand in `a=extmap`, by the name the relay uses.
EXTENSIONS: Mapping[str, str] = MappingProxyType(
    {
        "mid": "urn:ietf:params:rtp-hdrext:sdes:mid",
        "rid": "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
        "rrid": "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
        "audio_level": "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "abs_send_time": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "transport_cc": "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "toffset": "urn:ietf:params:rtp-hdrext:toffset",
        "orientation": "urn:3gpp:video-orientation",
        "playout_delay": "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        "content_type": "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
        "timing": "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
        "color_space": "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
        "dependency_descriptor": (
            "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
        ),
        "abs_capture_time": "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
        "framemarking": "urn:ietf:params:rtp-hdrext:framemarking",
    }
)

_HEADER = Struct("!BBHII")
_TWO_U16 = Struct("!HH")
_U16 = Struct("!H")
_NO_EXTENSIONS: dict[int, tuple[int, int]] = {}


def seq_delta(a: int, b: int) -> int:
    """Return how far 16-bit `a` is ahead of `b`: -32768..32767 (RFC 1982)."""
    return ((a - b + _SEQ_HALF) & SEQ_MASK) - _SEQ_HALF


def is_newer(a: int, b: int) -> bool:
    """Say whether sequence number `a` comes after `b` (RFC 3550 A.1). Half a turn apart counts as older."""
    return 0 < (a - b) & SEQ_MASK < _SEQ_HALF


def timestamp_delta(a: int, b: int) -> int:
    """Return how far 32-bit timestamp `a` is ahead of `b`: -2^31..2^31-1."""
    return ((a - b + _TIMESTAMP_HALF) & TIMESTAMP_MASK) - _TIMESTAMP_HALF


def is_newer_timestamp(a: int, b: int) -> bool:
    """Say whether 32-bit timestamp `a` comes after `b`."""
    return 0 < (a - b) & TIMESTAMP_MASK < _TIMESTAMP_HALF


class Packet:
    """One plaintext RTP packet. Treat it as frozen, but for `descriptor` and `place`: the ingress side sets those once.
    A packet without a place may be forwarded, but not kept.

    `data[payload_offset:payload_end]` is the payload without padding, maybe empty. `extensions` maps an element's id
    to its (offset, length) in `data`. `arrival` is in monotonic microseconds.
    """

    __slots__ = (
        "arrival",
        "data",
        "descriptor",
        "extensions",
        "marker",
        "payload_end",
        "payload_offset",
        "payload_type",
        "place",
        "seq",
        "ssrc",
        "timestamp",
    )

    def __init__(
        self,
        data: bytes,
        arrival: int,
        ssrc: int,
        seq: int,
        timestamp: int,
        marker: bool,
        payload_type: int,
        payload_offset: int,
        payload_end: int,
        extensions: dict[int, tuple[int, int]],
    ) -> None:
        self.data = data
        self.arrival = arrival
        self.ssrc = ssrc
        self.seq = seq
        self.timestamp = timestamp
        self.marker = marker
        self.payload_type = payload_type
        self.payload_offset = payload_offset
        self.payload_end = payload_end
        self.extensions = extensions
        self.descriptor: Descriptor | None = None
        self.place: Place | None = None

    @property
    def payload(self) -> bytes:
        """The payload without padding (a copy)."""
        return self.data[self.payload_offset : self.payload_end]

    def extension(self, element_id: int) -> bytes | None:
        """Return the value of a header extension element, or None when the packet does not carry it."""
        span = self.extensions.get(element_id)
        return None if span is None else self.data[span[0] : span[0] + span[1]]


def parse(datagram: bytes, now: int) -> Packet | None:
    """Parse a decrypted RTP packet (RFC 3550 5.1). None when the header or the padding is malformed.

    `now` is the arrival time in monotonic microseconds.
    """
    size = len(datagram)
    if size < HEADER_LENGTH:
        return None
    first, second, seq, timestamp, ssrc = _HEADER.unpack_from(datagram)
    if first >> 6 != 2:
        return None
    offset = HEADER_LENGTH + 4 * (first & 0x0F)
    extensions = _NO_EXTENSIONS
    if first & 0x10:
        if offset + 4 > size:
            return None
        profile, words = _TWO_U16.unpack_from(datagram, offset)
        start = offset + 4
        offset = start + 4 * words
        if offset <= size:
            extensions = parse_extensions(datagram, profile, start, offset)
    end = size
    if first & 0x20:
        padding = datagram[size - 1]
        if not padding:
            return None
        end -= padding
    if end < offset:
        return None
    return Packet(datagram, now, ssrc, seq, timestamp, second > 0x7F, second & 0x7F, offset, end, extensions)


def parse_extensions(data: bytes, profile: int, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Return id -> (offset, length) of the elements in `data[start:end]` (RFC 8285 4.2, 4.3).

    Empty for an unknown profile and when any element runs over the end. Of a repeated id the last one counts.
    """
    if profile == ONE_BYTE_PROFILE:
        return _parse_one_byte(data, start, end)
    if profile & TWO_BYTE_MASK == TWO_BYTE_PROFILE:
        return _parse_two_byte(data, start, end)
    return _NO_EXTENSIONS


def _parse_one_byte(data: bytes, position: int, end: int) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    while position < end:
        octet = data[position]
        position += 1
        if octet == 0:
            continue
        element_id = octet >> 4
        # id 15, and id 0 with a length, end the block; what came before them counts (RFC 8285 4.2)
        if element_id == 15 or element_id == 0:
            break
        length = (octet & 0x0F) + 1
        found[element_id] = (position, length)
        position += length
    return found if position <= end else _NO_EXTENSIONS


def _parse_two_byte(data: bytes, position: int, end: int) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    while position < end:
        element_id = data[position]
        position += 1
        if element_id == 0:
            continue
        if position >= end:
            return _NO_EXTENSIONS
        length = data[position]
        position += 1
        found[element_id] = (position, length)
        position += length
    return found if position <= end else _NO_EXTENSIONS


def build_extensions(extensions: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a header extension block (profile, length, elements, padding), or b"" for no elements.

    One-byte form when every id is 1..14 and every length 1..16, else two-byte form (ids 1..255, lengths 0..255; the
    peer must have agreed to that by `a=extmap-allow-mixed`). Raises UsageError for ids or lengths beyond that.
    """
    if not extensions:
        return b""
    one_byte = True
    for element_id, value in extensions:
        if not 1 <= element_id <= 255 or len(value) > 255:
            raise UsageError(f"header extension id {element_id} with {len(value)} bytes cannot be written")
        if element_id > ONE_BYTE_MAX_ID or not 1 <= len(value) <= ONE_BYTE_MAX_LENGTH:
            one_byte = False
    parts = bytearray(4)
    for element_id, value in extensions:
        if one_byte:
            parts.append(element_id << 4 | len(value) - 1)
        else:
            parts += bytes((element_id, len(value)))
        parts += value
    parts += bytes(-len(parts) % 4)
    _TWO_U16.pack_into(parts, 0, ONE_BYTE_PROFILE if one_byte else TWO_BYTE_PROFILE, len(parts) // 4 - 1)
    return bytes(parts)


def build_header(
    payload_type: int, marker: bool, seq: int, timestamp: int, ssrc: int, extensions: Sequence[tuple[int, bytes]] = ()
) -> bytes:
    """Return an RTP header without CSRCs or padding. Raises UsageError for extensions that cannot be written."""
    block = build_extensions(extensions)
    first = 0x90 if block else 0x80
    second = payload_type | 0x80 if marker else payload_type
    return _HEADER.pack(first, second, seq, timestamp, ssrc) + block


def encapsulate_rtx(payload: bytes, original_seq: int) -> bytes:
    """Return the payload of a retransmission packet: the original sequence number, then the payload (RFC 4588 4)."""
    return _U16.pack(original_seq) + payload


def decapsulate_rtx(packet: Packet, ssrc: int, payload_type: int) -> Packet | None:
    """Return the original packet from a retransmission packet (RFC 4588 4).

    `ssrc` and `payload_type` are the original stream's. None when there is no payload, as in a bandwidth probe.
    """
    start, end = packet.payload_offset, packet.payload_end
    data = packet.data
    if end - start < 2:
        return None
    seq: int = _U16.unpack_from(data, start)[0]
    second = payload_type | 0x80 if packet.marker else payload_type
    rebuilt = b"".join(
        (
            _HEADER.pack(data[0] & 0xDF, second, seq, packet.timestamp, ssrc),
            data[HEADER_LENGTH:start],
            data[start + 2 : end],
        )
    )
    return Packet(
        rebuilt,
        packet.arrival,
        ssrc,
        seq,
        packet.timestamp,
        packet.marker,
        payload_type,
        start,
        end - 2,
        packet.extensions,
    )

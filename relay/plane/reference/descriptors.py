"""What a payload's first bytes tell: where a frame, and where a decodable frame, starts; layers; picture ids.

`inspect` looks at one packet alone and keeps no state. It never raises: a descriptor that is truncated or against the
rules is OPAQUE, which is forwarded and never taken for a place to begin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from struct import Struct


class Codec(StrEnum):
    """A codec by its encoding name in SDP."""

    OPUS = "opus"
    VP8 = "VP8"
    VP9 = "VP9"
    H264 = "H264"
    AV1 = "AV1"


@dataclass(slots=True)
class Descriptor:
    """What one payload tells. Treat it as frozen; -1 stands for "not told", 0 for an unknown width or height.

    `patch_offset` is where, in the payload, the picture id (else TL0PICIDX) stands; `layer_octet` is VP9's octet
    between the two. `picture_id_bits` is 0, 7 or 15.
    """

    is_keyframe_start: bool = False
    is_frame_start: bool = False
    temporal_id: int = 0
    spatial_id: int = 0
    is_layer_sync: bool = False
    picture_id: int = -1
    picture_id_bits: int = 0
    tl0_pic_idx: int = -1
    layer_octet: int = -1
    patch_offset: int = 0
    width: int = 0
    height: int = 0
    has_parameters: bool = False
    is_dtx: bool = False


OPAQUE = Descriptor()
_MIDDLE = Descriptor()
_FRAME_START = Descriptor(is_frame_start=True)
_KEYFRAME_START = Descriptor(is_keyframe_start=True, is_frame_start=True)
_PARAMETERS = Descriptor(is_keyframe_start=True, is_frame_start=True, has_parameters=True)
_AUDIO = Descriptor(is_keyframe_start=True, is_frame_start=True)
_AUDIO_DTX = Descriptor(is_keyframe_start=True, is_frame_start=True, is_dtx=True)

_U16 = Struct("!H")
_VP8_START_CODE = b"\x9d\x01\x2a"


def inspect(codec: Codec, data: bytes, start: int, end: int) -> Descriptor:
    """Return what the payload `data[start:end]` tells; OPAQUE when it is empty, truncated or malformed."""
    return _INSPECTORS[codec](data, start, end)


def inspector(codec: Codec) -> Callable[[bytes, int, int], Descriptor]:
    """Return `inspect` for one codec, for a caller that sees many packets of it."""
    return _INSPECTORS[codec]


def inspect_opus(data: bytes, start: int, end: int) -> Descriptor:
    """RFC 7587: any packet can be decoded first. One of at most 2 bytes is discontinuous transmission (libopus)."""
    if end <= start:
        return OPAQUE
    return _AUDIO if end - start > 2 else _AUDIO_DTX


def inspect_vp8(data: bytes, start: int, end: int) -> Descriptor:
    """RFC 7741 4.2 (descriptor) and 4.3 (payload header); RFC 6386 9.1 (key frame: start code, width, height)."""
    try:
        return _inspect_vp8(data, start, end)
    except IndexError:
        return OPAQUE


def _inspect_vp8(data: bytes, start: int, end: int) -> Descriptor:
    if end > len(data) or end <= start:
        return OPAQUE
    first = data[start]
    position = start + 1
    picture_id, bits, tl0, temporal_id, layer_sync = -1, 0, -1, 0, False
    if first & 0x80:
        flags = data[position]
        position += 1
        if flags & 0x80:
            picture_id, bits = data[position], 7
            position += 1
            if picture_id & 0x80:
                picture_id, bits = (picture_id & 0x7F) << 8 | data[position], 15
                position += 1
        if flags & 0x40:
            tl0 = data[position]
            position += 1
        if flags & 0x30:
            if flags & 0x20:
                temporal_id = data[position] >> 6
                layer_sync = data[position] & 0x20 != 0
            position += 1
    if position >= end:
        return OPAQUE
    frame_start = first & 0x17 == 0x10
    found = Descriptor(False, frame_start, temporal_id, 0, layer_sync, picture_id, bits, tl0, -1, 2)
    if frame_start and not data[position] & 1 and end - position >= 10:
        if data[position + 3 : position + 6] != _VP8_START_CODE:
            return found
        found.is_keyframe_start = True
        found.width = (data[position + 7] << 8 | data[position + 6]) & 0x3FFF
        found.height = (data[position + 9] << 8 | data[position + 8]) & 0x3FFF
    return found


def inspect_vp9(data: bytes, start: int, end: int) -> Descriptor:
    """RFC 9628 4.2: I P L F B E V Z, picture id, layer indices, reference indices, scalability structure."""
    try:
        return _inspect_vp9(data, start, end)
    except IndexError:
        return OPAQUE


def _inspect_vp9(data: bytes, start: int, end: int) -> Descriptor:
    if end > len(data) or end <= start:
        return OPAQUE
    first = data[start]
    position = start + 1
    picture_id, bits, tl0, layer_octet, temporal_id, spatial_id, layer_sync = -1, 0, -1, -1, 0, 0, False
    if first & 0x80:
        picture_id, bits = data[position], 7
        position += 1
        if picture_id & 0x80:
            picture_id, bits = (picture_id & 0x7F) << 8 | data[position], 15
            position += 1
    flexible = first & 0x10 != 0
    if first & 0x20:
        layer_octet = data[position]
        position += 1
        temporal_id, spatial_id, layer_sync = layer_octet >> 5, layer_octet >> 1 & 7, layer_octet & 0x10 != 0
        if not flexible:
            tl0 = data[position]
            position += 1
    if flexible and first & 0x40:
        position = _skip_vp9_references(data, position)
    width = height = 0
    if first & 0x02:
        position, width, height = _read_vp9_structure(data, position)
    if position >= end or position < 0:
        return OPAQUE
    frame_start = first & 0x08 != 0 and spatial_id == 0
    patch_offset = 1
    if not bits and tl0 >= 0:
        patch_offset = 2
    keyframe_start = frame_start and not first & 0x40
    return Descriptor(
        keyframe_start,
        frame_start,
        temporal_id,
        spatial_id,
        layer_sync,
        picture_id,
        bits,
        tl0,
        layer_octet,
        patch_offset,
        width,
        height,
    )


def _skip_vp9_references(data: bytes, position: int) -> int:
    """Step over at most three P_DIFF octets, the last of which has its N bit clear; -1 for a fourth."""
    for _ in range(3):
        octet = data[position]
        position += 1
        if not octet & 1:
            return position
    return -1


def _read_vp9_structure(data: bytes, position: int) -> tuple[int, int, int]:
    """Return (position after it, width, height of the highest spatial layer) of a scalability structure."""
    if position < 0:
        return -1, 0, 0
    head = data[position]
    position += 1
    width = height = 0
    if head & 0x10:
        last = position + 4 * (head >> 5)
        width = data[last] << 8 | data[last + 1]
        height = data[last + 2] << 8 | data[last + 3]
        position = last + 4
    if head & 0x08:
        pictures = data[position]
        position += 1
        for _ in range(pictures):
            position += 1 + (data[position] >> 2 & 3)
    return position, width, height


_H264_IDR, _H264_SPS, _STAP_A, _FU_A = 5, 7, 24, 28


def inspect_h264(data: bytes, start: int, end: int) -> Descriptor:
    """RFC 6184 5.6 (single NAL unit), 5.7.1 (STAP-A), 5.8 (FU-A).

    A decodable start is an SPS or the first slice of an IDR picture. Many encoders send SPS, PPS and IDR as packets
    of their own with one timestamp, so a caller that takes the first start of a timestamp begins at the SPS.
    """
    if end - start < 2 or end > len(data):
        return OPAQUE
    kind = data[start] & 0x1F
    if kind == _FU_A:
        head = data[start + 1]
        if end - start < 3 or head & 0xC0 == 0xC0:
            return OPAQUE
        return _h264_unit(head & 0x1F, data[start + 2]) if head & 0x80 else _MIDDLE
    if kind == _STAP_A:
        return _inspect_stap_a(data, start + 1, end)
    return _h264_unit(kind, data[start + 1])


def _h264_unit(kind: int, octet: int) -> Descriptor:
    """Judge a NAL unit by its type and its first octet, whose top bit says first_mb_in_slice = 0 in a slice."""
    if kind == _H264_IDR:
        return _KEYFRAME_START if octet & 0x80 else _MIDDLE
    if kind == _H264_SPS:
        return _PARAMETERS
    if kind == 1 or kind == 2:
        return _FRAME_START if octet & 0x80 else _MIDDLE
    # SEI and access unit delimiter come before the picture they belong to; so does a PPS
    return _FRAME_START if kind in (6, 8, 9) else _MIDDLE


def _inspect_stap_a(data: bytes, position: int, end: int) -> Descriptor:
    """An SPS counts as a start unless slices of a picture that is not IDR come with it."""
    best = _MIDDLE
    has_sps = other_slice = False
    while position < end:
        if position + 2 > end:
            return OPAQUE
        size = data[position] << 8 | data[position + 1]
        position += 2
        if size < 2 or position + size > end:
            return OPAQUE
        kind = data[position] & 0x1F
        unit = _h264_unit(kind, data[position + 1])
        has_sps = has_sps or kind == _H264_SPS
        other_slice = other_slice or kind == 1
        if unit.is_keyframe_start or (unit.is_frame_start and not best.is_frame_start):
            best = unit
        position += size
    if other_slice and best.is_keyframe_start:
        return _FRAME_START
    return _PARAMETERS if has_sps else best


def inspect_av1(data: bytes, start: int, end: int) -> Descriptor:
    """AV1 RTP payload format 4.4: aggregation header Z Y W N; N begins a coded video sequence.

    `is_frame_start` means that the packet does not begin inside an OBU.
    """
    if end - start < 2 or end > len(data):
        return OPAQUE
    head = data[start]
    if head & 0x80:
        return OPAQUE if head & 0x08 else _MIDDLE
    position = start + 1
    if head & 0x30 != 0x10:
        position = _skip_leb128(data, position, end)
    if not start < position < end or data[position] & 0x80:
        return OPAQUE
    temporal_id = spatial_id = 0
    if data[position] & 0x04:
        if position + 1 >= end:
            return OPAQUE
        temporal_id, spatial_id = data[position + 1] >> 5, data[position + 1] >> 3 & 3
    keyframe_start = head & 0x08 != 0
    if not temporal_id and not spatial_id:
        return _KEYFRAME_START if keyframe_start else _FRAME_START
    return Descriptor(keyframe_start, True, temporal_id, spatial_id)


def _skip_leb128(data: bytes, position: int, end: int) -> int:
    """Return the position after an OBU element's length, -1 when it is truncated or longer than 5 octets."""
    for index in range(position, min(end, position + 5)):
        if not data[index] & 0x80:
            return index + 1
    return -1


_INSPECTORS: dict[Codec, Callable[[bytes, int, int], Descriptor]] = {
    Codec.OPUS: inspect_opus,
    Codec.VP8: inspect_vp8,
    Codec.VP9: inspect_vp9,
    Codec.H264: inspect_h264,
    Codec.AV1: inspect_av1,
}

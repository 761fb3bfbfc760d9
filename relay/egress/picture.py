"""What is made of a picture's RTP packets, whatever its codec."""

from __future__ import annotations

from typing import NamedTuple

MAX_PICTURE = 8 << 20
"""Bytes of one picture; a longer one is dropped, or a stream without markers would fill the memory."""


class Picture(NamedTuple):
    """One picture and its RTP timestamp. `data` is as MP4 keeps it: for H264 the NAL units but parameter sets, each
    after four bytes of length (ISO/IEC 14496-15); for VP8 the frame."""

    timestamp: int
    arrival: int
    keyframe: bool
    data: bytes

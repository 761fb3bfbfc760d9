"""What goes from a source to its outputs: pictures and sound on one time axis (monotonic microseconds)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.egress.h264 import Parameters
from relay.egress.vp8 import Vp8Parameters

AUDIO_RATE = 48_000
AUDIO_FRAME = 1024
"""Samples of an AAC frame."""
VIDEO_RATE = 90_000

VideoCodec = Literal["h264", "vp8"]
Format = Parameters | Vp8Parameters
"""What a decoder has to know before the first picture; another one needs another init segment."""


class VideoUnit(NamedTuple):
    """One picture; its data as in `Picture`."""

    time: int
    keyframe: bool
    parameters: Format
    data: bytes


class AudioUnit(NamedTuple):
    """One AAC frame. Frames of a source follow each other without a gap: `position` is its first sample on the axis."""

    position: int
    data: bytes

    @property
    def time(self) -> int:
        return self.position * 1_000_000 // AUDIO_RATE


class AudioConfig(NamedTuple):
    """AudioSpecificConfig (ISO/IEC 14496-3)."""

    config: bytes
    channels: int = 2


Unit = VideoUnit | AudioUnit

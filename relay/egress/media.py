"""What goes from a source to its outputs: pictures and sound on one time axis (monotonic microseconds)."""

from __future__ import annotations

from typing import NamedTuple

from relay.egress.h264 import Parameters

AUDIO_RATE = 48_000
AUDIO_FRAME = 1024
"""Samples of an AAC frame."""
VIDEO_RATE = 90_000


class VideoUnit(NamedTuple):
    """One picture: its NAL units, each after four bytes of length (ISO/IEC 14496-15)."""

    time: int
    keyframe: bool
    parameters: Parameters
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

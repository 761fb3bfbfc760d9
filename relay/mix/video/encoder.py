"""The program's pictures become coded frames, one by one, without delay."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from relay.mix.video.assembly import VideoCodec

X264 = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "forced-idr": "1",
    "x264-params": "deblock=1:subme=1:sliced-threads=0",
}
"""The best picture per CPU time of those tried; all of it is Constrained Baseline."""
VP8 = {
    "deadline": "realtime",
    "cpu-used": "-8",
    "lag-in-frames": "0",
    "error-resilient": "1",
    "static-thresh": "1",
    "undershoot-pct": "100",
    "overshoot-pct": "15",
}


MAX_KEPT = 4
"""Encoders of closed programs that wait for the next one; one of 1280x720 holds some 10 MB."""


class Shape(NamedTuple):
    """What an encoder is opened for. Encoders of one shape stand in for each other."""

    codec: VideoCodec
    width: int
    height: int
    fps: int
    bitrate: int
    keyframe_ms: int


class Encoder:
    """One program's encoder. The picture given to `encode` may be painted over as soon as it returns."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        context = av.CodecContext.create("libx264" if shape.codec == "h264" else "libvpx", "w")
        context.width, context.height, context.pix_fmt = shape.width, shape.height, "yuv420p"
        context.framerate, context.time_base = Fraction(shape.fps, 1), Fraction(1, shape.fps)
        context.bit_rate = shape.bitrate
        context.gop_size = max(1, shape.keyframe_ms * shape.fps // 1000)
        context.thread_count = 1
        rate = {"maxrate": str(shape.bitrate), "bufsize": str(shape.bitrate // 2)}
        if shape.codec == "h264":
            context.options = X264 | rate
            context.profile = "Baseline"
            context.flags |= int(Flags.closed_gop)
        else:
            context.qmin, context.qmax = 2, 56
            context.options = VP8 | rate | {"minrate": str(shape.bitrate)}
        context.open()
        self._context = context
        self._frames = 0

    def encode(self, picture: Any, keyframe: bool) -> tuple[bytes, bool]:
        """Return the coded frame and whether it is a keyframe."""
        picture.pts = self._frames
        self._frames += 1
        picture.pict_type = PictureType.I if keyframe else PictureType.NONE
        packets = self._context.encode(picture)
        return b"".join(bytes(packet) for packet in packets), any(packet.is_keyframe for packet in packets)


class Encoders:
    """Opening one costs 12 to 40 ms, so those that are not used any more are kept."""

    def __init__(self, make: Callable[[Shape], Encoder] = Encoder) -> None:
        self._make = make
        self._kept: list[Encoder] = []

    def take(self, shape: Shape) -> Encoder:
        """One of this shape; its first frame has to be a keyframe."""
        for index, encoder in enumerate(self._kept):
            if encoder.shape == shape:
                return self._kept.pop(index)
        return self._make(shape)

    def give(self, encoder: Encoder) -> None:
        self._kept.append(encoder)
        del self._kept[:-MAX_KEPT]

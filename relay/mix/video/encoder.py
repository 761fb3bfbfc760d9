"""The program's pictures become coded frames, one by one, without delay."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

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


class Encoder:
    """One program's encoder. The picture given to `encode` may be painted over as soon as it returns."""

    def __init__(self, codec: VideoCodec, width: int, height: int, fps: int, bitrate: int, keyframe_s: float) -> None:
        context = av.CodecContext.create("libx264" if codec == "h264" else "libvpx", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.framerate, context.time_base = Fraction(fps, 1), Fraction(1, fps)
        context.bit_rate = bitrate
        context.gop_size = max(1, round(keyframe_s * fps))
        context.thread_count = 1
        rate = {"maxrate": str(bitrate), "bufsize": str(bitrate // 2)}
        if codec == "h264":
            context.options = X264 | rate
            context.profile = "Baseline"
            context.flags |= int(Flags.closed_gop)
        else:
            context.qmin, context.qmax = 2, 56
            context.options = VP8 | rate | {"minrate": str(bitrate)}
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

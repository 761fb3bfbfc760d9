"""Access units become pictures. Faults of a stream end as `BadStream` and cost that stream only."""

from __future__ import annotations

from typing import Any

import av
from av.codec.context import Flags

from relay.errors import PeerError
from relay.mix.video.assembly import VideoCodec

MAX_PIXELS = 4096 * 2304
MIN_SIDE = 16
_NAMES = {"vp8": "vp8", "h264": "h264"}  # FFmpeg's own: both are faster than the libraries


class BadStream(PeerError):
    """The decoder could not use an access unit; go on at a keyframe."""


class Decoder:
    """One input's decoder. One thread: a busy H264 decoder with frame threads hangs the process when it is freed."""

    def __init__(self, codec: VideoCodec) -> None:
        self._codec = codec
        self._context = self._open()

    def decode(self, data: bytes, media: int) -> list[Any]:
        """Return the pictures that come out; usually one. `media` is µs on the input's clock. Raises BadStream."""
        packet = av.Packet(data)
        packet.pts = media
        try:
            frames = self._context.decode(packet)
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            # A context that failed may go on failing, e.g. over a parameter set that it keeps.
            self._context = self._open()
            raise BadStream(f"{self._codec} could not be decoded: {type(error).__name__}") from error
        for frame in frames:
            if frame.width < MIN_SIDE or frame.height < MIN_SIDE:
                raise BadStream(f"a picture of {frame.width}x{frame.height}")
        return list(frames)

    def _open(self) -> Any:
        context = av.CodecContext.create(_NAMES[self._codec], "r")
        context.thread_count = 1
        context.flags |= int(Flags.low_delay)
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.open()
        return context

"""Debian's simple-whip-client (GStreamer's webrtcbin): the client that trickles its candidates by PATCH.

Its pictures come from GStreamer, so they carry a mark only if a pipe feeds them: `fdsrc` reads what is painted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from tests.interop.clients.painting import CLOCK_MODULUS, TestPicture
from tests.interop.clients.process import ROOT, ClientProcess
from tests.interop.clients.requirements import need

_LIBRARIES = ROOT / ".cache" / "whip-client"  # setup.sh explains what is in it
VP8 = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=60 target-bitrate=800000 ! rtpvp8pay pt=96"
H264 = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=800 ! rtph264pay pt=96 config-interval=-1"
)


def pipelines(*, source: str, codec: str = "VP8", tone: float = 440.0) -> tuple[str, str]:
    """The two GStreamer descriptions (audio, video) that whip-client takes; `source` gives raw I420 pictures."""
    name, encoder = ("VP8", VP8) if codec == "VP8" else ("H264", H264)
    audio = (
        f"audiotestsrc is-live=true wave=sine freq={tone} volume=0.3 ! audioconvert ! audioresample "
        "! opusenc ! rtpopuspay pt=100 ssrc=1 ! queue "
        "! application/x-rtp,media=audio,encoding-name=OPUS,payload=100"
    )
    video = (
        f"{source} ! videoconvert ! video/x-raw,format=I420 ! queue ! {encoder} ssrc=2 ! queue "
        f"! application/x-rtp,media=video,encoding-name={name},payload=96"
    )
    return audio, video


class WhipClient(ClientProcess):
    """Publishes until the context is left; SIGINT makes it DELETE its session."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        publisher: int = 1,
        codec: str = "VP8",
        width: int = 640,
        height: int = 360,
        fps: int = 30,
        tone: float = 440.0,
    ) -> None:
        raw = f"format=i420 width={width} height={height} framerate={fps}/1"
        # No do-timestamp: fdsrc is no live source and reads while the pipeline still starts. A picture read after the
        # clock was handed out and before the base time was gets the clock's own time (hours, since the machine's start)
        # as its time in the stream, and webrtcbin holds it and all that follow until then. Counted times need no clock.
        source = f"fdsrc fd=0 blocksize={width * height * 3 // 2} ! rawvideoparse {raw}"
        audio, video = pipelines(source=source, codec=codec, tone=tone)
        super().__init__(
            [need("whip-client"), "-u", url, "-t", token or "none", "-o", "-l", "5", "-A", audio, "-V", video],
            environment={"LD_LIBRARY_PATH": str(_LIBRARIES)},
        )
        self.counter = 0  # of the next picture
        self._picture = TestPicture(width, height, publisher, "whip-client")
        self._fps = fps
        self._painter: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await super().start()
        self._painter = asyncio.create_task(self._paint())

    async def stop(self, *, signal: int | None = signal.SIGINT, seconds: float = 5.0) -> int:
        if self._painter:
            self._painter.cancel()
            await asyncio.gather(self._painter, return_exceptions=True)
        return await super().stop(signal=signal, seconds=seconds)

    async def _paint(self) -> None:
        pipe = self.process.stdin
        assert pipe
        begin = 0.0
        with contextlib.suppress(ConnectionError):
            while True:
                pipe.write(self._picture.frame(self.counter, int(time.time() * 1000) % CLOCK_MODULUS).tobytes())
                await pipe.drain()
                begin = begin or time.monotonic()  # of the reading: the times that the client counts begin there, too
                self.counter += 1
                await asyncio.sleep(max(0.0, begin + self.counter / self._fps - time.monotonic()))

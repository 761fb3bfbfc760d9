"""ffmpeg (the one that the package imageio-ffmpeg carries) as a WHIP publisher of marked pictures."""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.interop.clients.painting import CLOCK_MODULUS, TestPicture
from tests.interop.clients.process import ClientProcess
from tests.interop.clients.requirements import need


def command(
    url: str,
    token: str,
    *,
    executable: str = "ffmpeg",
    profile: str = "high",
    width: int = 640,
    height: int = 360,
    fps: int = 30,
    tone: float = 440.0,
    bitrate: str = "1M",
) -> list[str]:
    """ffmpeg's arguments: I420 pictures from standard input and a sine, as H264 and Opus to a WHIP address.

    The muxer takes plain HTTP or a certificate that it can verify; B-frames are off because WebRTC has none.
    """
    return [
        executable, "-hide_banner", "-nostdin", "-loglevel", "verbose",
        "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-framerate", str(fps), "-i", "pipe:0",
        "-re", "-f", "lavfi", "-i", f"sine=frequency={tone}:sample_rate=48000",
        "-map", "0:v", "-map", "1:a", "-shortest",
        "-c:v", "libx264", "-profile:v", profile, "-preset", "veryfast", "-tune", "zerolatency", "-bf", "0",
        "-g", str(fps), "-b:v", bitrate,
        "-c:a", "libopus", "-ac", "2", "-b:a", "96k",
        "-f", "whip", "-authorization", token, url,
    ]  # fmt: skip


class Ffmpeg(ClientProcess):
    """Publishes until the context is left: then it ends its input, and ffmpeg DELETEs its session."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        publisher: int = 1,
        profile: str = "high",
        width: int = 640,
        height: int = 360,
        fps: int = 30,
        tone: float = 440.0,
    ) -> None:
        executable = need("ffmpeg")
        super().__init__(
            command(
                url,
                token or "none",
                executable=executable,
                profile=profile,
                width=width,
                height=height,
                fps=fps,
                tone=tone,
            )
        )
        self.counter = 0  # of the next picture
        self._picture = TestPicture(width, height, publisher, "ffmpeg")
        self._fps = fps
        self._painter: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await super().start()
        self._painter = asyncio.create_task(self._paint())

    async def stop(self, *, signal: int | None = None, seconds: float = 5.0) -> int:
        """End of input makes ffmpeg finish with exit code 0. (SIGINT gives 255 and breaks its DELETE off.)"""
        if self._painter:
            self._painter.cancel()
            await asyncio.gather(self._painter, return_exceptions=True)
        return await super().stop(signal=signal, seconds=seconds)

    async def _paint(self) -> None:
        pipe = self.process.stdin
        assert pipe
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):  # ffmpeg ended: its exit code and lines say why
            while True:
                pipe.write(self._picture.frame(self.counter, int(time.time() * 1000) % CLOCK_MODULUS).tobytes())
                await pipe.drain()
                self.counter += 1
                await asyncio.sleep(max(0.0, begin + self.counter / self._fps - time.monotonic()))

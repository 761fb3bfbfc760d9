"""The clips that mixers are fed with: made once per run by the ffmpeg binary, the same files for all of them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg

from bench.processes import go_first, pin
from relay.mix.video.assembly import VideoCodec

FPS = 30
SECONDS = 3
RATES = {360: 800_000, 720: 2_000_000}
_CODECS = {
    "h264": ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline"],
    "vp8": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"],
}


def ffmpeg() -> str:
    """The path of the ffmpeg binary."""
    path: str = imageio_ffmpeg.get_ffmpeg_exe()
    return path


async def clip(folder: Path, codec: VideoCodec, height: int, number: int) -> Path:
    """A moving picture with noise, as cameras have it: 16:9, `FPS`, `SECONDS` long, one keyframe a second."""
    path = folder / f"{codec}-{height}-{number}.mkv"
    rate = str(RATES[height])
    size = f"{height * 16 // 9}x{height}"
    made = f"testsrc2=size={size}:rate={FPS}:duration={SECONDS},hue=h={number * 90},noise=alls=6:allf=t"
    limits = ["-b:v", rate, "-maxrate", rate, "-bufsize", rate, "-g", str(FPS), "-pix_fmt", "yuv420p"]
    command = [ffmpeg(), "-v", "error", "-y", "-f", "lavfi", "-i", made, *_CODECS[codec], *limits, str(path)]
    await run(command)
    return path


async def run(command: list[str], *, alone_on: int | None = None) -> bytes:
    """Run a program to its end, on one core and before all else there if told so, and return what it printed.
    RuntimeError with its last words when it fails."""

    def prepare() -> None:
        if alone_on is not None:
            pin(alone_on)
            go_first()

    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, preexec_fn=prepare
    )
    try:
        output = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {b''.join(output)[-800:].decode(errors='replace')}")
    return output[0]


def frames(path: Path, codec: VideoCodec) -> list[bytes]:
    """A clip's coded frames; H264 with start codes and with its parameter sets at keyframes."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        filters = av.BitStreamFilterContext("h264_mp4toannexb", stream) if codec == "h264" else None
        for packet in container.demux(stream):
            if packet.size:
                found += [bytes(one) for one in (filters.filter(packet) if filters is not None else [packet])]
    return found

"""`python -m bench.mix_codecs CODEC=PATH…`: what no mixer that decodes and encodes with these libraries can go below.

Every clip is decoded and one 1280x720 picture of them all encoded per frame time, and nothing else counts: no packets,
no scaling, no process beside. Prints the CPU ms of that per picture.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import cast

from bench.mix_clips import FPS, SECONDS, frames
from bench.mix_video import BITRATE, HEIGHT, KEYFRAME_S, WIDTH, grid
from relay.mix.video.assembly import VideoCodec
from relay.mix.video.decoder import Decoder
from relay.mix.video.encoder import Encoder, Shape
from relay.mix.video.pictures import Canvas


def main(arguments: list[str]) -> int:
    """Run at the pace of `FPS`, as a mixer does: caches are cold at each picture."""
    clips = [cast("tuple[VideoCodec, str]", tuple(word.split("=", 1))) for word in arguments]
    coded = [(Decoder(codec), frames(Path(path), codec)) for codec, path in clips]
    encoder = Encoder(Shape("h264", WIDTH, HEIGHT, FPS, BITRATE, KEYFRAME_S * 1000))
    canvas, places = Canvas(WIDTH, HEIGHT), grid(len(clips))
    start, used = time.monotonic(), 0.0
    for number in range(SECONDS * FPS):
        before = time.thread_time()
        pictures = [decoder.decode(found[number % len(found)], number) for decoder, found in coded]
        used += time.thread_time() - before
        for cell, found in zip(places, pictures, strict=True):  # what the others encode; not counted
            for picture in found[-1:]:
                canvas.place(picture, cell.box, "letterbox")
        before = time.thread_time()
        encoder.encode(canvas.frame, False)
        used += time.thread_time() - before
        time.sleep(max(0.0, start + (number + 1) / FPS - time.monotonic()))
    print(used * 1000 / (SECONDS * FPS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

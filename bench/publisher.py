"""A libwebrtc publisher in a process of its own: `python -m bench.publisher URL TOKEN`.

Its picture has a camera's grain. Without it the encoder needs a fifth of the bitrate that it is allowed, and packets,
keyframes and decoding would all be too cheap. The clock in it is the monotonic one, which all processes of a machine
share and nobody sets.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import numpy as np

from costream.painting import CLOCK_MODULUS, TestPicture
from costream.synthetic import Show, SyntheticHost

GRAIN = 5  # luma steps of standard deviation, as a webcam's in room light


def monotonic_ms() -> int:
    """The clock as it is painted."""
    return time.monotonic_ns() // 1_000_000 % CLOCK_MODULUS


class GrainyPicture(TestPicture):
    """A painted picture with grain that moves with every frame. Its clock is `monotonic_ms`, whatever is asked for."""

    def __init__(self, show: Show) -> None:
        super().__init__(show.width, show.height, show.publisher, show.label)
        self._random = np.random.default_rng(show.publisher)
        self._grain = self._random.normal(0, GRAIN, (show.height * 2, show.width * 2)).round().astype(np.int16)

    def frame(self, counter: int, clock_ms: int, text: str | None = None) -> np.ndarray:
        picture = super().frame(counter, monotonic_ms(), text)
        x, y = self._random.integers(self.width), self._random.integers(self.height)
        luma = picture[: self.height]
        luma[:] = np.clip(luma + self._grain[y : y + self.height, x : x + self.width], 0, 255)
        return picture


async def _publish(url: str, token: str, show: Show) -> None:
    host = SyntheticHost(url, token, show, verify=False)
    host._painter._picture = GrainyPicture(show)
    await host.start()
    await host.connected()
    await host.ended()


def main() -> None:
    """Publish until terminated."""
    parser = argparse.ArgumentParser(prog="python -m bench.publisher", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    options = parser.parse_args()
    asyncio.run(_publish(options.url, options.token, Show(width=options.width, height=options.height)))


if __name__ == "__main__":
    main()

"""A player of LL-HLS that keeps to PART-HOLD-BACK: it asks for the next part as RFC 8216bis says (blocking playlist
reload), and shows each moment when its distance to the newest part says so. Pictures are decoded afterwards.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple
from urllib.parse import urljoin

import av
import httpx2
import m3u8  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it came: `at` is when (s, monotonic), `duration` as the playlist says, s."""

    at: float
    duration: float
    init: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came: `parts` follow one another. The first `joined` were there when the player came."""

    hold_back: float
    parts: Sequence[Part]
    joined: int


class Picture(NamedTuple):
    """`moment` is its time in the stream, s."""

    moment: float
    luma: NDArray[np.uint8]


class Playhead:
    """Which moment of the stream is shown when. Seconds, of the stream and of any clock."""

    def __init__(self, hold_back: float, edge: float, now: float) -> None:
        """The stream reaches until `edge` when playing begins."""
        self.stalls = 0
        self.begin = edge - hold_back
        self._behind = now - self.begin

    def came(self, start: float, now: float) -> None:
        """The part that begins at `start` came. When its time is over, playing has stood still."""
        if now > self.shown_at(start):
            self.stalls += 1
            self._behind = now - start

    def shown_at(self, moment: float) -> float:
        """When a moment is shown, as far as is known by now."""
        return moment + self._behind


async def fetch(url: str, seconds: float) -> Fetched:
    """Play for some seconds, from PART-HOLD-BACK before the end on. What is fetched begins with the keyframe before it.

    Raises httpx2.HTTPError, RuntimeError for a playlist that has no low latency.
    """
    async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        known: set[str] = set()
        inits: dict[str, bytes] = {}
        parts: list[Part] = []
        query: dict[str, int] = {}
        joined = 0
        deadline = time.monotonic() + seconds
        while True:
            response = await client.get(url, params=query)
            response.raise_for_status()
            playlist = m3u8.loads(response.text)
            if playlist.server_control is None:
                raise RuntimeError(f"no playlist of low latency:\n{response.text}")
            hold_back = float(playlist.server_control.part_hold_back)
            listed = parts_of(playlist)
            fresh = [one for one in listed if one[1].uri not in known]
            if not known:
                fresh = first_parts(listed, hold_back)
            for init, one in fresh:
                if init not in inits:
                    inits[init] = (await client.get(urljoin(url, init))).raise_for_status().content
                data = (await client.get(urljoin(url, one.uri))).raise_for_status().content
                parts.append(Part(time.monotonic(), float(one.duration), inits[init], data))
            joined = joined or len(parts)
            known |= {one.uri for _, one in listed}
            if time.monotonic() > deadline:
                return Fetched(hold_back, parts, joined)
            query = next_part(playlist)


def parts_of(playlist: Any) -> list[tuple[str, Any]]:
    """All parts, oldest first, with the names of their init segments."""
    newest = playlist.segment_map[-1]  # m3u8 does not say which one a segment that still grows has: always the last
    return [((segment.init_section or newest).uri, part) for segment in playlist.segments for part in segment.parts]


def first_parts(listed: Sequence[tuple[str, Any]], hold_back: float) -> list[tuple[str, Any]]:
    """From the newest keyframe on that is as far back as it has to be, or from the oldest part."""
    ahead = 0.0
    for index in reversed(range(len(listed))):
        ahead += float(listed[index][1].duration)
        if ahead >= hold_back and listed[index][1].independent == "YES":
            return list(listed[index:])
    return list(listed)


def next_part(playlist: Any) -> dict[str, int]:
    """What to wait for: the part after the last one."""
    whole = sum(segment.uri is not None for segment in playlist.segments)
    growing = [segment for segment in playlist.segments if segment.uri is None]
    return {
        "_HLS_msn": int(playlist.media_sequence or 0) + whole,
        "_HLS_part": len(growing[-1].parts) if growing else 0,
    }


def decoded(parts: Sequence[Part]) -> Iterator[tuple[float, list[Picture]]]:
    """Decode parts that follow one another: when each begins (s, in the stream), and the pictures that are ready after
    it."""
    decoder: Any = None
    for part in parts:
        found, start = list[Picture](), float("inf")
        with av.open(io.BytesIO(part.init + part.data)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            if decoder is None:
                decoder = av.CodecContext.create("h264", "r")
                decoder.extradata, decoder.thread_count = stream.codec_context.extradata, 1
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue  # the end
                start = min(start, float(packet.pts * stream.time_base))
                found += [_picture(frame, stream.time_base) for frame in decoder.decode(packet)]
        yield start, found


def _picture(frame: Any, time_base: Fraction) -> Picture:
    return Picture(float(frame.pts * time_base), frame.to_ndarray(format="yuv420p")[: frame.height])

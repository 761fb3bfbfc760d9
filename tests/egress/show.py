"""A show for egress to take: painted pictures and a tone, encoded by PyAV, as RTP packets; in a ring, in real time.

The picture may have a second, better layer, whose stream is `HIGH`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from struct import pack
from typing import Literal, NamedTuple

import av
import numpy as np
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder

from costream.painting import TestPicture
from costream.tones import Tone
from relay.egress.feed import Tell
from relay.egress.messages import Follow
from relay.egress.source import Stream
from relay.plane.shared_ring import RingWriter, SharedRing

VIDEO, AUDIO, HIGH = 1, 2, 3
VIDEO_PT, AUDIO_PT = 96, 111
STREAMS = (Stream(VIDEO, "video", "h264", VIDEO_PT), Stream(AUDIO, "audio", "opus", AUDIO_PT))
BETTER = Stream(HIGH, "video", "h264", VIDEO_PT)
GLOBAL_HEADER = 1 << 22


class Rtp(NamedTuple):
    stream: int
    data: bytes


@dataclass
class Look:
    """What a show is like. `gop` 0: keyframes only when asked for."""

    width: int = 320
    height: int = 180
    fps: int = 30
    gop: int = 60
    tone: float = 440.0
    publisher: int = 7
    codec: Literal["h264", "vp8"] = "h264"

    @property
    def streams(self) -> tuple[Stream, ...]:
        return replace(STREAMS[0], codec=self.codec), STREAMS[1]


class VideoLine:
    """Encodes painted pictures; `pictures` is the counter of the next one."""

    def __init__(self, look: Look, rng: random.Random, stream: int = VIDEO) -> None:
        self.pictures = 0
        self.stream = stream
        self.wants_keyframe = False
        self._seq, self._ssrc = rng.randrange(1 << 16), rng.randrange(1 << 32)
        self._timestamp = rng.randrange(1 << 32)
        self.change(look)

    def change(self, look: Look) -> None:
        """Go on with another size; the encoder begins anew."""
        self.look = look
        self._picture = TestPicture(look.width, look.height, look.publisher)
        vp8 = look.codec == "vp8"
        self._encoder = av.CodecContext.create("libvpx" if vp8 else "libx264", "w")
        self._encoder.width, self._encoder.height, self._encoder.pix_fmt = look.width, look.height, "yuv420p"
        self._encoder.time_base, self._encoder.framerate = Fraction(1, 90_000), Fraction(look.fps)
        gop = look.gop or 100_000
        own = {
            "preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "forced-idr": "1",
            "keyint_min": str(gop), "sc_threshold": "0",
        }  # fmt: skip
        if vp8:
            own = {"deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0", "auto-alt-ref": "0"}
        self._encoder.options = {"g": str(gop)} | own
        self._encoder.thread_count = 1

    def next(self, clock_ms: int) -> list[Rtp]:
        """The next picture's packets."""
        look = self.look
        frame = av.VideoFrame.from_ndarray(self._picture.frame(self.pictures, clock_ms), format="yuv420p")
        frame.pts, frame.time_base = self.pictures * 90_000 // look.fps, Fraction(1, 90_000)
        if self.wants_keyframe:
            frame.pict_type, self.wants_keyframe = av.video.frame.PictureType.I, False
        timestamp = (self._timestamp + frame.pts) & 0xFFFFFFFF
        self.pictures += 1
        found = []
        for packet in self._encoder.encode(frame):
            if look.codec == "vp8":
                payloads = Vp8Encoder._packetize(bytes(packet), self.pictures & 0x7FFF)
            else:
                payloads = H264Encoder._packetize(H264Encoder._split_bitstream(bytes(packet)))
            for index, payload in enumerate(payloads):
                marker = index == len(payloads) - 1
                found.append(Rtp(self.stream, self._packet(timestamp, payload, marker)))
        return found

    def _packet(self, timestamp: int, payload: bytes, marker: bool) -> bytes:
        self._seq = (self._seq + 1) & 0xFFFF
        return pack("!BBHII", 0x80, VIDEO_PT | marker << 7, self._seq, timestamp, self._ssrc) + payload


class AudioLine:
    """Encodes a tone, 20 ms a packet."""

    def __init__(self, look: Look, rng: random.Random) -> None:
        self.packets = 0
        self._tone = Tone(look.tone)
        self._seq, self._ssrc = rng.randrange(1 << 16), rng.randrange(1 << 32)
        self._timestamp = rng.randrange(1 << 32)
        self._encoder = av.CodecContext.create("libopus", "w")
        self._encoder.sample_rate, self._encoder.layout, self._encoder.format = 48_000, "stereo", "s16"
        self._encoder.time_base = Fraction(1, 48_000)

    def next(self) -> list[Rtp]:
        samples = np.repeat(self._tone.samples(960), 2).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, self.packets * 960
        frame.time_base = Fraction(1, 48_000)
        timestamp = (self._timestamp + self.packets * 960) & 0xFFFFFFFF
        self.packets += 1
        found = []
        for packet in self._encoder.encode(frame):
            self._seq = (self._seq + 1) & 0xFFFF
            found.append(Rtp(AUDIO, pack("!BBHII", 0x80, AUDIO_PT, self._seq, timestamp, self._ssrc) + bytes(packet)))
        return found


class Show:
    """All lines in step: the same counter in both layers. `clock` gives the painted milliseconds. Streams that are in
    `silent` are not sent."""

    def __init__(self, look: Look | None = None, seed: int = 1, better: Look | None = None) -> None:
        self.look = look or Look()
        rng = random.Random(seed)
        self.video, self.audio = VideoLine(self.look, rng), AudioLine(self.look, rng)
        self.better = VideoLine(better, rng, HIGH) if better else None
        self.silent: set[int] = set()

    def packets(self, until_us: int, clock_ms: Callable[[], int]) -> Iterator[tuple[int, Rtp]]:
        """All that is due before this moment of the show, as (moment in µs, packet)."""
        while True:
            video = self.video.pictures * 1_000_000 // self.look.fps
            audio = (self.audio.packets + 1) * 20_000
            moment = min(video, audio)
            if moment >= until_us:
                return
            if video <= audio:
                packets = self.video.next(clock_ms())
                if self.better is not None:
                    packets += self.better.next(clock_ms())
            else:
                packets = self.audio.next()
            yield from ((moment, packet) for packet in packets if packet.stream not in self.silent)


class LiveFeeds:
    """A show in real time, into as many rings as are open: what the node's wiring is to `EgressManager`."""

    def __init__(self, show: Show | None = None) -> None:
        self.show = show or Show()
        self.spoil: Callable[[Rtp], bytes | None] = lambda packet: packet.data
        self.opened: list[LiveFeed] = []
        self.keyframes_asked = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="show", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Repeatable."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for feed in list(self.opened):
            feed.close()

    async def open(self, room: str, source: str, on_end: Callable[[], None]) -> LiveFeed:
        feed = LiveFeed(self, on_end)
        with self._lock:
            self.opened.append(feed)
        return feed

    def asked(self, stream: int) -> None:
        self.keyframes_asked += 1
        for line in (self.show.video, self.show.better):
            if line is not None and line.stream == stream:
                line.wants_keyframe = True

    def _run(self) -> None:
        began = time.monotonic_ns() // 1000
        while not self._stop.wait(0.004):
            now = time.monotonic_ns() // 1000
            for _, packet in self.show.packets(now - began, clock_ms):
                data = self.spoil(packet)
                with self._lock:
                    for feed in self.opened:
                        if data is not None and feed.writer is not None and packet.stream in feed.tapped:
                            feed.writer.put(packet.stream, time.monotonic_ns() // 1000, data)

    def forget(self, feed: LiveFeed) -> None:
        with self._lock:
            if feed in self.opened:
                self.opened.remove(feed)
            if feed.writer is not None:
                feed.writer.close()
                feed.writer = None


class LiveFeed:
    def __init__(self, feeds: LiveFeeds, on_end: Callable[[], None]) -> None:
        self.on_end = on_end
        self.streams = feeds.show.look.streams
        self.tapped = {stream.number for stream in self.streams}
        self.switches: list[int] = []
        self._tell: Tell = lambda message: None
        self._feeds = feeds
        self._ring = SharedRing.create()
        self.writer: RingWriter | None = self._ring.writer()

    @property
    def fds(self) -> tuple[int, ...]:
        return self._ring.fds

    def passed(self) -> None:
        self._ring.passed()

    def watch(self, tell: Tell) -> None:
        self._tell = tell

    def go_on_with(self, stream: Stream) -> None:
        """As `PlaneFeed.go_on_with`."""
        self.tapped.add(stream.number)
        self._tell(Follow(stream))

    def switched(self, stream: int) -> None:
        self.switches.append(stream)
        self.tapped = {stream, AUDIO}

    def request_keyframe(self, stream: int) -> None:
        self._feeds.asked(stream)

    def close(self) -> None:
        self._feeds.forget(self)


def clock_ms() -> int:
    """What the pictures say: the machine's wall clock, so that another process can compare."""
    return time.time_ns() // 1_000_000 % (1 << 24)

"""The streams of one picture and its sound, from RTP packets to units on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.egress.audio import AudioLine
from relay.egress.h264 import Depacketiser, Picture
from relay.egress.media import AUDIO_RATE, VIDEO_RATE, AudioConfig, Unit, VideoUnit
from relay.egress.reorder import Ordered, Reorder
from relay.egress.timing import RtpClock
from relay.errors import UsageError
from relay.plane.reference import rtp

SILENCE_US = 350_000
"""Sound that is so late counts as absent, and silence is put in its place."""
KEYFRAME_RETRY_US = 500_000


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of the tap ring. `payload_type` -1: any; packets of another one are left out (they are repair)."""

    number: int
    kind: Literal["video", "audio"]
    codec: Literal["h264", "opus"]
    payload_type: int = -1


@dataclass(slots=True)
class Counts:
    """What a source has seen so far."""

    packets: int = 0
    malformed: int = 0
    pictures: int = 0
    keyframes: int = 0


class Source:
    """At most one video and one audio stream. Raises UsageError for others."""

    def __init__(self, streams: Sequence[Stream], keyframe_us: int = 2_000_000) -> None:
        kinds = [stream.kind for stream in streams]
        codecs = {"video": "h264", "audio": "opus"}
        if not streams or len(set(kinds)) < len(kinds) or any(s.codec != codecs[s.kind] for s in streams):
            raise UsageError("a source is one H264 stream, one Opus stream, or one of each")
        self.counts = Counts()
        self.has_video = "video" in kinds
        self._streams = {stream.number: stream for stream in streams}
        self._order = {stream.number: Reorder() for stream in streams}
        rates = {"video": VIDEO_RATE, "audio": AUDIO_RATE}
        self._clocks = {stream.number: RtpClock(rates[stream.kind]) for stream in streams}
        self._video = Depacketiser()
        self._audio = AudioLine()
        self._keyframe_us = keyframe_us
        self._keyframe_at = self._asked = 0
        self._wanted = False
        self._last_video: int | None = None

    @property
    def audio_config(self) -> AudioConfig:
        return self._audio.config

    @property
    def lost(self) -> int:
        return sum(order.lost for order in self._order.values())

    @property
    def damaged(self) -> int:
        """Pictures and sound packets that were of no use."""
        return self._video.damaged + self._video.bad + self._audio.bad + self.counts.malformed

    @property
    def video_streams(self) -> list[int]:
        return [number for number, stream in self._streams.items() if stream.kind == "video"]

    def anchor(self, stream: int, timestamp: int, moment: int) -> None:
        """Which moment (monotonic µs) a timestamp is, where known; unknown streams are passed over."""
        if stream in self._clocks:
            self._clocks[stream].anchor(timestamp, moment)

    def receive(self, number: int, arrival: int, data: bytes) -> list[Unit]:
        """Take a plaintext RTP packet."""
        stream = self._streams.get(number)
        packet = rtp.parse(data, arrival)
        if stream is None or packet is None:
            self.counts.malformed += 1
            return []
        if stream.payload_type not in (-1, packet.payload_type):
            return []
        self.counts.packets += 1
        return [unit for each in self._order[number].push(packet) for unit in self._take(stream, each)]

    def tick(self, now: int) -> list[Unit]:
        """Give up what is missing for too long; put silence where sound does not come."""
        found: list[Unit] = []
        for number, order in self._order.items():
            for each in order.expire(now):
                found += self._take(self._streams[number], each)
        found += self._audio.fill(now - SILENCE_US)
        return found

    def want_keyframe(self) -> None:
        """An output that just began needs one."""
        self._wanted = True

    def wants_keyframe(self, now: int) -> bool:
        """Whether the publisher has to be asked for a keyframe now; true at most once in `KEYFRAME_RETRY_US`.

        After `keyframe_us` without one too: segments begin with them, and browsers send none by themselves.
        """
        due = self._wanted or self._video.waits or now - self._keyframe_at >= self._keyframe_us
        if not self.has_video or not due or now - self._asked < KEYFRAME_RETRY_US:
            return False
        self._asked = now
        return True

    def _take(self, stream: Stream, ordered: Ordered) -> list[Unit]:
        packet = ordered.packet
        if stream.kind == "audio":
            if not packet.payload:  # padding alone
                return []
            time = self._clocks[stream.number].time(packet.timestamp, packet.arrival)
            return list(self._audio.push(time, packet.payload))
        return [unit for picture in self._video.push(ordered) for unit in self._picture(stream, picture)]

    def _picture(self, stream: Stream, picture: Picture) -> list[Unit]:
        parameters = self._video.parameters
        assert parameters is not None
        time = self._clocks[stream.number].time(picture.timestamp, picture.arrival)
        if self._last_video is not None:
            time = max(time, self._last_video + 1_000)  # a base that moved must not turn time back
        self._last_video = time
        self.counts.pictures += 1
        if picture.keyframe:
            self.counts.keyframes += 1
            self._keyframe_at, self._wanted = picture.arrival, False
        self._audio.start(time)
        data = b"".join(len(nal).to_bytes(4, "big") + nal for nal in picture.nals)
        return [VideoUnit(time, picture.keyframe, parameters, data)]

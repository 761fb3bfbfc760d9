"""The streams of one picture and its sound, from RTP packets to units on one time axis."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.egress.audio import AudioLine
from relay.egress.interleave import Interleaver
from relay.egress.lip_sync import START_US, LipSync
from relay.egress.media import AUDIO_RATE, AudioConfig, Unit, VideoCodec, VideoUnit
from relay.egress.picture_line import PictureLine, Shown
from relay.egress.reorder import Ordered, Reorder
from relay.egress.timing import RtpClock
from relay.errors import UsageError
from relay.plane.reference import rtp
from relay.stage.lips import MOST_US
from relay.stage.sender_clock import Anchor

SILENCE_US = 350_000
"""Sound that is so late counts as absent, and silence is put in its place."""
FORMER = 16
"""Streams that were gone on from, and of which packets may still come."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of the tap ring. `payload_type` -1: any; packets of another one are left out (they are repair)."""

    number: int
    kind: Literal["video", "audio"]
    codec: Literal["h264", "vp8", "opus"]
    payload_type: int = -1


@dataclass(slots=True)
class Counts:
    """What a source has seen so far."""

    packets: int = 0
    malformed: int = 0
    pictures: int = 0
    keyframes: int = 0
    changes: int = 0
    """Of the video stream."""


@dataclass(slots=True)
class _Video:
    stream: Stream
    codec: VideoCodec
    line: PictureLine


class Source:
    """At most one picture and one sound. Raises UsageError for other streams.

    The picture may come as several streams (layers of simulcast), one at a time: `follow` names the next one, and from
    its first keyframe on it takes the place of the one before. Times go on, and sound knows nothing of it.

    Picture and sound are put together by their sender's clock, where `know_sender` or the packets say what it is, else
    by their arrival.
    """

    def __init__(self, streams: Sequence[Stream], keyframe_us: int = 2_000_000) -> None:
        kinds = [stream.kind for stream in streams]
        if not streams or len(set(kinds)) < len(kinds):
            raise UsageError("a source is one stream of pictures, one of sound, or one of each")
        self.counts = Counts()
        self._lost = self._damaged = 0
        """Of streams that are no more."""
        self._video: _Video | None = None
        self._next: _Video | None = None
        self._former: deque[int] = deque(maxlen=FORMER)
        self._sound: Stream | None = None
        self._order, self._clock = Reorder(), RtpClock(AUDIO_RATE)
        self._audio = AudioLine()
        self._keyframe_us = keyframe_us
        self._wanted = False
        self._last_video: int | None = None
        self._first: deque[VideoUnit] = deque()
        """The first pictures, while they wait for their sound."""
        self._first_by = 0
        """When they go without it."""
        self._waiting = Interleaver()
        for stream in streams:
            if stream.kind == "video":
                self._video = _video(stream)
            elif stream.codec != "opus":
                raise UsageError(f"sound of a source is Opus, not {stream.codec}")
            else:
                self._sound = stream
        self._lips = LipSync(*(None if each is None else each.number for each in (self.video, self._sound)))

    @property
    def audio_config(self) -> AudioConfig:
        return self._audio.config

    @property
    def lost(self) -> int:
        """Packets."""
        return self._lost + self._order.lost + sum(each.line.lost for each in self._videos())

    @property
    def damaged(self) -> int:
        """Pictures and sound packets that were of no use."""
        of_pictures = self._damaged + sum(each.line.damaged for each in self._videos())
        return of_pictures + self._audio.bad + self.counts.malformed

    @property
    def video(self) -> Stream | None:
        """The stream that pictures come from."""
        return None if self._video is None else self._video.stream

    @property
    def behind(self) -> int:
        """How much later than its moment a unit comes, µs."""
        return self._lips.behind

    def follow(self, stream: Stream) -> None:
        """Go on with another stream of the same picture, at its next keyframe; or stay with the one that is taken.

        Raises UsageError when the source has no picture, or one of another codec.
        """
        if self._video is None or stream.codec != self._video.codec:
            raise UsageError("a source goes on with a picture of the same codec")
        if self._next is not None and self._next.stream.number != stream.number:
            self._retire(self._next)
            self._lips.forget(self._next.stream.number)
            self._next = None
        if self._next is None and stream.number != self._video.stream.number:
            self._next = _video(stream)

    def know_sender(self, session: str, captured: Sequence[tuple[int, Anchor]]) -> None:
        """See `KnowSender`; unknown streams are passed over."""
        self._lips.told(session, captured)

    def receive(self, number: int, arrival: int, data: bytes) -> list[Unit]:
        """Take a plaintext RTP packet."""
        packet = rtp.parse(data, arrival)
        video = next((each for each in self._videos() if each.stream.number == number), None)
        stream = video.stream if video is not None else self._sound
        if packet is None or stream is None or stream.number != number:
            self.counts.malformed += packet is None or number not in self._former
            return []
        if stream.payload_type not in (-1, packet.payload_type):
            return []
        self.counts.packets += 1
        self._lips.look(number, packet)
        if video is not None:
            return self._leave(self._pictures(video, video.line.push(packet), arrival), arrival)
        return self._leave([unit for each in self._order.push(packet) for unit in self._hear(each)], arrival)

    def tick(self, now: int) -> list[Unit]:
        """Give up what is missing for too long; put silence where sound does not come."""
        found: list[Unit] = []
        self._lips.move(now)
        for each in self._videos():
            found += self._pictures(each, each.line.expire(now), now)
        for ordered in self._order.expire(now):
            found += self._hear(ordered)
        found += self._audio.fill(now - SILENCE_US)
        return self._leave(found, now)

    def want_keyframe(self) -> None:
        """An output that just began needs one."""
        self._wanted = True

    def keyframes_wanted(self, now: int) -> list[int]:
        """The streams whose publisher has to be asked for a keyframe now.

        After `keyframe_us` without one, too: segments begin with them, and browsers send none by themselves.
        """
        return [
            each.stream.number
            for each in self._videos()
            if each.line.wants_keyframe(
                now,
                soon=each is self._video and (self._wanted or now - each.line.keyframe_at >= self._keyframe_us),
            )
        ]

    def _videos(self) -> list[_Video]:
        return [each for each in (self._video, self._next) if each is not None]

    def _retire(self, video: _Video) -> None:
        self._lost += video.line.lost
        self._damaged += video.line.damaged
        self._former.append(video.stream.number)

    def _hear(self, ordered: Ordered) -> list[Unit]:
        packet = ordered.packet
        if not packet.payload:  # padding alone
            return []
        time = self._clock.time(packet.timestamp, packet.arrival)
        if self._lips.possible:  # pictures that come later may be earlier: silence for them
            self._audio.start(time - MOST_US)
        found = self._audio.push(time, packet.payload)
        if self._audio.placed is not None:
            self._lips.sound_placed(packet.ssrc, packet.timestamp, self._audio.placed)
        return list(found)

    def _pictures(self, video: _Video, shown: list[Shown], now: int) -> list[Unit]:
        if shown and video is self._next:
            assert self._video is not None
            self._retire(self._video)
            self._video, self._next = video, None
            self.counts.changes += 1
        found: list[Unit] = []
        for unit, ssrc, timestamp in shown:
            self._lips.picture_placed(video.stream.number, ssrc, timestamp, unit.time)
            if self._last_video is not None:
                found.append(self._picture(unit))
                continue
            self._first_by = self._first_by if self._first else now + START_US
            self._first.append(unit)
        return found

    def _begin(self, now: int) -> list[Unit]:
        """The first pictures, together with their sound as far as that is known."""
        if not self._first or (self._lips.possible and not self._lips.known and now < self._first_by):
            return []
        self._lips.settle()
        found: list[Unit] = [self._picture(unit) for unit in self._first]
        self._first.clear()
        return found

    def _leave(self, units: list[Unit], now: int) -> list[Unit]:
        """What is due of these and of those that wait."""
        units += self._begin(now)
        if not self._lips.offset and not self._waiting:
            return units
        for unit in units:
            self._waiting.put(unit, now)
        return self._waiting.take(now, self.behind)

    def _picture(self, unit: VideoUnit) -> VideoUnit:
        """In its place: neither a base that moved nor another stream, whose pictures came later, turns time back."""
        time = unit.time - self._lips.offset
        time = time if self._last_video is None else max(time, self._last_video + 1_000)
        self._last_video = time
        self.counts.pictures += 1
        if unit.keyframe:
            self.counts.keyframes += 1
            self._wanted = False
        self._audio.start(time)
        return unit._replace(time=time)


def _video(stream: Stream) -> _Video:
    if stream.kind != "video" or stream.codec == "opus":
        raise UsageError(f"pictures of a source are H264 or VP8, not {stream.codec}")
    return _Video(stream, stream.codec, PictureLine(stream.codec))

"""Units become fragments (parts) and segments. Sans-IO: units and time in, events out; time in microseconds.

A part ends with the picture after which one more would make it too long, so it is out without waiting for the next
picture; the last picture's duration is foreseen. Decoding times follow each other without a gap all the same: a picture
that comes later than foreseen takes its decoding time from where the part before it ended, and says by its offset when
it is shown. (Browsers drop everything up to the next keyframe when decoding times leap.)

Segments begin with a keyframe. Where none comes for `max_segment_us`, one begins without.

Where the pictures' format changes, all before ends at that moment and a new init segment begins there. Sound comes
later than the picture that it belongs to, so the change waits for it: none is lost between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay.egress.media import AUDIO_FRAME, AUDIO_RATE, VIDEO_RATE, AudioConfig, AudioUnit, Format, Unit, VideoUnit
from relay.egress.mp4 import AUDIO_TRACK, VIDEO_TRACK, Run, Sample, fragment, init_segment
from relay.errors import UsageError

STALL_US = 500_000
"""A picture that is so late does not hold back the sound."""
FIRST_FRAME_US = 33_333
SHORTEST_US = 1_000
"""Of a picture or a part."""
SOUND_US = AUDIO_FRAME * 1_000_000 // AUDIO_RATE
"""How long a unit of sound is."""


@dataclass(frozen=True, slots=True)
class InitReady:
    """What the parts from now on belong to: the first, or another one after the picture's format changed."""

    data: bytes
    parameters: Format | None


@dataclass(frozen=True, slots=True)
class PartReady:
    """A fragment. `start` is on the axis of the units; `independent`: it begins with a keyframe, or has no pictures."""

    data: bytes
    start: int
    duration: int
    independent: bool
    pictures: int


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """The parts since the last segment are a segment."""

    start: int
    duration: int


Event = InitReady | PartReady | SegmentReady


class Segmenter:
    """One output's. `part_us` is the longest part, `segment_us` the wanted segment; a keyframe half of that after the
    last one begins a new one."""

    def __init__(
        self, audio: AudioConfig, part_us: int, segment_us: int, max_segment_us: int, *, video: bool = True
    ) -> None:
        if not 0 < part_us <= segment_us <= max_segment_us:
            raise UsageError("part, segment and longest segment have to be in this order")
        self._audio_config, self._video = audio, video
        self._part_us, self._segment_us, self._max_segment_us = part_us, segment_us, max_segment_us
        self._parameters: Format | None = None
        self._sequence = 0
        self._origin: int | None = None
        """Time 0 of the file; None until the first keyframe."""
        self._part = self._segment = 0
        """Where the present ones began."""
        self._frame = self._interval = FIRST_FRAME_US
        """How long the last picture is foreseen to be, and how long the one before it was."""
        self._last = 0
        self._pictures: list[VideoUnit] = []
        self._sound: list[AudioUnit] = []
        self._heard = 0
        """Up to where there is sound."""
        self._changed: list[VideoUnit] = []
        """Pictures of another format, until the sound before them is there."""
        self._noticed = 0
        """When they were first found waiting."""
        self._decoded = 0
        """End of the last picture in its track, in its units."""

    def take(self, unit: Unit) -> list[Event]:
        """Take a unit; those of one kind have to come in order."""
        found = self._take_sound(unit) if isinstance(unit, AudioUnit) else self._take_picture(unit)
        if self._changed and self._heard >= self._changed[0].time:
            found += self._change()
        return found

    def tick(self, now: int) -> list[Event]:
        """Cut parts of sound alone when pictures do not come."""
        found: list[Event] = []
        if self._changed:
            self._noticed = self._noticed or now
            if now >= self._noticed + STALL_US:  # where everything comes late, the sound is not to be lost for that
                found += self._change()
        while (
            self._origin is not None
            and not self._changed
            and now >= self._part + self._part_us + STALL_US
            and (self._pictures or self._sound)
        ):
            found += self._cut(self._part + self._part_us)
        return found

    def finish(self) -> list[Event]:
        """Cut what is left; the next keyframe begins anew."""
        found: list[Event] = []
        while self._changed:
            found += self._change()
        if self._origin is None:
            return found
        end = self._part + SHORTEST_US  # there may be sound from before the last part's end
        if self._pictures:
            end = max(end, self._pictures[-1].time + self._frame)
        elif self._sound:
            end = max(end, self._sound[-1].time + SOUND_US)
        found += self._cut_up_to(end)
        found += self._end_segment()
        self._origin = None
        self._pictures, self._sound = [], []
        return found

    def _change(self) -> list[Event]:
        """End what is of the former format, and begin with the pictures of the new one."""
        pictures, self._changed, self._noticed = self._changed, [], 0
        at = pictures[0].time
        found: list[Event] = []
        frame, self._frame = self._frame, min(self._frame, at - self._last)
        found += self._cut_up_to(at)
        found += self._end_segment()
        self._frame, self._origin = frame, None
        for unit in pictures:
            found += self._take_picture(unit)
        return found

    def _take_sound(self, unit: AudioUnit) -> list[Event]:
        found: list[Event] = []
        if self._origin is None:
            if self._video:
                self._sound = [*self._sound[-50:], unit]  # what was said just before the first picture, at most
                return []
            found += self._begin(unit.time, None)
        elif unit.time < self._origin:
            return []  # from before the first picture
        self._heard = unit.time + SOUND_US
        self._sound.append(unit)
        if not self._video and unit.time - self._part >= self._part_us - SOUND_US:
            found += self._cut(unit.time)
            if self._part - self._segment >= self._segment_us:
                found += self._end_segment()
        return found

    def _take_picture(self, unit: VideoUnit) -> list[Event]:
        found: list[Event] = []
        if self._changed:
            self._changed.append(unit)
            return []
        if unit.time <= self._last and self._origin is not None:
            unit = unit._replace(time=self._last + SHORTEST_US)
        if self._parameters is not unit.parameters and unit.parameters != self._parameters:
            if not unit.keyframe:
                return []
            if self._origin is not None:
                # The last part may have ended where a picture was foreseen, and this one came a little earlier. Sound
                # from before that end is still to come, and belongs to the former format: in a part of its own.
                self._changed = [unit._replace(time=max(unit.time, self._part + SHORTEST_US))]
                return []
        if self._origin is None:
            if not unit.keyframe:
                return []
            found += self._begin(unit.time, unit.parameters)
        elif unit.time > self._last:
            interval = min(max(unit.time - self._last, SHORTEST_US), self._part_us)
            # The shorter of two: one picture that came late does not make the next one late.
            self._frame, self._interval = min(interval, self._interval), interval
        new_segment = unit.keyframe and unit.time - self._segment >= self._segment_us // 2
        # A part that is a little full is ended below; one that this picture is too long for, before it.
        # The part before may have ended where this picture was foreseen, which comes some microseconds later: a part of
        # these alone would be of no length in a playlist. Sound from before then is the next one's.
        tiny = not self._pictures and unit.time - self._part < SHORTEST_US
        if not tiny and (new_segment or unit.time + self._frame // 2 > self._part + self._part_us):
            found += self._cut_up_to(unit.time)
        if new_segment:
            found += self._end_segment()
        self._pictures.append(unit)
        self._last = unit.time
        end, most = unit.time + self._frame, self._part + self._part_us
        # Half a frame more would still not make room for one: timestamps of cameras are not even.
        if end + self._frame > most + 1_000:
            found += self._cut(min(end, most))
        return found

    def _begin(self, time: int, parameters: Format | None) -> list[Event]:
        self._origin = self._part = self._segment = self._last = time
        self._parameters = parameters
        self._decoded = 0
        self._sound = [unit for unit in self._sound if unit.time >= time]
        return [InitReady(init_segment(parameters, self._audio_config), parameters)]

    def _cut_up_to(self, end: int) -> list[Event]:
        """End parts until the present one begins at `end`, none longer than the longest (RFC 8216bis, 4.4.4.9)."""
        found: list[Event] = []
        while end - self._part > self._part_us:
            found += self._cut(self._part + self._part_us)
        return [*found, *(self._cut(end) if end > self._part else [])]

    def _cut(self, end: int) -> list[Event]:
        """End the part at `end`: all pictures there are, and the sound before it."""
        assert self._origin is not None
        pictures, self._pictures = self._pictures, []
        sound = [unit for unit in self._sound if unit.time < end]
        self._sound = self._sound[len(sound) :]
        start, self._part = self._part, end
        if not pictures and not sound:
            return []
        self._sequence += 1
        runs = [self._picture_run(pictures), self._sound_run(sound)]
        independent = not self._video or bool(pictures and pictures[0].keyframe)
        found: list[Event] = [PartReady(fragment(self._sequence, runs), start, end - start, independent, len(pictures))]
        if end - self._segment + self._part_us > self._max_segment_us:
            found += self._end_segment()
        return found

    def _end_segment(self) -> list[Event]:
        start, self._segment = self._segment, self._part
        return [SegmentReady(start, self._part - start)] if self._part > start else []

    def _picture_run(self, pictures: list[VideoUnit]) -> Run:
        assert self._origin is not None
        first = self._decoded
        samples: list[Sample] = []
        shown = [_ticks(unit.time - self._origin) for unit in pictures]
        foreseen = max(1, _ticks(self._frame))
        for index, unit in enumerate(pictures):
            begins = self._decoded
            follows = shown[index + 1] if index + 1 < len(shown) else shown[index] + foreseen
            self._decoded = max(follows, begins + 1)
            samples.append(Sample(unit.data, self._decoded - begins, unit.keyframe, shown[index] - begins))
        return Run(VIDEO_TRACK, first, samples)

    def _sound_run(self, sound: list[AudioUnit]) -> Run:
        assert self._origin is not None
        first = sound[0].position - self._origin * AUDIO_RATE // 1_000_000 if sound else 0
        return Run(AUDIO_TRACK, max(first, 0), [Sample(unit.data, AUDIO_FRAME) for unit in sound])


def _ticks(time: int) -> int:
    return (time * VIDEO_RATE + 500_000) // 1_000_000


def shortened(part: PartReady) -> PartReady:
    """The same without its bytes, for those who only keep account."""
    return replace(part, data=b"")

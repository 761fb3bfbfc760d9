"""Opus in, AAC out, without a gap: what does not come is silence, so that every output always has sound.

AAC because Safari, RTMP services and editing tools want it; Opus in MP4 plays in few places. One encoder serves
all outputs of a source.
"""

from __future__ import annotations

from fractions import Fraction

import av
from av.audio.fifo import AudioFifo
from av.audio.resampler import AudioResampler

from relay.egress.media import AUDIO_FRAME, AUDIO_RATE, AudioConfig, AudioUnit

BIT_RATE = 128_000
TOLERANCE = AUDIO_RATE // 50
"""Samples (20 ms) that a frame may be early or late without being cut or padded."""
MAX_GAP = 10 * AUDIO_RATE
"""A longer gap is not filled sample by sample: its time is a mistake."""
_GLOBAL_HEADER = 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER: the configuration goes into the init segment


class AudioLine:
    """The sound of a source. `bad` counts packets that no decoder takes, `silent` samples made up, `skipped` frames
    that came when their time was over."""

    def __init__(self) -> None:
        self.bad = self.silent = self.skipped = 0
        self.placed: int | None = None
        """At which moment the packet that came last begins in the line; None when it is not in it."""
        self._decoder = av.CodecContext.create("libopus", "r")
        self._decoder.sample_rate = AUDIO_RATE
        self._decoder.layout = "stereo"
        self._resampler = AudioResampler(format="fltp", layout="stereo", rate=AUDIO_RATE)
        self._encoder = av.CodecContext.create("aac", "w")
        self._encoder.sample_rate = AUDIO_RATE
        self._encoder.layout = "stereo"
        self._encoder.format = "fltp"
        self._encoder.bit_rate = BIT_RATE
        self._encoder.time_base = Fraction(1, AUDIO_RATE)
        self._encoder.flags |= _GLOBAL_HEADER
        self._encoder.open()
        self.config = AudioConfig(bytes(self._encoder.extradata))
        self._fifo = AudioFifo()
        self._next: int | None = None
        """Position of the next sample that goes into the queue."""
        self._out = 0
        """Position of the first sample in the queue."""

    @property
    def time(self) -> int | None:
        """Up to where there is sound; None before it starts."""
        return None if self._next is None else self._next * 1_000_000 // AUDIO_RATE

    def start(self, time: int) -> None:
        """Begin here, if it has not begun."""
        if self._next is None:
            self._next = self._out = _position(time)

    def push(self, time: int, payload: bytes) -> list[AudioUnit]:
        """Take an Opus packet (RFC 7587) of that moment."""
        self.start(time)
        assert self._next is not None
        self.placed = None
        try:
            decoded = self._decoder.decode(av.Packet(payload)) if payload else []
        except av.FFmpegError:
            self.bad += 1
            return []
        position = _position(time)
        if abs(position - self._next) > MAX_GAP:  # whoever keeps time made a leap; the line goes on
            position = self._next
        if position < self._next - TOLERANCE:
            self.skipped += 1
            return []
        found = self._silence(position - self._next) if position > self._next + TOLERANCE else []
        self.placed = self.time
        for frame in decoded:
            for each in self._resampler.resample(frame):
                self._write(each)
        return found + self._drain()

    def fill(self, time: int) -> list[AudioUnit]:
        """Be silent up to `time`; nothing when there is sound up to there."""
        if self._next is None:
            return []
        missing = min(_position(time) - self._next, MAX_GAP)
        return self._silence(missing) if missing >= AUDIO_FRAME else []

    def _silence(self, samples: int) -> list[AudioUnit]:
        self.silent += samples
        while samples > 0:
            count = min(samples, AUDIO_RATE)
            frame = av.AudioFrame(format="fltp", layout="stereo", samples=count)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate = AUDIO_RATE
            self._write(frame)
            samples -= count
        return self._drain()

    def _write(self, frame: av.AudioFrame) -> None:
        assert self._next is not None
        frame.pts = None
        self._fifo.write(frame)
        self._next += frame.samples

    def _drain(self) -> list[AudioUnit]:
        found: list[AudioUnit] = []
        while (frame := self._fifo.read(AUDIO_FRAME)) is not None:
            frame.pts, frame.time_base = self._out, Fraction(1, AUDIO_RATE)
            self._out += AUDIO_FRAME
            found += [AudioUnit(packet.pts, bytes(packet)) for packet in self._encoder.encode(frame)]
        return found


def _position(time: int) -> int:
    return time * AUDIO_RATE // 1_000_000

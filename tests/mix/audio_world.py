"""People who speak in tones, and listeners who measure: real Opus by PyAV at both ends."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from relay.plane.reference.rtp import parse

RATE = 48_000
FRAME = 960
TICK_US = 20_000
PAYLOAD_TYPE = 111

Sound = NDArray[np.float64]


def rtp(ssrc: int, seq: int, timestamp: int, payload: bytes, payload_type: int = PAYLOAD_TYPE) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, seq & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def tone(hz: float, amplitude: float, begin: int, count: int) -> NDArray[np.float32]:
    """`count` samples of a sine from sample `begin` on."""
    wave = amplitude * np.sin(2 * np.pi * hz * np.arange(begin, begin + count) / RATE)
    return wave.astype(np.float32)


class Publisher:
    """Packets of 20 ms: a tone of one frequency, in stereo or as a mono voice codec with redundancy."""

    def __init__(self, hz: float, amplitude: float = 0.2, *, ssrc: int = 1, voice: bool = False) -> None:
        self.hz, self.amplitude, self.ssrc = hz, amplitude, ssrc
        self._number = 0
        self._seq, self._timestamp = 65_530, 2**32 - 5 * FRAME
        self._channels = 1 if voice else 2
        codec = av.CodecContext.create("libopus", "w")
        codec.sample_rate, codec.format, codec.layout = RATE, "flt", "mono" if voice else "stereo"
        codec.time_base = Fraction(1, RATE)
        codec.bit_rate = 24_000 if voice else 96_000
        codec.options = (
            {"application": "voip", "fec": "1", "packet_loss": "20"} if voice else {"application": "lowdelay"}
        )
        self._codec = codec

    def packet(self, amplitude: float | None = None) -> bytes:
        """The next 20 ms as RTP; silence with an amplitude of 0."""
        wave = tone(self.hz, self.amplitude if amplitude is None else amplitude, self._number * FRAME, FRAME)
        payload = b""
        while not payload:  # an encoder may look ahead by a frame
            frame = av.AudioFrame.from_ndarray(
                np.repeat(wave, self._channels)[None, :], "flt", "mono" if self._channels == 1 else "stereo"
            )
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._number * FRAME, Fraction(1, RATE)
            payload = b"".join(bytes(one) for one in self._codec.encode(frame))
            self._number += 1
            if not payload:
                wave = tone(self.hz, self.amplitude if amplitude is None else amplitude, self._number * FRAME, FRAME)
        self._seq, self._timestamp = self._seq + 1, self._timestamp + FRAME
        return rtp(self.ssrc, self._seq, self._timestamp, payload)

    def packets(self) -> Iterator[bytes]:
        while True:
            yield self.packet()


@dataclass
class Listener:
    """Takes a mix's RTP packets, in the order in which they came, and hears them."""

    packets: list[bytes] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)

    def take(self, packet: bytes, arrival: int = 0) -> None:
        self.packets.append(bytes(packet))
        self.arrivals.append(arrival)

    def jumps(self, lost: int = 0) -> list[int]:
        """Frames missing between neighbours, by timestamp; SSRC and sequence numbers have to go on. `lost`: so many
        packets may be missing at a time, those that lay in a ring when its process was killed."""
        read = [parse(packet, 0) for packet in self.packets]
        missing = []
        for one, other in itertools.pairwise(read):
            assert one is not None
            assert other is not None
            assert other.ssrc == one.ssrc
            assert 1 <= (other.seq - one.seq) & 0xFFFF <= 1 + lost
            samples = (other.timestamp - one.timestamp) & 0xFFFFFFFF
            assert samples % FRAME == 0
            missing.append(samples // FRAME - 1)
        return missing

    def longest_wait_ms(self) -> float:
        """Between two packets, by the clock of who wrote them."""
        return max(b - a for a, b in itertools.pairwise(self.arrivals)) / 1000

    def hear(self, lost: int = 0) -> Sound:
        """Decode all; shape (samples,), the left channel. Missing frames are zeros. `lost`: see `jumps`."""
        codec = av.CodecContext.create("opus", "r")
        parts: list[Sound] = []
        for packet, missing in zip(self.packets, [*self.jumps(lost), 0], strict=True):
            read = parse(packet, 0)
            assert read is not None
            for frame in codec.decode(av.Packet(read.payload)):
                parts.append(frame.to_ndarray()[0].astype(np.float64))  # noqa: PERF401
            parts.append(np.zeros(missing * FRAME))
        return np.concatenate(parts)


def amplitude_of(sound: Sound, hz: float) -> float:
    """How loud a tone is in a sound, as an amplitude."""
    window = np.hanning(len(sound))
    wave = np.exp(-2j * np.pi * hz * np.arange(len(sound)) / RATE)
    return float(2 * np.abs(np.sum(sound * window * wave)) / window.sum())


def residue(sound: Sound, tones: Sequence[float]) -> float:
    """Share of the energy outside of ± 25 Hz around the tones: clicks, gaps and noise."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequencies = np.fft.rfftfreq(len(sound), 1 / RATE)
    outside = np.ones(len(spectrum), bool)
    for hz in tones:
        outside &= np.abs(frequencies - hz) > 25
    return float(spectrum[outside].sum() / spectrum.sum())


def roughest(sound: Sound, tones: Sequence[tuple[float, float]]) -> float:
    """The largest second difference beside the most that the (frequency, amplitude) tones can make: about 1 without
    clicks."""
    possible = sum(amplitude * (2 * np.pi * hz / RATE) ** 2 for hz, amplitude in tones)
    return float(np.abs(np.diff(sound, n=2)).max() / possible)

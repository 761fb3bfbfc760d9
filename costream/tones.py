"""Sine tones out, and their frequency and level back: 48 kHz, one channel, 16-bit samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RATE = 48_000  # Hz, Opus' own
Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Heard:
    """The strongest tone: frequency in Hz, its level in dB below full scale (dBFS), and its share of all energy."""

    frequency: float
    level: float
    purity: float


class Tone:
    """A sine without jumps between calls. `amplitude` is a fraction of full scale."""

    def __init__(self, frequency: float, amplitude: float = 0.3, rate: int = RATE) -> None:
        if not 0 < frequency < rate / 2 or not 0 <= amplitude <= 1:
            raise ValueError(f"a tone of {frequency} Hz at {amplitude} of full scale cannot be sampled at {rate} Hz")
        self.frequency, self.amplitude, self.rate = frequency, amplitude, rate
        self._at = 0

    def samples(self, count: int) -> Samples:
        """The next `count` samples."""
        angle = (np.arange(self._at, self._at + count) % self._period()) * (2 * math.pi * self.frequency / self.rate)
        self._at += count
        wave: Samples = np.rint(np.sin(angle) * (self.amplitude * 32767)).astype(np.int16)
        return wave

    def _period(self) -> int:
        """A count of samples after which the sine repeats, to keep the angle small and exact for days."""
        thousandths = round(self.frequency * 1000)
        return self.rate * 1000 // math.gcd(thousandths, self.rate * 1000)


def detect(samples: Samples, rate: int = RATE) -> Heard | None:
    """The strongest tone of a piece of sound, or None in silence (below -70 dBFS).

    Needs 20 ms or more (ValueError); 100 ms gives a frequency within 1 Hz for a clean tone.
    """
    if len(samples) < rate // 50:
        raise ValueError(f"{len(samples)} samples are too few to hear a tone in")
    wave = samples.astype(np.float64) / 32768
    wave -= wave.mean()
    if 20 * math.log10(math.sqrt(float(np.mean(wave**2))) + 1e-9) < -70:
        return None
    window = np.hanning(len(wave))
    spectrum = np.abs(np.fft.rfft(wave * window))
    peak = int(spectrum[1:-1].argmax()) + 1
    # The logarithm of a Hann window's main lobe is nearly a parabola: its vertex is the frequency.
    a, b, c = (math.log(float(spectrum[i]) + 1e-12) for i in (peak - 1, peak, peak + 1))
    offset = (a - c) / (2 * (a - 2 * b + c)) if a - 2 * b + c else 0.0
    energy = spectrum**2
    near = float(energy[max(0, peak - 3) : peak + 4].sum())
    amplitude = math.sqrt(near * 32 / 3) / len(wave)  # Parseval; Hann's energy is 3/8 of the length
    return Heard((peak + offset) * rate / len(wave), 20 * math.log10(amplitude + 1e-9), near / float(energy.sum()))


def level(samples: Samples, frequency: float, rate: int = RATE) -> float:
    """The level in dBFS of one frequency among others (Goertzel's question, asked with a windowed dot product)."""
    window = np.hanning(len(samples))
    turns = np.exp(-2j * math.pi * frequency / rate * np.arange(len(samples)))
    amplitude = 2 * abs(complex((samples * window * turns).sum())) / (32768 * float(window.sum()))
    return 20 * math.log10(amplitude + 1e-9)

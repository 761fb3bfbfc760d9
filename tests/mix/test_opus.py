"""How late sound comes out of Opus: what lips are matched by."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from relay.mix.audio.opus import LOOK_AHEAD_US, Decoder, Encoder
from relay.stage.lips import SENDERS_LOOK_AHEAD_US

RATE, FRAME = 48_000, 960


def sweep() -> np.ndarray:
    """A tone that rises from 100 to 3000 Hz, so that it is like itself at one place only."""
    at = np.arange(10 * FRAME) / RATE
    tone = 0.5 * np.sin(2 * np.pi * (100 + 1450 * at / at[-1]) * at)
    return np.repeat(tone.astype(np.float32)[:, None], 2, axis=1)


def late_us(packets: list[bytes]) -> float:
    """How much later than it went in sound comes out, by the best match."""
    decoder, sound = Decoder(2), sweep()[:, 0]
    heard = np.concatenate([decoder.decode(packet) for packet in packets])[:, 0]
    shifts = range(FRAME // 2)
    likeness = [float(np.dot(heard[shift:], sound[: len(sound) - shift])) for shift in shifts]
    return int(np.argmax(likeness)) * 1_000_000 / RATE


def test_the_mixers_encoder_looks_ahead_by_what_is_said() -> None:
    encoder, sound = Encoder(2, 96_000, 5), sweep()
    packets = [encoder.encode(sound[at : at + FRAME]) for at in range(0, len(sound), FRAME)]
    assert late_us(packets) == pytest.approx(LOOK_AHEAD_US, abs=100)


def test_encoders_as_hosts_have_them_look_ahead_by_what_is_said() -> None:
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "stereo", "flt"
    encoder.time_base = Fraction(1, RATE)
    sound = sweep()
    packets = []
    for at in range(0, len(sound), FRAME):
        frame = av.AudioFrame.from_ndarray(sound[at : at + FRAME].reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    assert late_us(packets) == pytest.approx(SENDERS_LOOK_AHEAD_US, abs=100)

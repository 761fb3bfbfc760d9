"""The mark in the picture and the tone in the sound: what encoders and scalers may do to them."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.clients.painting import Painted, TestPicture, cells, crc16, paint, read, read_i420
from tests.interop.clients.tones import RATE, Tone, detect, level

PAINTED = st.builds(Painted, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFFFF))


@settings(max_examples=60, deadline=None)
@given(PAINTED, st.integers(40, 700), st.integers(23, 500))
def test_a_mark_of_any_size_is_read_back(painted: Painted, width: int, height: int) -> None:
    luma = np.full((height, width), 90, np.uint8)
    paint(luma, painted)
    assert read(luma) == painted


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=4000), st.integers(1, 80))
def test_rubbish_is_no_mark(data: bytes, width: int) -> None:
    height = len(data) // width
    picture = np.frombuffer(data[: width * height], np.uint8).reshape(height, width)
    assert read(picture) is None


@pytest.mark.parametrize("value", [0, 16, 128, 255])
def test_a_flat_picture_is_no_mark(value: int) -> None:
    assert read(np.full((180, 320), value, np.uint8)) is None


def test_values_wrap_and_small_pictures_are_refused() -> None:
    assert (cells(Painted(1, 1 << 24, -1)) == cells(Painted(1, 0, (1 << 24) - 1))).all()
    assert crc16(b"123456789") == 0x29B1  # the check value of CRC-16/CCITT-FALSE
    with pytest.raises(ValueError, match="too small"):
        TestPicture(38, 180, 1)
    with pytest.raises(ValueError, match="even"):
        TestPicture(321, 180, 1)


def test_a_mark_is_read_inside_a_program() -> None:
    program = np.full((720, 1280), 60, np.uint8)
    picture = TestPicture(320, 180, 7).frame(11, 22)[:180]
    program[360 : 360 + 180, 640 : 640 + 320] = picture
    assert read(program, (0.5, 0.5, 0.25, 0.25)) == Painted(7, 11, 22)
    assert read(program, (0.9, 0.9, 0.25, 0.25)) is None
    assert read(program) is None


ENCODERS = {
    "libvpx": ("vp8", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "libx264": ("h264", {"preset": "ultrafast", "tune": "zerolatency", "maxrate": "150k", "bufsize": "75k"}),
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_mark_survives_150_kbit_and_scaling(encoder: str) -> None:
    """Every frame of 320x180 at 150 kbit/s and 30 fps, then scaled by 0.25 to 2."""
    decoder_name, options = ENCODERS[encoder]
    coder = av.CodecContext.create(encoder, "w")
    coder.width, coder.height, coder.pix_fmt = 320, 180, "yuv420p"
    coder.time_base, coder.framerate, coder.bit_rate, coder.gop_size = Fraction(1, 30), Fraction(30), 150_000, 60
    coder.options = options
    decoder = av.CodecContext.create(decoder_name, "r")
    picture, size, counters = TestPicture(320, 180, 4660, "Alice"), 0, []
    for counter in range(60):
        frame = av.VideoFrame.from_ndarray(picture.frame(counter, counter * 33 + 70_000), format="yuv420p")
        frame.pts = counter
        for packet in coder.encode(frame):
            size += packet.size
            for decoded in decoder.decode(packet):
                told = {_scaled(decoded, factor) for factor in (0.25, 0.5, 1, 1.5, 2)}
                assert len(told) == 1
                counters.append(told.pop())
    assert counters == [Painted(4660, i, i * 33 + 70_000) for i in range(60)]
    assert size * 8 / 2 < 200_000  # bit/s: the encoder did keep near its rate


def _scaled(frame: av.VideoFrame, factor: float) -> Painted | None:
    small = frame.reformat(int(frame.width * factor) // 2 * 2, int(frame.height * factor) // 2 * 2)
    plane = small.planes[0]
    return read_i420(memoryview(plane), small.width, small.height, plane.line_size)


@pytest.mark.parametrize("frequency", [220.0, 437.3, 1000.0, 7000.0])
def test_a_tone_is_heard_at_its_frequency_and_level(frequency: float) -> None:
    tone = Tone(frequency, 0.5)
    tone.samples(1234)
    samples = tone.samples(RATE // 10)
    heard = detect(samples)
    assert heard
    assert heard.frequency == pytest.approx(frequency, abs=1)
    assert heard.level == pytest.approx(-6.02, abs=0.2)
    assert heard.purity > 0.99
    assert level(samples, frequency) == pytest.approx(-6.02, abs=0.2)
    assert level(samples, frequency * 1.5) < -50


def test_two_tones_have_a_level_each_and_silence_none() -> None:
    mixed = Tone(440, 0.2).samples(4800) + Tone(880, 0.1).samples(4800)
    assert level(mixed, 440) - level(mixed, 880) == pytest.approx(6, abs=0.2)
    assert detect(np.zeros(4800, np.int16)) is None
    with pytest.raises(ValueError, match="too few"):
        detect(mixed[:100])
    with pytest.raises(ValueError, match="cannot be sampled"):
        Tone(30_000)


def test_pieces_of_a_tone_join_without_a_jump() -> None:
    pieces = Tone(437.3)
    assert (np.concatenate([pieces.samples(n) for n in (7, 960, 33)]) == Tone(437.3).samples(1000)).all()

"""How long a program's sound waits, so that it is heard when its picture is seen."""

from __future__ import annotations

import numpy as np
import pytest

from relay.mix.audio.opus import Decoder, Encoder
from relay.mix.limiter import FRAME, Limiter
from relay.mix.opus_packet import RATE
from relay.node.programs import picture_wait_ms
from relay.settings import MixVideoSettings
from relay.stage.lips import SENDERS_LOOK_AHEAD_US


@pytest.mark.parametrize("fps", [15, 30, 60])
def test_sound_waits_for_pictures_less_what_the_mix_itself_takes(fps: int) -> None:
    """Pictures come half a frame after their time in the mean."""
    wait_us = picture_wait_ms(MixVideoSettings(fps=fps, delay_ms=60)) * 1000
    assert SENDERS_LOOK_AHEAD_US + wait_us + late_in_the_mix_us() == pytest.approx(60_000 + 500_000 / fps, abs=1_000)


def test_sound_waits_for_nothing_where_pictures_are_sooner() -> None:
    assert picture_wait_ms(MixVideoSettings(fps=60, delay_ms=0)) == 0


def late_in_the_mix_us() -> float:
    """How much later than it goes into the limiter sound comes out of a listener's decoder."""
    at = np.arange(10 * FRAME) / RATE
    tone = (0.5 * np.sin(2 * np.pi * (100 + 1450 * at / at[-1]) * at)).astype(np.float32)  # like itself nowhere else
    limiter, encoder, decoder = Limiter(1), Encoder(1, 96_000, 5), Decoder(1)
    blocks = [limiter.process(tone[begin : begin + FRAME, None]) for begin in range(0, len(tone), FRAME)]
    heard = np.concatenate([decoder.decode(encoder.encode(block)) for block in blocks])[:, 0]
    likeness = [float(np.dot(heard[shift:], tone[: len(tone) - shift])) for shift in range(FRAME)]
    return int(np.argmax(likeness)) * 1_000_000 / RATE

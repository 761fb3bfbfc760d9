"""Limiter, ramps and fades: never above the ceiling, never a click, and nothing changed where nothing is needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from relay.errors import UsageError
from relay.mix.limiter import CEILING, DELAY, FRAME, KNEE, Limiter
from relay.mix.voices import FADE, RATE, Ramp, Voices, cross_fade, energy, level

Block = NDArray[np.float32]


def tone(hz: float, amplitude: float, seconds: float, channels: int = 2) -> Block:
    wave = amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def limited(sound: Block) -> Block:
    limiter = Limiter(sound.shape[1])
    return np.concatenate([limiter.process(sound[at : at + FRAME]) for at in range(0, len(sound) - FRAME + 1, FRAME)])


def steepest(sound: Block) -> float:
    """The largest second difference: a corner or a jump shows in it, a tone hardly."""
    return float(np.abs(np.diff(sound[:, 0].astype(np.float64), n=2)).max())


def test_below_the_knee_only_the_delay_is_added() -> None:
    sound = tone(440, KNEE * 0.99, 0.2)
    out = limited(sound)
    assert np.array_equal(out[DELAY:], sound[: len(out) - DELAY])
    assert not out[:DELAY].any()


@pytest.mark.parametrize("amplitude", [0.8, 1.0, 3.0, 16.0])
def test_a_loud_tone_stays_below_the_ceiling_and_a_tone(amplitude: float) -> None:
    sound = np.concatenate((tone(440, 0.1, 0.1), tone(440, amplitude, 0.3), tone(440, 0.1, 0.6)))
    out = limited(sound)
    assert np.abs(out).max() <= CEILING + 1e-6
    held = out[round(0.2 * RATE) : round(0.38 * RATE), 0]
    spectrum = np.abs(np.fft.rfft(held * np.hanning(len(held)))) ** 2
    near = round(440 * len(held) / RATE)
    assert spectrum[near - 12 : near + 13].sum() >= 0.999 * spectrum.sum()
    assert steepest(out[round(0.2 * RATE) : round(0.38 * RATE)]) <= 1.3 * steepest(tone(440, CEILING, 0.2))
    assert np.abs(out[-FRAME:] - sound[-FRAME - DELAY : -DELAY]).max() <= 0.001  # released


@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0, 100), min_size=1, max_size=12), st.sampled_from([1, 2]))
def test_nothing_is_ever_above_the_ceiling(seed: int, loudness: list[float], channels: int) -> None:
    dice = np.random.default_rng(seed)
    limiter = Limiter(channels)
    for amount in loudness:
        block = (dice.standard_normal((FRAME, channels)) * amount * (dice.random((FRAME, 1)) > 0.9)).astype(np.float32)
        kept = block.copy()
        out = limiter.process(block)
        assert out.shape == block.shape
        assert out.dtype == np.float32
        assert np.abs(out).max() <= CEILING + 1e-5
        assert np.array_equal(block, kept)


def test_a_ramp_reaches_its_gain_without_a_corner() -> None:
    ramp, sound = Ramp(1.0), tone(300, 0.5, 0.1)
    ramp.move(0.0)
    out = np.concatenate([ramp.apply(sound[at : at + FRAME]) for at in range(0, len(sound), FRAME)])
    assert not out[FADE + 1 :].any()
    assert ramp.silent
    assert steepest(out) <= 1.5 * steepest(sound)
    ramp.move(1.0, 0.05)
    back = np.concatenate([ramp.apply(sound[at : at + FRAME]) for at in range(0, len(sound), FRAME)])
    assert steepest(back) <= 1.5 * steepest(sound)
    assert ramp.apply(sound[:FRAME]) is not None
    assert np.array_equal(ramp.apply(sound[:FRAME]), sound[:FRAME])


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 0.2), st.integers(1, 3)), min_size=1, max_size=8))
def test_a_ramp_that_is_told_anew_goes_on_from_where_it_is(moves: list[tuple[float, float, int]]) -> None:
    ramp, ones, gains = Ramp(1.0), np.ones((FRAME, 1), np.float32), [np.ones(1)]
    for gain, seconds, blocks in moves:
        ramp.move(gain, seconds)
        gains += [ramp.apply(ones)[:, 0] for _ in range(blocks)]
    path = np.concatenate(gains)
    assert np.abs(np.diff(path)).max() <= 2 * np.pi / 2 / FADE + 1e-6


@pytest.mark.parametrize(("gain", "seconds"), [(-1, 0), (17, 0), (float("nan"), 0), (1, -1), (1, float("inf"))])
def test_what_is_no_gain_is_refused(gain: float, seconds: float) -> None:
    with pytest.raises(UsageError):
        Ramp().move(gain, seconds)


def test_fading_between_two_sounds_has_no_corner() -> None:
    one, other = tone(300, 0.5, 0.02), tone(410, 0.4, 0.02)[::-1]
    out = cross_fade(one, other)
    assert np.abs(out[0] - one[0]).max() <= 1e-4
    assert np.array_equal(out[480:], other[480:])
    assert steepest(out) <= 1.5 * max(steepest(one), steepest(other))


def test_levels_are_decibels_below_full_scale() -> None:
    assert level(energy(np.ones((FRAME, 2), np.float32))) == 127
    assert level(energy(tone(1000, 0.1, 0.02))) == pytest.approx(127 - 23.01, abs=0.05)
    assert level(0.0) == 0


def test_the_one_who_speaks_is_the_speaker() -> None:
    voices = Voices()
    told = [voices.heard({"ann": 1e-9, "bob": 0.01 if tick > 50 else 0.0}, tick * 0.02) for tick in range(200)]
    assert sum(told) == 40
    assert voices.speaker == "bob"
    assert voices.levels["bob"] == pytest.approx(107)

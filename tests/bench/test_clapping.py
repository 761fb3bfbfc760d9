"""How far apart flashes and beeps are, from pictures and sound that were made to be."""

from __future__ import annotations

import numpy as np
import pytest

from bench.clapping import RATE, Line, apart_ms, beeps, flashes
from relay.ids import sync_id_at

DARK, BRIGHT = np.full((4, 4), 16, np.uint8), np.full((4, 4), 235, np.uint8)


def test_only_the_first_white_picture_of_a_flash_counts() -> None:
    pictures = [(0, DARK), (3000, BRIGHT), (6000, BRIGHT), (9000, DARK), (12000, BRIGHT)]
    assert flashes(pictures) == [3000, 12000]


def test_only_the_beginning_of_a_beep_counts() -> None:
    sound = np.zeros(RATE)
    sound[RATE // 2 : RATE // 2 + RATE // 20] = 0.5
    assert beeps(sound, end=5 * RATE) == [4 * RATE + RATE // 2]


def test_each_flash_goes_with_the_nearest_beep() -> None:
    assert apart_ms([1_010_000, 1_990_000], [1_000_000, 2_000_000]) == [10, -10]


def test_a_flash_without_a_beep_is_left_out() -> None:
    assert apart_ms([1_000_000, 5_000_000], [1_001_000]) == [-1]
    assert apart_ms([1_000_000], []) == []


def test_timestamps_are_placed_by_what_was_told_last_also_where_they_turn() -> None:
    line = Line()
    with pytest.raises(RuntimeError, match="nothing was told"):
        line.microseconds(0)
    line.told({"rtp_timestamp": 5, "sync_id": str(sync_id_at(1_000_000)), "clock_hz": 90_000})
    line.told({"rtp_timestamp": 2**32 - 90, "sync_id": str(sync_id_at(7_000_000)), "clock_hz": 90_000})
    assert line.microseconds(2**32 - 90) == pytest.approx(7_000_000)
    assert line.microseconds(0) == pytest.approx(7_001_000)
    assert line.microseconds(2**32 - 180) == pytest.approx(6_999_000)

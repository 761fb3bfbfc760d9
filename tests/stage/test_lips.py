"""How sound and picture are brought together: by which lags, how far, and how fast."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.stage.lips import MOST_US, NEAR_US, PACE, TURN_US, WAYS, Lips, Told

SECOND = 1_000_000
LONGER = 3_000
"""Sound waits so much longer than pictures that come with it."""


def follow(lips: Lips, seconds: int, start: int = 0) -> list[int]:
    offsets = []
    for second in range(seconds + 1):
        lips.move(start + second * SECOND)
        offsets.append(lips.offset)
    return offsets


@pytest.mark.parametrize("told", WAYS)
@pytest.mark.parametrize("apart", [120_000, -90_000, 15_000])
def test_a_difference_is_made_up_for_little_by_little(told: Told, apart: int) -> None:
    lips = Lips()
    lips.picture(told, 10**15 + apart)
    lips.sound(told, 10**15)
    offsets = follow(lips, 5)
    assert offsets[0] == 0, "it begins by arrival"
    assert all(abs(after - before) <= SECOND // PACE for before, after in itertools.pairwise(offsets))
    assert offsets[-1] == apart
    # The one that comes first waits for the other, and no longer.
    if apart > 0:
        assert (lips.sound_waits, lips.picture_waits(60_000 + LONGER + apart, LONGER)) == (apart, 60_000)
    else:
        assert (lips.sound_waits, lips.picture_waits(60_000 + LONGER, LONGER)) == (0, 60_000 - apart)


def test_with_one_of_both_lags_or_two_of_different_kinds_arrival_is_all_there_is() -> None:
    lips = Lips()
    lips.picture("report", 5_000)
    lips.sound("capture", 900_000)
    assert lips.apart is None
    assert follow(lips, 3)[-1] == 0
    lips.sound("report", 2_000)
    assert lips.apart == 3_000
    lips.picture("capture", 1_000_000)
    assert lips.apart == 100_000, "capture times are of the very frame"


def test_what_is_not_known_any_more_changes_nothing() -> None:
    """A picture's layer is another one for a moment, a sound pauses: neither moves what is seen and heard."""
    lips = Lips()
    lips.picture("report", 80_000)
    lips.sound("report", 0)
    assert follow(lips, 3)[-1] == 80_000
    lips.sound("report", None)
    assert follow(lips, 3, 4 * SECOND)[-1] == 80_000
    lips.forget()
    assert lips.apart is None
    assert follow(lips, 3, 8 * SECOND)[-1] == 80_000
    lips.picture("report", 0)
    lips.sound("report", 0)
    assert follow(lips, 3, 12 * SECOND)[-1] == 0


def test_after_a_pause_nothing_leaps() -> None:
    lips = Lips()
    lips.picture("report", 400_000)
    lips.sound("report", 0)
    lips.move(0)
    lips.move(60 * SECOND)
    assert lips.offset == SECOND // PACE


def test_what_is_too_far_apart_is_not_of_one_moment() -> None:
    lips = Lips()
    lips.picture("report", MOST_US + 1)
    lips.sound("report", 0)
    assert lips.strange
    assert follow(lips, 20)[-1] == 0
    lips.picture("report", MOST_US)
    assert not lips.strange
    assert follow(lips, 20, 21 * SECOND)[-1] == MOST_US


def test_noise_is_not_followed() -> None:
    lips = Lips()
    lips.sound("report", 0)
    lips.picture("report", 50_000)
    follow(lips, 3)
    for number in range(10):
        lips.picture("report", 50_000 + (-1) ** number * (NEAR_US - 1))
        lips.move((4 + number) * SECOND)
        assert lips.offset == 50_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(WAYS), st.booleans(), st.integers(-(10**16), 10**16) | st.integers(-(10**6), 10**6),
            st.integers(-SECOND, 3 * SECOND),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_nothing_moves_it_faster_or_further_than_may_be(told: list[tuple[Told, bool, int, int]]) -> None:
    lips, now = Lips(), 0
    lips.move(now)
    newest = now
    for way, is_picture, lag, step in told:
        (lips.picture if is_picture else lips.sound)(way, lag)
        before, now = lips.offset, now + step
        lips.move(now)
        assert abs(lips.offset - before) <= min(max(0, now - newest), TURN_US) // PACE
        assert abs(lips.offset) <= MOST_US
        newest = now


def test_before_anybody_sees_them_the_whole_difference_is_taken_at_once() -> None:
    lips = Lips()
    lips.settle()
    assert lips.offset == 0, "not known"
    lips.picture("report", 120_000)
    lips.sound("report", 0)
    lips.settle()
    assert lips.offset == 120_000
    lips.picture("report", MOST_US + 1)
    lips.settle()
    assert lips.offset == 120_000, "of no one moment"


def test_a_picture_that_is_placed_elsewhere_leaves_what_is_still_to_be_followed() -> None:
    lips = Lips()
    lips.picture("report", 120_000)
    lips.sound("report", 0)
    follow(lips, 2)
    left = 120_000 - lips.offset
    lips.shift(50_000)
    lips.picture("report", 170_000)
    assert lips.apart is not None
    assert lips.apart - lips.offset == left
    lips.shift(-2 * MOST_US)
    assert lips.offset == -MOST_US

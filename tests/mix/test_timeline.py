"""Program time in virtual time: output timestamps, input clocks, jumps, drift, lip sync, what is due when."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.ids import sync_id_at, sync_id_milliseconds
from relay.mix.timeline import MAX_WAITING, WINDOW_US, DueQueue, InputTimeline, OutputTimeline

SECOND = 1_000_000
rates = st.integers(1, 120)


@given(rates, st.integers(0, 2**32 - 1), st.integers(0, 10**12), st.integers(0, 10**9))
def test_another_worker_goes_on_with_the_same_timestamps(fps: int, first: int, epoch: int, died: int) -> None:
    one, other = (OutputTimeline(epoch, first, fps, 5 * SECOND) for _ in range(2))
    frame = one.frame_after(epoch + died)
    assert frame == other.frame_after(epoch + died)
    assert one.timestamp(frame) == other.timestamp(frame)
    assert one.at(frame) > epoch + died
    assert frame == 0 or one.at(frame - 1) <= epoch + died


@given(rates, st.integers(0, 10**6))
def test_output_timestamps_go_on_evenly_and_sync_ids_grow(fps: int, frame: int) -> None:
    line = OutputTimeline(1000, 2**32 - 5, fps, 10**15)
    step = (line.timestamp(frame + 1) - line.timestamp(frame)) % 2**32
    assert abs(step - 90_000 / fps) <= 1
    assert line.sync_id(frame) < line.sync_id(frame + 1)
    assert sync_id_milliseconds(line.sync_id(frame)) == line.wall_us(frame) // 1000


@given(st.sampled_from([12, 25, 30, 60]), st.integers(0, 1 << 22), st.integers(-9, 9))
def test_a_change_for_a_frame_is_in_it_though_its_sync_id_was_computed_from_the_timestamp(
    fps: int, frame: int, off_us: int
) -> None:
    line = OutputTimeline(1_000, 77, fps, 1_763_697_600_000_123)
    asked = sync_id_at(line.wall_us(frame) + off_us)
    assert line.holds(frame - 1) < asked <= line.holds(frame)


def test_a_program_has_frames() -> None:
    with pytest.raises(UsageError):
        OutputTimeline(0, 0, 0, 0)


def test_due_times_follow_the_earliest_arrivals_through_jitter_and_a_turn_of_the_timestamp() -> None:
    dice = random.Random(3)
    line = InputTimeline(60_000)
    start = 2**32 - 45_000
    for frame in range(300):
        sent = frame * 33_333
        media, jumped = line.receive((start + sent * 9 // 100) % 2**32, 5 * SECOND + sent + dice.randrange(40_000))
        assert jumped is None
        if frame > 30:
            assert abs(line.due(media) - (5 * SECOND + sent + 60_000)) < 8_000


def test_reordered_timestamps_keep_their_place() -> None:
    line = InputTimeline(0)
    line.receive(90_000, 0)
    later, _ = line.receive(90_000 + 6000, 66_000)
    earlier, _ = line.receive(90_000 + 3000, 67_000)
    assert (earlier, later) == (33_333, 66_666)


@pytest.mark.parametrize("leap", [90_000 * 3600, -90_000 * 3600, 2**31 - 1, 200_000])
def test_a_clock_jump_is_told_once_and_the_input_goes_on_at_once(leap: int) -> None:
    line = InputTimeline(50_000)
    for frame in range(30):
        line.receive(frame * 3000, frame * 33_333)
    told = []
    for frame in range(30, 60):
        media, jumped = line.receive((frame * 3000 + leap) % 2**32, frame * 33_333)
        told += [jumped] if jumped else []
        assert abs(line.due(media) - (frame * 33_333 + 50_000)) < 5_000
    assert len(told) == 1


def test_a_slow_clock_is_followed() -> None:
    """300 ppm, which is more than crystals are wrong: after a minute 18 ms, and no more than two windows' worth off."""
    line = InputTimeline(0)
    for frame in range(1800):
        arrival = int(frame * 33_333 * 1.0003)
        media, jumped = line.receive(frame * 3000, arrival)
        assert jumped is None
        assert abs(line.due(media) - arrival) <= 2 * WINDOW_US * 0.0003 + 100


@pytest.mark.parametrize("ago", [0, 3 * SECOND])
def test_how_late_pictures_come_is_known_by_the_capture_of_any_of_them(ago: int) -> None:
    """The picture takes 70 ms longer to arrive than the sound, for coding. `ago`: before the newest frame."""
    sound, picture = InputTimeline(60_000, 48_000), InputTimeline(60_000)
    sender = 10**15  # his clock, µs
    start = 2**32 - 90_000
    for step in range(200):
        moment = step * 20_000
        sound.receive((start + step * 960) % 2**32, moment + 20_000)
        picture.receive((start + step * 1800) % 2**32, moment + 90_000)
    at = 199 * 20_000 - ago
    heard = sound.lag((start + at * 48 // 1000) % 2**32, sender + at)
    assert heard == 20_000 - sender
    assert picture.lag((start + at * 90 // 1000) % 2**32, sender + at) - heard == 70_000


def test_frames_are_taken_when_they_are_due_and_the_first_at_once() -> None:
    queue: DueQueue[int] = DueQueue(InputTimeline(100_000))
    for frame in range(5):
        media, _ = queue.timeline.receive(frame * 9000, frame * 100_000)
        assert queue.push(media, frame)
    assert queue.take(0) == [0]
    assert queue.take(199_999) == []
    assert queue.take(200_000) == [1]
    assert queue.take(450_000) == [2, 3]
    queue.restart()
    assert len(queue) == 0
    assert queue.take(10**9) == []
    assert queue.push(500_000, 9)
    assert queue.take(0) == [9]


def test_a_queue_is_bounded_and_says_so() -> None:
    queue: DueQueue[int] = DueQueue(InputTimeline(0))
    assert all(queue.push(frame, frame) for frame in range(MAX_WAITING))
    assert not queue.push(MAX_WAITING, MAX_WAITING)
    assert len(queue) == 0


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**7)), max_size=60))
def test_any_clock_is_survived(told: list[tuple[int, int]]) -> None:
    line, now = InputTimeline(60_000), 0
    for timestamp, step in told:
        now += step
        media, _ = line.receive(timestamp, now)
        assert abs(line.due(media) - now) <= 1_100_000


def test_pictures_wait_longer_when_their_sound_does() -> None:
    queue: DueQueue[int] = DueQueue(InputTimeline(60_000))
    for number in range(3):
        media, _ = queue.timeline.receive(number * 3000, number * 33_333)
        queue.push(media, number)
    assert queue.take(0) == [0]
    queue.timeline.delay = 160_000
    assert queue.take(33_333 + 159_000) == []
    assert queue.take(33_333 + 160_000) == [1]

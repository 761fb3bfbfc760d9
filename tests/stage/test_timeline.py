"""RTP timestamps to sync ids: jitter, drift, detours, restarts and wrap-around, in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.ids import make_sync_id, sync_id_at, sync_id_microseconds
from relay.stage.timeline import Timeline, advance

WALL = 1_763_697_600_000_000
HZ = 90_000
MS = 1000
M32 = 0xFFFFFFFF


class Camera:
    """Frames of one stream, `fps` a second, whose clock is off by `ppm`; each comes `delay()` later."""

    def __init__(self, seed: int = 1, base: int = 0, ppm: int = 0, jitter_ms: float = 15.0) -> None:
        self.timeline = Timeline(HZ)
        self.dice = random.Random(seed)
        self.base, self.ppm, self.jitter_ms = base, ppm, jitter_ms
        self.detour_us = 0
        self.at = 0

    def timestamp(self, at: int) -> int:
        return (self.base + at * HZ // 1_000_000 * (1_000_000 + self.ppm) // 1_000_000) & M32

    def run(self, seconds: float, every_us: int = 33_333, ssrc: int = 1) -> None:
        end = self.at + int(seconds * 1_000_000)
        while self.at < end:
            self.at += every_us
            delay = int(self.dice.expovariate(1 / self.jitter_ms) * MS) if self.jitter_ms else 0
            self.timeline.note(ssrc, self.timestamp(self.at), WALL + self.at + delay + self.detour_us)

    def error_ms(self) -> float:
        """By how much the newest frame is told later than it was taken."""
        found = self.timeline.sync_id(self.timestamp(self.at))
        assert found is not None
        return (sync_id_microseconds(found) - WALL - self.at) / 1000


@pytest.mark.parametrize("seed", range(5))
def test_jitter_is_filtered(seed: int) -> None:
    camera = Camera(seed)
    camera.run(2)
    errors = []
    for _ in range(200):
        camera.run(0.1)
        errors.append(camera.error_ms())
    assert min(errors) > -0.1
    assert max(errors) < 3


@pytest.mark.parametrize("seed", range(3))
def test_four_looks_a_second_are_enough(seed: int) -> None:
    camera = Camera(seed)
    camera.run(10, every_us=250_000)
    for _ in range(20):
        camera.run(1, every_us=250_000)
        assert -0.1 < camera.error_ms() < 5


@pytest.mark.parametrize("ppm", [-100, 100])
def test_a_clock_that_is_off_is_followed(ppm: int) -> None:
    camera = Camera(ppm=ppm, jitter_ms=5)
    for _ in range(60):
        camera.run(10)
        assert abs(camera.error_ms()) < 3


def test_a_detour_is_followed_and_left_again() -> None:
    camera = Camera(jitter_ms=0)
    camera.run(2)
    camera.detour_us = 60 * MS
    camera.run(7)
    assert camera.error_ms() < 1
    camera.run(6)
    assert abs(camera.error_ms() - 60) < 1
    camera.detour_us = 0
    camera.run(1)
    assert abs(camera.error_ms()) < 1


def test_a_jam_is_no_other_clock_but_another_clock_is() -> None:
    camera = Camera(jitter_ms=0)
    camera.run(3)
    for behind in (5_000, 4_000, 3_000, 2_500):  # what the network held back comes at once
        camera.at += 33_333
        camera.timeline.note(1, camera.timestamp(camera.at), WALL + camera.at + behind * MS)
    assert abs(camera.error_ms()) < 1
    camera.run(1)
    assert abs(camera.error_ms()) < 1
    camera.base = 123_456_789  # the same stream goes on with other timestamps
    camera.run(3)
    assert abs(camera.error_ms()) < 1
    camera.base = 7
    camera.run(0.1, ssrc=2)  # another stream begins at once
    assert abs(camera.error_ms()) < 1


def test_sync_ids_that_come_with_the_frames_are_believed() -> None:
    timeline = Timeline(HZ)
    assert timeline.sync_id(5) is None
    assert timeline.timestamp(5) is None
    timeline.note(1, 3000, WALL)
    timeline.anchor(1, 6000, make_sync_id(5000, 0))
    timeline.note(1, 9000, WALL)
    assert timeline.sync_id(6000) == make_sync_id(5000, 0)
    assert timeline.sync_id(15_000) == make_sync_id(5100, 0)
    timeline.anchor(1, 3000, 1)  # late, whatever it says
    assert timeline.sync_id(15_000) == make_sync_id(5100, 0)
    timeline.anchor(2, 77, make_sync_id(6000, 0))
    assert timeline.sync_id(77) == make_sync_id(6000, 0)
    assert timeline.sync_id(77 + 61 * HZ) is None
    assert timeline.timestamp(make_sync_id(6100, 0)) == 77 + 9000


@given(st.integers(0, M32), st.integers(1, 50), st.integers(1, 2**40))
def test_wrap_around_is_not_seen(base: int, frames: int, start: int) -> None:
    timeline = Timeline(HZ)
    for frame in range(frames):
        timeline.note(1, (base + frame * 3000) & M32, start + frame * 100_000 // 3)
    for frame in range(frames):
        timestamp = (base + frame * 3000) & M32
        found = timeline.sync_id(timestamp)
        assert found is not None
        assert abs(sync_id_microseconds(found) - start - frame * 100_000 // 3) <= 40
        back = timeline.timestamp(found)
        assert back is not None
        assert (back - timestamp + 2) & M32 <= 4


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, M32), st.integers(0, 2**42)), max_size=40))
def test_whatever_is_noted_something_can_be_said(noted: list[tuple[int, int, int]]) -> None:
    timeline = Timeline(HZ)
    for ssrc, timestamp, arrival in noted:
        timeline.note(ssrc, timestamp, arrival)
        found = timeline.sync_id(timeline.newest)
        assert found is not None
        assert 0 <= found < 1 << 64


@given(st.integers(0, 1 << 47))
def test_a_sync_id_has_the_microsecond(us: int) -> None:
    assert sync_id_microseconds(sync_id_at(us)) == us
    assert sync_id_at(us) >> 16 == us // 1000
    assert abs(advance(sync_id_at(us), HZ, HZ) - sync_id_at(us + 1_000_000)) <= 1


def test_a_reading_is_the_newest_frame_on_the_line() -> None:
    timeline = Timeline(HZ)
    assert timeline.reading is None
    timeline.note(5, 3000, WALL)
    timeline.note(5, 6000, WALL + 33_334)
    assert timeline.reading == (5, 6000, timeline.sync_id(6000))


def test_what_expects_sync_ids_takes_no_arrival_for_them() -> None:
    timeline = Timeline(HZ)
    timeline.note(5, 3000, WALL)
    timeline.expect()
    assert timeline.reading is None
    timeline.note(5, 6000, WALL + 33_334)
    assert timeline.reading is None
    told = sync_id_at(WALL + 900_000)
    timeline.anchor(5, 6000, told)
    timeline.expect()
    assert timeline.reading == (5, 6000, told)

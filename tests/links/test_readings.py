"""Lines of time that one process tells another: few messages, and never off by more than was promised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.ids import SYNC_IDS_PER_SECOND, sync_id_at
from relay.links.readings import JUMP_US, REPEAT_S, LedTimeline, ToldLine

HZ = 90_000
FRAME = HZ // 30
START_US = 1_700_000_000_000_000
MASK = 0xFFFFFFFF


def frame(number: int, *, ssrc: int = 1, late_us: int = 0) -> tuple[int, int, int]:
    return ssrc, number * FRAME & MASK, sync_id_at(START_US + number * 1_000_000 // 30 + late_us)


def test_a_line_that_does_not_move_is_told_once_a_second() -> None:
    told = ToldLine(HZ)
    due = [number for number in range(300) if told.is_due(frame(number), number / 30)]
    assert due == [0, 30, 60, 90, 120, 150, 180, 210, 240, 270]


def test_another_stream_and_a_line_that_moved_are_told_at_once() -> None:
    told = ToldLine(HZ)
    assert told.is_due(frame(0), 0.0)
    assert not told.is_due(frame(1, late_us=JUMP_US - 50), 0.03)
    assert told.is_due(frame(2, late_us=JUMP_US + 50), 0.06)
    assert not told.is_due(frame(3, late_us=JUMP_US + 50), 0.09)
    assert told.is_due(frame(4, ssrc=2, late_us=JUMP_US + 50), 0.12)


def test_timestamps_that_begin_anew_further_back_are_told_and_believed() -> None:
    told, led = ToldLine(HZ), LedTimeline(HZ)
    for reading in (frame(9000), (1, 5, sync_id_at(START_US + 400_000_000))):
        assert told.is_due(reading, 0.0)
        led.lead(*reading)
        led.note(reading[0], reading[1], START_US)
        assert led.reading == reading


def test_a_stream_that_was_not_told_of_is_placed_by_its_arrival() -> None:
    led = LedTimeline(HZ)
    led.note(1, 0, START_US)
    assert led.sync_id(FRAME * 30) == sync_id_at(START_US + 1_000_000)
    led.lead(*frame(0, late_us=-7000))
    assert led.sync_id(FRAME * 30) == sync_id_at(START_US + 993_000)
    led.note(2, 500, START_US + 2_000_000)
    assert led.sync_id(500) == sync_id_at(START_US + 2_000_000)
    led.lead(2, 500, sync_id_at(START_US + 1_990_000))
    assert led.sync_id(500) == sync_id_at(START_US + 1_990_000)


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(-30_000, 30_000), st.booleans()), max_size=120))
def test_what_was_told_is_never_off_by_more_than_promised(steps: list[tuple[int, int, bool]]) -> None:
    told, led = ToldLine(HZ), LedTimeline(HZ)
    number, late, ssrc, at = 0, 0, 1, -1.0
    for frames, moved, other in steps:
        number, late, ssrc = number + frames, late + moved, ssrc + other
        now = number / 30
        reading = frame(number, ssrc=ssrc, late_us=late)
        if told.is_due(reading, now):
            led.lead(*reading)
            at = now
        led.note(ssrc, reading[1], START_US + number * 1_000_000 // 30 + 50_000)
        expected = led.sync_id(reading[1])
        assert expected is not None
        assert abs(expected - reading[2]) <= JUMP_US * SYNC_IDS_PER_SECOND // 1_000_000
        assert now - at < REPEAT_S

"""Loss detection and reception statistics, in virtual time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference.nack import MAX_AGE_US, MAX_MISSING, MAX_TRIES, Arrival, LossDetector

MS = 1_000


def fed(*seqs: int, now: int = 0) -> LossDetector:
    detector = LossDetector()
    for seq in seqs:
        detector.received(seq, now)
    return detector


def test_in_order_over_the_wrap_misses_nothing() -> None:
    detector = LossDetector()
    statuses = {detector.received(seq & 0xFFFF, seq) for seq in range(65_000, 67_000)}
    assert statuses == {Arrival.NEW}
    assert detector.highest == 66_999
    assert detector.next_timeout() is None
    assert detector.due(10**9) == []


def test_a_gap_overtaken_by_three_packets_is_asked_for_at_once() -> None:
    detector = fed(1, 3, 4)
    assert detector.due(0) == []
    detector.received(5, 0)
    assert detector.next_timeout() == 0
    assert detector.due(0) == [2]
    assert detector.due(0) == []


def test_a_gap_at_the_end_of_a_frame_is_asked_for_after_ten_milliseconds() -> None:
    detector = fed(1, 3)
    assert detector.next_timeout() == 10 * MS
    assert detector.due(9_999) == []
    assert detector.due(10 * MS) == [2]


def test_a_long_gap_is_asked_for_as_far_as_it_was_overtaken() -> None:
    detector = fed(65_534, 4)
    assert detector.due(0) == [65_535, 0, 1]
    assert detector.due(10 * MS) == [2, 3]


def test_a_second_gap_behind_a_waiting_first_one() -> None:
    detector = fed(1, 3, 5)  # 2 and 4 are missing, 2 was overtaken by 3 and 5
    assert detector.due(0) == [2]
    detector.received(6, 0)
    assert detector.due(0) == []
    detector.received(7, 0)
    assert detector.due(0) == [4]


def test_a_reordered_packet_is_never_asked_for() -> None:
    detector = fed(1, 3, 4)
    assert detector.received(2, 5 * MS) is Arrival.RECOVERED
    assert detector.received(2, 5 * MS) is Arrival.DUPLICATE
    assert detector.received(4, 5 * MS) is Arrival.DUPLICATE
    assert detector.due(10**6) == []
    assert (detector.recovered_count, detector.duplicates) == (1, 2)


def test_retries_follow_the_round_trip_and_end() -> None:
    detector = fed(1, 3)
    times = []
    now = 0
    while detector.missing:
        now = detector.next_timeout() or 0
        if detector.due(now, 30 * MS):
            times.append(now)
    assert len(times) == MAX_TRIES
    assert {b - a for a, b in pairwise(times)} == {30 * MS}
    assert detector.given_up == 1


def test_a_short_round_trip_still_waits_twenty_milliseconds() -> None:
    detector = fed(1, 3)
    assert detector.due(10 * MS, 1) == [2]
    assert detector.next_timeout() == 30 * MS


def test_after_a_second_it_is_lost() -> None:
    detector = fed(1, 3)
    assert detector.due(10 * MS, 400 * MS) == [2]
    assert detector.due(MAX_AGE_US + 1) == []
    assert (detector.missing, detector.given_up) == (0, 1)


def test_a_keyframe_forgets_what_is_older() -> None:
    detector = fed(65_534, 0, 3)  # 65535, 1, 2 missing
    detector.keyframe(2)
    assert detector.due(50 * MS) == [2]
    LossDetector().keyframe(5)


def test_jumps_restart_the_stream() -> None:
    for jump in (1_001, 30_000, 65_536 - 1_001):
        detector = fed(5_000, 5_002)
        assert detector.received((5_002 + jump) & 0xFFFF, 0) is Arrival.RESET
        assert detector.missing == 0
        assert detector.report().cumulative_lost == 0
        assert detector.received((5_001 + jump) & 0xFFFF, 0) is Arrival.RECOVERED  # not taken for seen before
    assert fed(5_000).received(6_000, 0) is Arrival.NEW


def test_missing_is_bounded() -> None:
    detector = LossDetector()
    for index in range(20):
        detector.received((index * 900) & 0xFFFF, 0)
    assert detector.missing <= MAX_MISSING
    assert detector.missing + detector.given_up == 19 * 899


def test_rtx_recovers_without_hiding_the_loss_from_the_report() -> None:
    detector = fed(1, 3, 4)
    assert detector.recovered(2) is Arrival.RECOVERED
    assert detector.recovered(2) is Arrival.DUPLICATE
    assert detector.recovered(9_000) is Arrival.DUPLICATE
    assert detector.missing == 0
    assert detector.report().cumulative_lost == 1


def test_report_as_rfc_3550_counts() -> None:
    detector = LossDetector()
    assert detector.report().highest_sequence == 0
    for seq in range(65_500, 65_600):
        if seq % 4:
            detector.received(seq & 0xFFFF, 0)
    report = detector.report()
    assert report.highest_sequence == 65_599
    assert report.cumulative_lost == 24  # 65500 is before the first packet received
    assert report.fraction_lost == (24 << 8) // 99
    for seq in range(65_600, 65_650):
        detector.received(seq & 0xFFFF, 0)
    assert detector.report().fraction_lost == 0
    detector.received(65_649 & 0xFFFF, 0)
    assert detector.report().cumulative_lost == 23  # duplicates count as received, RFC 3550 A.3


def test_jitter_of_a_steady_and_of_a_shaken_stream() -> None:
    steady, shaken, wrapped = LossDetector(48_000), LossDetector(48_000), LossDetector(48_000)
    for index in range(500):
        steady.received(index, index * 20 * MS, index * 960)
        shaken.received(index, index * 20 * MS + (index % 2) * 5 * MS, index * 960)
        wrapped.received(index, index * 20 * MS, (0xFFFFFF00 + index * 960) & 0xFFFFFFFF)
    assert steady.report().jitter == wrapped.report().jitter == 0
    assert 230 <= shaken.report().jitter <= 240  # |D| is 5 ms = 240 units each time


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 50_000), st.integers(0, 3)), max_size=150))
def test_any_story_stays_bounded_and_consistent(story: list[tuple[int, int, int]]) -> None:
    detector, now = LossDetector(), 0
    for seq, pause, kind in story:
        now += pause
        near = (detector.highest + seq % 9 - 4) & 0xFFFF if kind else seq
        detector.received(near, now, seq << 3)
        asked = detector.due(now)
        assert len(asked) == len(set(asked))
        assert detector.missing <= MAX_MISSING
        timeout = detector.next_timeout()
        assert (timeout is None) == (detector.missing == 0)
        assert timeout is None or timeout > now or detector.due(now) == []
        assert 0 <= detector.report().fraction_lost <= 255

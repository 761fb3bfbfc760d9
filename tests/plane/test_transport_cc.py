"""Transport-wide feedback: what is written is read back, and lies are refused."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference import rtcp
from relay.plane.reference.transport_cc import (
    MAX_LATE,
    MAX_STATUSES,
    REFERENCE_WRAP_US,
    WINDOW,
    Feedback,
    Recorder,
    parse_feedback,
)

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "rtcp.json").read_text())["transport_cc"]


def read(packets: list[bytes]) -> list[Feedback]:
    out = []
    for packet in packets:
        assert len(packet) % 4 == 0
        assert len(packet) < 1200
        compound = rtcp.parse(packet)
        assert compound.error == ""
        (feedback,) = compound.packets
        assert isinstance(feedback, rtcp.TransportFeedback)
        assert (feedback.sender_ssrc, feedback.media_ssrc) == (1, 2)
        parsed = parse_feedback(feedback.fci)
        assert parsed is not None
        out.append(parsed)
    return out


def arrivals(feedbacks: list[Feedback]) -> dict[int, int | None]:
    """Absolute arrival by sequence number."""
    out: dict[int, int | None] = {}
    for feedback in feedbacks:
        for seq, arrival in feedback.packets:
            out[seq] = None if arrival is None else (arrival + feedback.reference_us) % REFERENCE_WRAP_US
    return out


def ask(recorder: Recorder) -> list[Feedback]:
    return read(recorder.feedback(0, 1, 2))


def test_nothing_to_say() -> None:
    recorder = Recorder()
    assert not recorder.pending
    assert recorder.feedback(0, 1, 2) == []
    recorder.record(5, 1000)
    assert recorder.pending
    assert len(ask(recorder)) == 1
    assert not recorder.pending
    assert recorder.feedback(0, 1, 2) == []


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_vectors(vector: dict[str, object]) -> None:
    fci = bytes.fromhex(str(vector["fci"]))
    parsed = parse_feedback(fci)
    assert parsed is not None
    assert parsed.count == vector["count"]
    assert parsed.reference_us == vector["reference_us"]
    assert [list(packet) for packet in parsed.packets] == vector["packets"]


def test_single_packet_is_a_run_of_one_small_delta() -> None:
    recorder = Recorder()
    recorder.record(0x1234, 64_000 * 5 + 250 * 7)
    (packet,) = recorder.feedback(0, 1, 2)
    # base, 1 status, reference 5, count 0, run of one small delta, 7 ticks, one byte of padding that counts itself
    assert packet.hex() == "afcd00050000000100000002123400010000050020010701"


def test_what_was_recorded_is_read_back_with_losses_and_wrap() -> None:
    rng = random.Random(3)
    recorder, now, expected = Recorder(), 1_000_000_000, {}
    for index in range(4_000):
        seq = (64_000 + index) & 0xFFFF
        now += rng.choice([10, 300, 5_000, 70_000])
        if index == 0 or rng.random() > 0.2:
            recorder.record(seq, now)
            expected[seq] = now // 250 * 250
        else:
            expected[seq] = None
    while expected[seq] is None:
        del expected[seq]
        seq = (seq - 1) & 0xFFFF
    assert arrivals(ask(recorder)) == expected


def test_losses_before_the_first_arrival_of_an_interval_are_reported() -> None:
    recorder = Recorder()
    recorder.record(10, 1_000_000)
    ask(recorder)
    recorder.record(14, 1_100_000)
    assert arrivals(ask(recorder)) == {11: None, 12: None, 13: None, 14: 1_100_000}


def test_reordering_gives_negative_deltas() -> None:
    recorder = Recorder()
    for seq, at in ((1, 1_000_000), (3, 1_002_000), (2, 1_005_000), (4, 1_003_000), (4, 9_000_000)):
        recorder.record(seq, at)
    assert arrivals(ask(recorder)) == {1: 1_000_000, 2: 1_005_000, 3: 1_002_000, 4: 1_003_000}


def test_a_late_packet_is_reported_again_as_arrived() -> None:
    recorder = Recorder()
    recorder.record(1, 1_000_000)
    recorder.record(3, 1_001_000)
    assert arrivals(ask(recorder))[2] is None
    recorder.record(2, 1_050_000)
    recorder.record(0, 1_060_000)
    assert arrivals(ask(recorder)) == {0: 1_060_000, 1: 1_000_000, 2: 1_050_000, 3: 1_001_000}


def test_a_packet_too_late_is_ignored() -> None:
    recorder = Recorder()
    recorder.record(1, 1_000_000)
    recorder.record(MAX_LATE + 3, 1_001_000)
    ask(recorder)
    recorder.record(2, 1_002_000)
    assert not recorder.pending


def test_a_delta_too_large_splits_and_the_count_wraps() -> None:
    recorder = Recorder()
    for index in range(300):
        recorder.record(index, 1_000_000 + index * 9_000_000)  # 8.192 s is the most a delta can say
    feedbacks = ask(recorder)
    assert [feedback.count for feedback in feedbacks] == [index & 0xFF for index in range(300)]
    assert arrivals(feedbacks) == {index: 1_000_000 + index * 9_000_000 for index in range(300)}


def test_reference_time_wraps() -> None:
    recorder = Recorder()
    recorder.record(1, REFERENCE_WRAP_US + 64_250)
    (feedback,) = ask(recorder)
    assert feedback.reference_us == 64_000
    assert feedback.packets == [(1, 250)]


def test_a_jump_restarts_and_memory_stays() -> None:
    recorder = Recorder()
    recorder.record(1, 1_000_000)
    recorder.record(1 + WINDOW, 1_001_000)
    assert arrivals(ask(recorder)) == {1 + WINDOW: 1_001_000}
    for index in range(3 * WINDOW):  # nobody asks: the oldest are forgotten
        recorder.record((1 + WINDOW + index) & 0xFFFF, 1_001_000 + index)
    assert len(arrivals(ask(recorder))) == WINDOW


def test_sparse_arrivals_stay_below_the_mtu() -> None:
    recorder = Recorder()
    for seq in range(0, WINDOW - 1, 13):
        recorder.record(seq, 1_000_000 + seq * 100)
    got = arrivals(ask(recorder))
    assert [seq for seq, at in sorted(got.items()) if at is not None] == list(range(0, WINDOW - 1, 13))


@pytest.mark.parametrize(
    "fci",
    [
        b"",
        b"\0" * 9,
        struct.pack("!HHIH", 1, 0, 0, 0x2001) + b"\1",  # no statuses
        struct.pack("!HHIH", 1, MAX_STATUSES + 1, 0, 0x1FFF) * 2,  # more than is worth the time
        struct.pack("!HHIH", 1, 65_535, 0, 0x3FFF),
        struct.pack("!HHIH", 1, 20, 0, 0x200A) + b"\1" * 1,  # chunks missing
        struct.pack("!HHIH", 1, 2, 0, 0x2002) + b"\1",  # a delta missing
        struct.pack("!HHIH", 1, 1, 0, 0x4001) + b"\1",  # half a large delta
        struct.pack("!HHIH", 1, 1, 0, 0x6001) + b"\1\1",  # reserved symbol
        struct.pack("!HHIH", 1, 1, 0, 0x2000) + b"\1\1",  # a run of nothing
    ],
)
def test_malformed_feedback_is_refused(fci: bytes) -> None:
    assert parse_feedback(fci) is None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(tail: bytes, count: int) -> None:
    for fci in (tail, struct.pack("!HHI", 65_530, count, 77) + tail):
        parsed = parse_feedback(fci)
        assert parsed is None or 0 < len(parsed.packets) <= MAX_STATUSES


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(1, 40), st.integers(-200_000, 9_000_000)), min_size=1, max_size=80),
)
def test_any_arrivals_survive_the_round_trip(first: int, steps: list[tuple[int, int]]) -> None:
    recorder, seq, at, expected = Recorder(), first, 10_000_000, {}
    for ahead, later in steps:
        seq, at = seq + ahead, max(0, at + later)
        recorder.record(seq & 0xFFFF, at)
        expected[seq & 0xFFFF] = at // 250 * 250
    got = {seq: at for seq, at in arrivals(ask(recorder)).items() if at is not None}
    assert got == expected

"""What is kept for repeats: rings, bounds, pacing of repeats, the budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.reference.history import MIN_RESEND_US, IngressHistory, ResendBudget, Sent, SentLog
from relay.plane.reference.rtp import Packet, build_header, parse
from relay.plane.reference.serialise import Serialiser


def packet(seq: int, size: int = 100) -> Packet:
    made = parse(build_header(96, False, seq, 0, 1) + bytes(size - 12), 0)
    assert made is not None
    return made


def kept(history: IngressHistory) -> list[int]:
    return [seq for seq in range(65536) if history.get(seq) is not None]


def test_the_ring_keeps_the_latest_and_spans_the_wrap() -> None:
    history = IngressHistory(4)
    for seq in (65533, 65534, 65535, 0, 1):
        assert history.put(packet(seq))
    assert kept(history) == [0, 1, 65534, 65535]
    assert history.bytes_kept == 400


def test_duplicates_and_packets_older_than_the_ring_are_refused() -> None:
    history = IngressHistory(4)
    assert history.put(packet(10))
    assert not history.put(packet(10))
    assert history.put(packet(7))
    assert not history.put(packet(7))
    assert not history.put(packet(6))
    assert kept(history) == [7, 10]


def test_a_jump_forgets_what_it_leaves_behind() -> None:
    history = IngressHistory(4)
    for seq in (10, 11, 12):
        history.put(packet(seq))
    history.put(packet(14))
    assert kept(history) == [11, 12, 14]
    history.put(packet(20_000))
    assert kept(history) == [20_000]
    assert history.bytes_kept == 100


def test_bytes_are_bounded_oldest_first_and_the_newest_stays() -> None:
    history = IngressHistory(8, max_bytes=250)
    for seq in range(4):
        history.put(packet(seq))
    assert kept(history) == [2, 3]
    history.put(packet(4, 300))
    assert kept(history) == [4]
    history.clear()
    assert kept(history) == []
    assert history.bytes_kept == 0
    assert history.put(packet(4))


@settings(max_examples=150)
@given(
    st.integers(0, 65535),
    st.lists(st.tuples(st.integers(-10, 12), st.integers(12, 60)), max_size=60),
    st.sampled_from((60, 200, 10_000)),
)
def test_the_ring_matches_a_plain_dictionary(start: int, moves: list[tuple[int, int]], limit: int) -> None:
    history = IngressHistory(8, max_bytes=limit)
    model: dict[int, Packet] = {}
    high = start + 65536
    for number, (move, size) in enumerate(moves):
        absolute = high + move if number else high
        made = packet(absolute & 0xFFFF, size)
        fits = absolute > high - 8 and absolute not in model
        assert history.put(made) == fits
        if fits:
            model[absolute] = made
            high = max(high, absolute)
            model = {seq: p for seq, p in model.items() if seq > high - 8}
            while sum(len(p.data) for p in model.values()) > limit and len(model) > 1 and min(model) != high:
                del model[min(model)]
        assert history.bytes_kept == sum(len(p.data) for p in model.values())
        for absolute in range(high - 20, high + 20):
            assert history.get(absolute & 0xFFFF) is model.get(absolute)


@pytest.mark.parametrize("packets", [0, 3, 65536, -4])
def test_sizes_are_powers_of_two(packets: int) -> None:
    with pytest.raises(UsageError):
        IngressHistory(packets)
    with pytest.raises(UsageError):
        SentLog(packets)


def entry(seq: int) -> tuple[Packet, int, int, int, int, bytes, int, int]:
    return (packet((seq + 1000) & 0xFFFF), 0xE0, seq, 90 * seq, 2, b"\x80\x01\x02", (seq + 5) & 0xFFFF, 77)


def test_the_log_gives_back_what_was_sent_until_it_is_overwritten() -> None:
    log = SentLog(4)
    for seq in (65534, 65535, 0, 1, 2):
        log.put(entry(seq))
    assert log.get(65534) is None
    assert log.get(3) is None
    found = log.get(0)
    assert isinstance(found, Sent)
    assert (found.packet.seq, found.seq, found.patch, found.transport_seq) == (1000, 0, b"\x80\x01\x02", 5)
    log.clear()
    assert log.get(0) is None


def test_a_repeat_within_a_round_trip_is_left_out() -> None:
    log = SentLog(4)
    log.put(entry(1))
    assert log.resend(1, 0, 50_000) is not None
    assert log.resend(1, 49_999, 50_000) is None
    assert log.resend(1, 50_000, 50_000) is not None
    assert log.resend(1, 50_000 + MIN_RESEND_US - 1, 0) is None
    assert log.resend(1, 50_000 + MIN_RESEND_US, 0) is not None
    assert log.resend(2, 0, 0) is None
    assert log.resend(5, 0, 0) is None
    log.put(entry(5))
    assert log.resend(5, 60_001, 50_000) is not None


def test_a_repeat_over_budget_is_left_out_and_may_be_asked_for_again() -> None:
    log = SentLog(4)
    log.put(entry(1))
    log.put(entry(2))
    budget = ResendBudget(1000, 150)
    assert log.resend(1, 0, 0, budget) is not None
    assert log.resend(2, 0, 0, budget) is None
    assert log.resend(2, 49_999, 0, budget) is None
    assert log.resend(2, 50_000, 0, budget) is not None


def test_the_budget_fills_to_its_burst_and_no_further() -> None:
    budget = ResendBudget(1000, 200)
    assert budget.take(200, 10)
    assert not budget.take(1, 10)
    assert not budget.take(1, 0)
    assert budget.take(200, 10**9)
    assert not budget.take(1, 10**9)
    budget.set_rate(1_000_000)
    assert budget.take(1, 10**9 + 1)


def test_a_repeat_is_byte_for_byte_the_first_sending() -> None:
    """AES-GCM must never seal two packets that differ under one number (RFC 7714 8.1)."""
    serialiser = Serialiser(9, [(1, b"0")], 3, 4)
    log = SentLog(4)
    fields = entry(1)
    first = serialiser.write(*fields)
    log.put(fields)
    serialiser.write(*entry(2))
    found = log.resend(1, 0, 0)
    assert found is not None
    assert serialiser.write(*found) == first

"""What is kept for repeats: rings, bounds, pacing of repeats, the budget."""

from __future__ import annotations

import pytest

from relay.errors import UsageError
from relay.plane.reference.history import MIN_RESEND_US, ResendBudget, Sent, SentLog
from relay.plane.reference.rtp import Packet, build_header, parse
from relay.plane.reference.serialise import Serialiser


def packet(seq: int, size: int = 100) -> Packet:
    made = parse(build_header(96, False, seq, 0, 1) + bytes(size - 12), 0)
    assert made is not None
    return made


@pytest.mark.parametrize("packets", [0, 3, 65536, -4])
def test_sizes_are_powers_of_two(packets: int) -> None:
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

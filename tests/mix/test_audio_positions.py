"""Positions outlive who writes them, and no packet is counted twice."""

from __future__ import annotations

import os

import pytest

from relay.errors import Overloaded, UsageError
from relay.mix.audio.positions import SLOTS, Positions


def test_another_process_goes_on_where_the_first_one_ended() -> None:
    relay = Positions.create()
    first, second = Positions(os.dup(relay.descriptor)), Positions(os.dup(relay.descriptor))
    one, other = relay.take(), relay.take()
    assert [first.next(one, tick) for tick in (7, 8)] == [0, 1]
    assert first.next(other, 8) == 0
    first.close()
    assert second.next(one, 8) is None  # that tick had its packet
    assert second.next(one, 11) == 2
    second.tick = 11
    assert relay.tick == 11
    relay.give_back(one)
    assert relay.take() == one
    assert second.next(one, 3) == 0
    for positions in (second, relay):
        positions.close()


def test_there_are_so_many_slots_and_no_others() -> None:
    positions = Positions.create()
    slots = [positions.take() for _ in range(SLOTS)]
    assert len(set(slots)) == SLOTS
    assert all(positions.next(slot, 1) == 0 for slot in slots)
    with pytest.raises(Overloaded):
        positions.take()
    for wrong in (0, 2, -1, 2 * SLOTS + 1):
        with pytest.raises(UsageError):
            positions.next(wrong, 1)
    positions.close()


def test_other_memory_is_refused() -> None:
    descriptor = os.memfd_create("other")
    with pytest.raises(UsageError):
        Positions(descriptor)
    os.close(descriptor)

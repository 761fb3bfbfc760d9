"""Viewers that count find what is missing: a packet, a tick, the order of what a program gives up."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from relay.plane.reference import rtp
from tests.interop.clients.counting import Stream
from tests.interop.test_beside_programs import FPS, TICK, WIDTH, frames_went_before_pixels, watched_by_both

SSRC, FIRST = 7, 65_530
"""Sequence numbers and timestamps turn soon."""


def stream(packets: Iterable[tuple[int, int]]) -> Stream:
    """Of packets with these extended sequence numbers and ticks since the first."""
    made = Stream()
    for number, tick in packets:
        timestamp = (0xFFFF_F000 + tick * TICK) & rtp.TIMESTAMP_MASK
        packet = rtp.parse(rtp.build_header(111, False, number & rtp.SEQ_MASK, timestamp, SSRC, ()) + b"x", 0)
        assert packet is not None
        made.packets.append((number, packet))
    return made


def test_a_packet_that_never_came_is_a_hole() -> None:
    whole = stream((FIRST + n, n) for n in range(20))
    assert (whole.holes, whole.missing_ticks(TICK)) == ([], 0)
    assert stream((FIRST + n, n) for n in range(20) if n not in (4, 9, 10)).holes == [FIRST + 4, FIRST + 9, FIRST + 10]


def test_a_tick_that_was_never_made_is_none() -> None:
    late = stream((FIRST + n, n if n < 7 else n + 2) for n in range(20))
    assert (late.holes, late.missing_ticks(TICK)) == ([], 2)


def test_what_both_watched_begins_and_ends_with_the_shorter_one() -> None:
    assert watched_by_both([1, 2, 3, 4, 5], [3, 5, 6]) == ([3, 4, 5], [3, 5])


@pytest.mark.parametrize(
    ("plans", "holds"),
    [
        ([], True),
        ([(FPS / 2, WIDTH), (FPS / 4, WIDTH), (FPS / 4, WIDTH * 3 // 4)], True),
        ([(FPS / 2, WIDTH), (FPS / 2, WIDTH * 3 // 4)], False),
        ([(FPS / 4, WIDTH * 3 // 4), (FPS, WIDTH // 2)], False),
    ],
)
def test_frames_are_to_go_before_pixels(plans: list[tuple[float, int]], holds: bool) -> None:
    assert frames_went_before_pixels([{"fps": fps, "width": width} for fps, width in plans]) is holds

"""Packets of one RTP stream in the order of their sequence numbers; what is missing for too long is lost.

Sans-IO: packets and time in, runs of packets out. Time is in monotonic microseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.plane.reference.rtp import Packet, seq_delta

MAX_HELD = 512
"""Packets that wait for a missing one: 1 s of a 4 Mbit/s stream. More, and the missing one is given up."""
WAIT_US = 250_000
"""How long a missing packet is waited for: a retransmission over 150 ms one way."""
RESTART = 2_000
"""A jump of so many sequence numbers is another stream under the same number, not loss."""


class Ordered(NamedTuple):
    """A packet in its place. `lost` says that some before it are missing for good."""

    packet: Packet
    lost: bool


class Reorder:
    """The window of one stream. `lost` and `late` count packets."""

    def __init__(self) -> None:
        self.lost = 0
        self.late = 0
        self._next: int | None = None
        self._held: dict[int, Packet] = {}
        self._strange = 0

    def push(self, packet: Packet) -> list[Ordered]:
        """Take a packet, return those that are due now. A duplicate or one that comes too late gives none."""
        if self._next is None:
            self._next = packet.seq
        ahead = seq_delta(packet.seq, self._next)
        if abs(ahead) > RESTART:
            return self._stranger(packet)
        self._strange = 0
        if ahead < 0:
            self.late += 1
            return []
        self._held.setdefault(packet.seq, packet)
        found = self._run(lost=False)
        while len(self._held) > MAX_HELD:
            found += self._skip()
        return found

    def expire(self, now: int) -> list[Ordered]:
        """Give up what has been waited for long enough, and return what it held back."""
        found: list[Ordered] = []
        while self._held and now - min(each.arrival for each in self._held.values()) >= WAIT_US:
            found += self._skip()
        return found

    def _stranger(self, packet: Packet) -> list[Ordered]:
        """One far-off number is a stray packet; the second in a row is a source that started anew."""
        self._strange += 1
        if self._strange < 2:
            return []
        self._held.clear()
        self._strange = 0
        self.lost += 1
        self._next = packet.seq
        self._held[packet.seq] = packet
        return self._run(lost=True)

    def _skip(self) -> list[Ordered]:
        assert self._next is not None
        expected = self._next
        first = min(self._held, key=lambda seq: seq_delta(seq, expected))
        self.lost += seq_delta(first, expected)
        self._next = first
        return self._run(lost=True)

    def _run(self, *, lost: bool) -> list[Ordered]:
        found: list[Ordered] = []
        assert self._next is not None
        while (packet := self._held.pop(self._next, None)) is not None:
            found.append(Ordered(packet, lost))
            lost = False
            self._next = (self._next + 1) & 0xFFFF
        return found

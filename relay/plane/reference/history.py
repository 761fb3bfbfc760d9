"""What was sent, so that a lost packet can be repeated.

Payloads are kept once, in the ingress `Packet`. A viewer's NACK is answered from the slot's `SentLog`: it names the
packet and everything that was added to it, so that the repeat is byte for byte the first sending (or its RTX).
"""

from __future__ import annotations

from typing import NamedTuple

from relay.errors import UsageError
from relay.plane.reference.rtp import Packet

VIDEO_PACKETS = 512
MIN_RESEND_US = 10_000  # a repeat that was asked for sooner than this after the last one is still under way


class ResendBudget:
    """Bounds the bytes of repeats: a token bucket filled by time."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, bytes_per_second: int, burst: int) -> None:
        """The bucket starts full, with `burst` bytes."""
        self._rate = bytes_per_second
        self._burst = burst * 1_000_000
        self._tokens = self._burst  # in millionths of a byte, so that no remainder is lost
        self._at = -1

    def set_rate(self, bytes_per_second: int) -> None:
        """Change the filling rate from the next call on."""
        self._rate = bytes_per_second

    def take(self, size: int, now: int) -> bool:
        """Spend `size` bytes if they are there."""
        if self._at >= 0 and now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = max(now, self._at)
        if self._tokens < size * 1_000_000:
            return False
        self._tokens -= size * 1_000_000
        return True


class Sent(NamedTuple):
    """One sent packet: what `Serialiser.write` needs to write it again, in its order."""

    packet: Packet
    type_and_marker: int
    seq: int
    timestamp: int
    patch_offset: int
    patch: bytes
    transport_seq: int
    send_time: int


SentFields = tuple[Packet, int, int, int, int, bytes, int, int]


class SentLog:
    """The latest packets of one output stream, by output sequence number.

    It keeps the ingress packets alive: clear it when the slot pauses or goes.
    """

    __slots__ = ("_mask", "_resent", "_ring")

    def __init__(self, packets: int = VIDEO_PACKETS) -> None:
        """`packets` is a power of two up to 32768; UsageError otherwise."""
        if packets & (packets - 1) or not 0 < packets <= 32768:
            raise UsageError(f"a log of {packets} packets: not a power of two up to 32768")
        self._mask = packets - 1
        self._ring: list[SentFields | None] = [None] * packets
        self._resent = [-1] * packets

    def put(self, fields: SentFields) -> None:
        """Note a sent packet: a tuple with the fields of `Sent`. A plain tuple, because it is made per packet."""
        index = fields[2] & self._mask
        self._ring[index] = fields
        self._resent[index] = -1

    def forget(self, seq: int) -> None:
        """Note a sent packet that is not kept."""
        self._ring[seq & self._mask] = None

    def get(self, seq: int) -> Sent | None:
        """Return the packet sent with this number, or None when it is unknown or overwritten."""
        fields = self._ring[seq & self._mask]
        return Sent._make(fields) if fields is not None and fields[2] == seq else None

    def resend(self, seq: int, now: int, rtt: int, budget: ResendBudget | None = None) -> Sent | None:
        """Return the packet to repeat for a NACK at `now`, and note the repeat.

        None when it is unknown, was repeated less than `rtt` (at least MIN_RESEND_US) ago, or is over budget.
        """
        index = seq & self._mask
        fields = self._ring[index]
        if fields is None or fields[2] != seq:
            return None
        last = self._resent[index]
        if last >= 0 and now - last < max(rtt, MIN_RESEND_US):
            return None
        if budget is not None and not budget.take(len(fields[0].data), now):
            return None
        self._resent[index] = now
        return Sent._make(fields)

    def clear(self) -> None:
        """Forget everything."""
        size = self._mask + 1
        self._ring = [None] * size
        self._resent = [-1] * size

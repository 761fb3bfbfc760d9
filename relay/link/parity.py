"""XOR parity over a few packets of one flow: any one of them that is missing can be built again.

The operation is FlexFEC's (RFC 8627 section 6.3): the XOR of all packets, and of their lengths. The framing is ours,
because whole packets are covered and both ends are ours: SSRC (4 bytes), first sequence number (2), mask of the
covered packets relative to it (4, lowest bit first), XOR of their lengths (2), XOR of the packets padded to the
longest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from relay.plane.reference import rtp

MAX_SPAN = 32
_HEADER = Struct("!IHIH")
HEADER_LENGTH = _HEADER.size


@dataclass(frozen=True, slots=True)
class Parity:
    """A parity packet as read. `covered` are 16-bit sequence numbers in order."""

    ssrc: int
    covered: tuple[int, ...]
    length: int
    body: bytes


class ParityGroup:
    """Gathers the packets of one group. `size` packets make it full; it never spans more than 32 numbers."""

    __slots__ = ("_length", "_mask", "_xor", "base", "longest", "size", "ssrc")

    def __init__(self) -> None:
        self.size = 0
        self.base = self.ssrc = self.longest = self._mask = self._length = self._xor = 0

    def takes(self, ssrc: int, seq: int) -> bool:
        """Say whether a packet may join: same source, not far ahead, not before the first, not twice."""
        if not self.size:
            return True
        ahead = (seq - self.base) & rtp.SEQ_MASK
        return ssrc == self.ssrc and ahead < MAX_SPAN and not self._mask >> ahead & 1

    def add(self, ssrc: int, seq: int, packet: bytes) -> None:
        """Cover a packet that the group takes."""
        if not self.size:
            self.ssrc, self.base = ssrc, seq
        self._mask |= 1 << ((seq - self.base) & rtp.SEQ_MASK)
        self._length ^= len(packet)
        # little endian: shorter packets are then padded with zeros at their end by themselves
        self._xor ^= int.from_bytes(packet, "little")
        self.longest = max(self.longest, len(packet))
        self.size += 1

    def build(self) -> bytes:
        """Return the parity packet."""
        return _HEADER.pack(self.ssrc, self.base, self._mask, self._length) + self._xor.to_bytes(self.longest, "little")


def read_parity(data: bytes) -> Parity | None:
    """Parse a parity packet; None when it is too short or covers nothing."""
    if len(data) <= HEADER_LENGTH:
        return None
    ssrc, base, mask, length = _HEADER.unpack_from(data)
    covered = tuple((base + i) & rtp.SEQ_MASK for i in range(MAX_SPAN) if mask >> i & 1)
    return Parity(ssrc, covered, length, data[HEADER_LENGTH:]) if covered else None


def rebuild(parity: Parity, seq: int, others: Iterable[bytes]) -> bytes | None:
    """Return the covered packet `seq` from the parity and all the others it covers.

    None when what comes out is not that packet: then something that was covered is not what the sender had.
    """
    length, xor = parity.length, int.from_bytes(parity.body, "little")
    for packet in others:
        length ^= len(packet)
        xor ^= int.from_bytes(packet, "little")
    if not rtp.HEADER_LENGTH <= length <= len(parity.body) or xor >> (8 * length):
        return None
    packet = xor.to_bytes(length, "little")
    parsed = rtp.parse(packet, 0)
    if parsed is None or parsed.seq != seq or parsed.ssrc != parity.ssrc:
        return None
    return packet

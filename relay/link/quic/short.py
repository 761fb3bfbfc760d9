"""1-RTT packets (RFC 9000 section 17.3.1, RFC 9001 section 5) in few steps, without state: what a link sends and
receives thousands of times a second. aioquic's general way through headers and frames costs some four times as much.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.link import varint

TAG = 16  # bytes
PING, ACK, DATAGRAM, DATAGRAM_WITH_LENGTH = 0x01, 0x02, 0x30, 0x31
_FIXED, _SPIN, _PHASE, _RESERVED = 0x40, 5, 2, 0x18
_SAMPLE = 16  # bytes, taken 4 bytes behind the start of the packet number
_USUAL = 2048  # bytes: datagrams below have their frame's head ready
_FRAME_HEADS = tuple(bytes([DATAGRAM_WITH_LENGTH]) + varint.encode(size) for size in range(_USUAL))
Queued = tuple[bytes, object, float]  # payload, token, when it was queued


class Mask(Protocol):
    """Header protection: AES-ECB of the sample."""

    def update(self, data: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Keys:
    """One direction's keys."""

    seal: AESGCM
    iv: int
    mask: Mask
    phase: int


def write(keys: Keys, connection_id: bytes, spin: bool, number: int, plain: bytes) -> bytes:
    """Return a packet with a packet number of two bytes. `plain` has at least two bytes."""
    first = _FIXED | spin << _SPIN | keys.phase << _PHASE | 1
    low = number & 0xFFFF
    header = bytes((first,)) + connection_id + low.to_bytes(2, "big")
    sealed = keys.seal.encrypt((keys.iv ^ number).to_bytes(12, "big"), plain, header)
    mask = keys.mask.update(sealed[2 : 2 + _SAMPLE])
    hidden = (low ^ int.from_bytes(mask[1:3], "big")).to_bytes(2, "big")
    return bytes((first ^ mask[0] & 0x1F,)) + connection_id + hidden + sealed


@dataclass(slots=True)
class Opened:
    """A packet that was read. `plain` is None when it is not authentic."""

    number: int
    spin: bool
    plain: bytes | None


def read(keys: Keys, data: bytes, id_size: int, expected: int) -> Opened | None:
    """Open a packet. None when it needs the general way: another key phase, or reserved bits set."""
    at = 1 + id_size
    sample = data[at + 4 : at + 4 + _SAMPLE]
    if len(sample) < _SAMPLE:
        return None
    mask = keys.mask.update(sample)
    first = data[0] ^ mask[0] & 0x1F
    if first & _RESERVED or first >> _PHASE & 1 != keys.phase:
        return None
    size = (first & 3) + 1
    low = int.from_bytes(data[at : at + size], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
    number = full_number(low, 8 * size, expected)
    header = bytes((first,)) + data[1:at] + low.to_bytes(size, "big")
    try:
        plain = keys.seal.decrypt((keys.iv ^ number).to_bytes(12, "big"), data[at + size :], header)
    except InvalidTag:
        return Opened(number, False, None)
    return Opened(number, first >> _SPIN & 1 == 1, plain)


def full_number(low: int, bits: int, expected: int) -> int:
    """RFC 9000 A.3."""
    window = 1 << bits
    candidate = expected & -window | low
    if candidate <= expected - window // 2:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


def pack(queue: deque[Queued], room: int) -> tuple[bytes, list[object], int, int]:
    """Take from the queue what fits in `room` bytes as DATAGRAM frames.

    Returns the frames, their tokens other than None, their number, and the bytes of their payloads.
    """
    parts: list[bytes] = []
    tokens: list[object] = []
    used = payloads = 0
    while queue:
        payload, token, _ = queue[0]
        size = len(payload)
        head = _FRAME_HEADS[size] if size < _USUAL else bytes([DATAGRAM_WITH_LENGTH]) + varint.encode(size)
        used += len(head) + size
        if used > room:
            break
        queue.popleft()
        parts += (head, payload)
        payloads += size
        if token is not None:
            tokens.append(token)
    return b"".join(parts), tokens, len(parts) // 2, payloads


def read_ack(plain: bytes, at: int) -> tuple[list[range], int, int]:
    """Read an ACK frame behind its type (RFC 9000 section 19.3). Returns ascending ranges, the raw delay, and the end.

    Raises Malformed when it is cut off or goes below zero.
    """
    largest, at = varint.decode(plain, at)
    delay, at = varint.decode(plain, at)
    more, at = varint.decode(plain, at)
    first, at = varint.decode(plain, at)
    start = largest - first
    ranges = [range(start, largest + 1)]
    for _ in range(more):
        gap, at = varint.decode(plain, at)
        count, at = varint.decode(plain, at)
        stop = start - gap - 1
        start = stop - 1 - count
        ranges.append(range(start, stop))
    if start < 0:
        raise varint.Malformed("an acknowledgement below packet 0")
    ranges.reverse()
    return ranges, delay, at

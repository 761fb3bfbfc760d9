"""Variable-length integers (RFC 9000 section 16): two bits say how many bytes, the rest is the number, big-endian."""

from __future__ import annotations

from relay.errors import PeerError, UsageError

MAX = (1 << 62) - 1
_LIMITS = ((1 << 6, 1, 0), (1 << 14, 2, 1 << 14), (1 << 30, 4, 2 << 30), (1 << 62, 8, 3 << 62))


class Malformed(PeerError):
    """Bytes from a peer that are no varint, or no RoQ."""


def encode(value: int) -> bytes:
    """Return the shortest encoding. Raises UsageError outside 0..2^62-1."""
    if value < 0:
        raise UsageError(f"a varint cannot be negative: {value}")
    for limit, size, prefix in _LIMITS:
        if value < limit:
            return (value | prefix).to_bytes(size, "big")
    raise UsageError(f"a varint is below 2^62: {value}")


def decode(data: bytes, start: int = 0) -> tuple[int, int]:
    """Read the varint at `start`. Returns it and the offset behind it. Raises Malformed when bytes are missing.

    Longer encodings than needed are accepted, as the RFC says (only frame types have to be shortest).
    """
    if start >= len(data):
        raise Malformed("a varint is missing")
    first = data[start]
    if first < 64:
        return first, start + 1
    size = 1 << (first >> 6)
    end = start + size
    if end > len(data):
        raise Malformed(f"a varint of {size} bytes ends after {len(data) - start}")
    return int.from_bytes(data[start:end], "big") & ((1 << (8 * size - 2)) - 1), end

"""How long an Opus packet is, from its first bytes (RFC 6716 section 3)."""

from __future__ import annotations

RATE = 48_000
UNIT = 120
"""Samples of 2.5 ms, the shortest frame: all durations are multiples of it."""
MAX_SAMPLES = 5760  # 120 ms (RFC 6716 3.2.5, requirement R5)
MAX_FRAME_BYTES = 1275  # (RFC 6716 3.2.1)

_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)


def frame_samples(toc: int) -> int:
    """Samples at 48 kHz of each frame of a packet with this first byte (RFC 6716 table 2)."""
    config = toc >> 3
    if config < 12:
        return _SILK[config & 3]
    return _HYBRID[config & 1] if config < 16 else _CELT[config & 3]


def packet_samples(packet: bytes) -> int:
    """Samples at 48 kHz of a packet; 0 when its frames cannot be what its first bytes say."""
    if not packet:
        return 0
    toc, rest = packet[0], len(packet) - 1
    match toc & 3:
        case 0:
            frames, fits = 1, rest <= MAX_FRAME_BYTES
        case 1:
            frames, fits = 2, rest % 2 == 0 and rest <= 2 * MAX_FRAME_BYTES
        case 2:
            frames, fits = 2, rest >= 1 and _second_fits(packet)
        case _:
            frames = packet[1] & 0x3F if rest else 0
            fits = frames > 0
    samples = frames * frame_samples(toc)
    return samples if fits and samples <= MAX_SAMPLES else 0


def _second_fits(packet: bytes) -> bool:
    """Two frames of different length: the first one's comes in one or two bytes (RFC 6716 3.2.1)."""
    first = packet[1]
    if first < 252:
        return 2 + first <= len(packet)
    return len(packet) > 2 and 3 + 4 * packet[2] + first <= len(packet)

"""The VP8 behind RTP payload descriptors (RFC 7741 4.2), for those who decode or keep it: the plane itself looks no
further than `relay.plane.reference.descriptors` does."""

from __future__ import annotations

from collections.abc import Sequence

from relay.plane.reference.rtp import Packet


def vp8_frame(packets: Sequence[Packet]) -> bytes | None:
    """The frame in the payloads of its packets; None when a descriptor is malformed or has nothing behind it."""
    parts = []
    for packet in packets:
        start = _after_descriptor(packet)
        if start is None:
            return None
        parts.append(packet.data[start : packet.payload_end])
    return b"".join(parts)


def _after_descriptor(packet: Packet) -> int | None:
    data, position, end = packet.data, packet.payload_offset, packet.payload_end
    if position >= end:
        return None
    extended = data[position] & 0x80
    position += 1
    if extended:
        if position >= end:
            return None
        flags = data[position]
        position += 1
        if flags & 0x80:
            if position >= end:
                return None
            position += 2 if data[position] & 0x80 else 1
        position += bool(flags & 0x40) + bool(flags & 0x30)
    return position if position < end else None

"""Capture times in canonical packets: abs-capture-time, of the sender's clock."""

from __future__ import annotations

from relay.plane.reference.rtcp import wall_us_from_ntp
from relay.plane.reference.rtp import EXTENSIONS, Packet
from relay.stage.sender_clock import Anchor

CAPTURE_TIME_ID = list(EXTENSIONS).index("abs_capture_time") + 1


def captured_ntp(packet: Packet) -> int | None:
    """Return when what is in a packet was captured, in 64 bits of NTP time; None when it does not say."""
    value = packet.extension(CAPTURE_TIME_ID)
    return int.from_bytes(value[:8], "big") if value and len(value) >= 8 else None


def capture_anchor(packet: Packet) -> Anchor | None:
    """Return which moment of the sender's clock a packet's timestamp is by its capture time; None when it has none."""
    ntp = captured_ntp(packet)
    return None if ntp is None else Anchor(packet.ssrc, packet.timestamp, wall_us_from_ntp(ntp))

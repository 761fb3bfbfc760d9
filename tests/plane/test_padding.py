"""What padding does to one packet."""

from __future__ import annotations

from relay.plane.reference import rtp
from relay.plane.reference.egress import PADDED_TO, pad


def test_long_packets_are_not_padded() -> None:
    header = rtp.build_header(96, False, 1, 2, 3)
    for size in range(PADDED_TO - 20, PADDED_TO + 20):
        plain = header + b"x" * (size - len(header))
        padded = pad(plain, 8)
        assert len(padded) == (size if size > PADDED_TO else -(-size // 8) * 8)
        packet = rtp.parse(padded, 0)
        assert packet is not None
        assert packet.payload == plain[len(header) :]

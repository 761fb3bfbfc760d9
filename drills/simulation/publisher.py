"""Publishers of a simulated link: frames of RTP packets, each with a serial number by which it is known again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from relay.ids import HybridClock
from relay.link.marking import Marker
from relay.plane.contract import Kind
from relay.plane.reference import rtp

VP8_KEY = b"\x90\x80\x01\x10\x00\x00\x9d\x01\x2a\x80\x02\x68\x01"
VP8_DELTA = b"\x90\x80\x01\x11\x00\x00"
_MORE = b"\x80\x80\x01"
_SERIAL = 8
CLOCK_HZ = 90_000  # of all flows
KEYFRAME_EVERY = 60


def serial_of(packet: bytes) -> int:
    """The serial number of a packet."""
    return int.from_bytes(packet[-_SERIAL:], "big")


@dataclass(slots=True)
class Publisher:
    """One flow's. What is in a frame does not matter here, but that a picture may begin with it."""

    flow: int
    kind: Kind
    dice: random.Random
    packets: int
    """Per frame."""
    ssrc: int
    seq: int = 0
    frames: int = 0
    keyframe: bool = True
    """The next frame is one, as somebody asked for."""
    marker: Marker = field(init=False)

    def __post_init__(self) -> None:
        self.marker = Marker(HybridClock(), CLOCK_HZ)
        self.restart()

    def restart(self) -> None:
        """Come back on another session: another SSRC, other numbers."""
        self.ssrc += 1
        self.seq = self.dice.choice((0, 65_400, 1234))
        self.keyframe = True

    def frame(self, serial: int) -> list[bytes]:
        """The next frame's packets; the first has this serial number, the others the next ones."""
        self.keyframe = self.keyframe or self.frames % KEYFRAME_EVERY == 0
        found = []
        for index in range(self.packets):
            start = _MORE if index else VP8_KEY if self.keyframe else VP8_DELTA
            rest = self.dice.randbytes(self.dice.randrange(20, 120)) + (serial + index).to_bytes(_SERIAL, "big")
            last, timestamp = index == self.packets - 1, self.frames * (CLOCK_HZ // 30)
            found.append(rtp.build_header(96, last, self.seq & 0xFFFF, timestamp, self.ssrc) + start + rest)
            self.seq += 1
        self.frames += 1
        self.keyframe = False
        return found

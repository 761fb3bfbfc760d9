"""One output of a room: what is encoded for it, and the RTP packets in which it goes out.

An N-1 mix whose participant is silent is the program, so it takes the program's packets and costs nothing. When he
speaks it goes on with an encoder of its own, which begins where the program's was, and 200 ms after his last word it
returns to the program's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from struct import Struct

from relay.mix.audio.messages import OpenMix
from relay.mix.audio.opus import Block, Encoder
from relay.mix.limiter import Limiter
from relay.plane.reference.rtp import SEQ_MASK, TIMESTAMP_MASK

FRAME = 960
HOLD_TICKS = 10
_HEADER = Struct("!BBHII")  # RFC 3550 5.1


@dataclass(frozen=True, slots=True)
class Encoding:
    """How mixes are encoded."""

    channels: int
    bitrate_bps: int
    complexity: int


class Line:
    """An encoder that listeners can be moved to and from. `Line`s that nobody used at the last tick begin anew."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._encoder: Encoder | None = None
        self._tick = -1

    def encode(self, tick: int, before: Block, block: Block) -> bytes:
        """Encode tick number `tick`; `before` is what its listeners heard at the one before."""
        encoding = self._encoding
        if self._encoder is None:
            self._encoder = Encoder(encoding.channels, encoding.bitrate_bps, encoding.complexity)
        goes_on = self._tick == tick - 1
        self._tick = tick
        return self._encoder.encode(block) if goes_on else self._encoder.begin_after(before, block)

    def rescued(self) -> Line:
        """With an encoder of its own; the old one may still be in use."""
        return Line(self._encoding)


class Mix:
    """One output, as `OpenMix` told it."""

    def __init__(self, told: OpenMix, encoding: Encoding) -> None:
        self.told = told
        self.line = Line(encoding)
        self.limiter: Limiter | None = None
        self._held = 0
        self._tick = -1

    def shares(self, speaks: bool) -> bool:
        """Whether it takes the program's packets at this tick; `speaks`: what is excluded is to be heard in it."""
        if not self.told.exclude:
            return True
        self._held = HOLD_TICKS if speaks else max(self._held - 1, 0)
        return not self._held

    def own(self, tick: int, program: Limiter, before: Block, sound: Block) -> bytes:
        """Encode what only this mix has. `program` and `before` are the program's limiter and sound so far."""
        if self.limiter is None:
            self.limiter = copy.copy(program)
        return self.line.encode(tick, before, self.limiter.process(sound))

    def share(self) -> None:
        """It went back to the program."""
        self.limiter = None

    def packet(self, tick: int, number: int, payload: bytes) -> bytes:
        """The RTP packet of a tick, the `number`th of this mix."""
        told = self.told
        marker = 0 if self._tick == tick - 1 else 0x80  # RFC 3551 4.1: the first after a gap
        self._tick = tick
        sequence = (told.sequence + number) & SEQ_MASK
        timestamp = (told.timestamp + tick * FRAME) & TIMESTAMP_MASK
        return _HEADER.pack(0x80, marker | told.payload_type, sequence, timestamp, told.ssrc) + payload

    def rescued(self) -> Mix:
        """The same mix for another thread."""
        other = copy.copy(self)
        other.line = self.line.rescued()
        other.limiter = copy.copy(self.limiter)
        return other

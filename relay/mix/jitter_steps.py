"""What a jitter buffer is set to, what it tells the one who decodes, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class JitterSettings:
    """Delays in microseconds."""

    first_us: int = 40_000
    """Delay of the first packet, until something is known about its followers."""
    margin_us: int = 5_000
    """On top of the measured jitter: packets wait up to 2 ms for the mixer's look into the ring."""
    most_us: int = 240_000
    """What a packet may wait beyond the fastest one; what needs more is lost."""
    least_us: int = 0
    """What the fastest packet waits at least: for pictures that it has to match."""
    shrink_every_us: int = 500_000
    more_us: int = 0
    """On top of both the least and the longest delay: the picture that it has to match comes so much later."""

    @property
    def fastest_waits_us(self) -> int:
        """What the fastest packet waits at least."""
        return self.least_us + self.more_us

    @property
    def longest_us(self) -> int:
        """What a packet may wait beyond the fastest one."""
        return self.most_us + self.more_us

    def waiting(self, least_us: int, more_us: int = 0) -> JitterSettings:
        """Return the same with another least delay, as far as the longest one allows it, and `more_us` on top."""
        return replace(self, least_us=min(least_us, self.most_us), more_us=more_us)


class Play(NamedTuple):
    """Decode. `cut`: it does not continue what was played last, so fade; `fresh`: and begins a new stream."""

    payload: bytes
    samples: int
    cut: bool = False
    fresh: bool = False


class Skip(NamedTuple):
    """Decode, but fade from this into what the next step gives: the delay shrinks."""

    payload: bytes
    samples: int


class Recover(NamedTuple):
    """Decode what this packet tells about the one before it, which is lost; without such data this conceals."""

    payload: bytes
    samples: int


class Conceal(NamedTuple):
    """Invent a continuation."""

    samples: int


class Quiet(NamedTuple):
    """Nothing is to be heard."""

    samples: int


Step = Play | Skip | Recover | Conceal | Quiet


@dataclass(slots=True)
class JitterCounts:
    """Packets since the start, but `concealed` and `quiet`, which are samples, and `restarts` of the timeline."""

    received: int = 0
    malformed: int = 0
    duplicate: int = 0
    late: int = 0
    overflowed: int = 0
    lost: int = 0
    recovered: int = 0
    skipped: int = 0
    grown: int = 0
    restarts: int = 0
    concealed: int = 0
    quiet: int = 0

"""What a bad network does to one direction of a path, from a seed: packets go in with the time, deliveries come out.

An `Impairment` says what to do, a `Lane` does it to one direction and counts. Both are pure: time is monotonic
microseconds, and the same seed, settings and packets give the same deliveries.

A packet meets, in this order: black hole, loss, the bounded queue of the rate limit, corruption, delay, duplication.
"""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

DAY_US = 86_400_000_000
_NORMAL_FROM_UNIFORM = math.sqrt(2)


def _require_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be within 0 and 1, not {value!r}")


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a chain of a good and a bad state that moves once per packet, before the packet is judged.

    `p` is the probability of good → bad, `r` of bad → good, `h` of a delivery while bad, `k` of one while good.
    Raises ValueError outside [0, 1] or when the chain never moves.
    """

    p: float
    r: float
    h: float = 0.0
    k: float = 1.0

    def __post_init__(self) -> None:
        for name in ("p", "r", "h", "k"):
            _require_share(name, getattr(self, name))
        if self.p + self.r == 0:
            raise ValueError("p and r are both 0: the chain would stay in one state for ever")

    @classmethod
    def bursts(cls, loss: float, mean_length: float) -> GilbertElliott:
        """All are lost in a burst, none between: `loss` is the share of all packets, `mean_length` in packets."""
        if not 0 < loss < 1 or mean_length < 1:
            raise ValueError(f"bursts need 0 < loss < 1 and a mean length of 1 or more, not {loss} and {mean_length}")
        r = 1 / mean_length
        p = loss * r / (1 - loss)
        if p > 1:
            raise ValueError(
                f"a loss of {loss} needs bursts of {loss / (1 - loss):.3g} packets or more, not {mean_length}"
            )
        return cls(p=p, r=r)

    @property
    def loss(self) -> float:
        """The share of packets lost in the long run."""
        bad = self.p / (self.p + self.r)
        return bad * (1 - self.h) + (1 - bad) * (1 - self.k)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What happens to the packets of one direction; the default does nothing.

    Shares are in [0, 1]. `jitter_us` is the standard deviation of a normal or the half width of a uniform distribution;
    `correlation` is that of one packet's delay with the next one's. A delay below 0 counts as 0. `keep_order` lets no
    packet overtake, which makes delays longer where packets are closer than the jitter. `reorder` is the share that is
    delivered without its delay, past those that wait. `rate_bps` is 0 for no limit; a packet that would make the queue
    longer than `queue_bytes` is dropped. `corrupt` flips one bit. `loss` and `bursts` exclude each other.
    Raises ValueError for values out of range.
    """

    delay_us: int = 0
    jitter_us: int = 0
    correlation: float = 0.0
    distribution: Literal["normal", "uniform"] = "normal"
    keep_order: bool = False
    loss: float = 0.0
    bursts: GilbertElliott | None = None
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate_bps: int = 0
    queue_bytes: int = 256_000
    black_hole: bool = False

    def __post_init__(self) -> None:
        for name in ("correlation", "loss", "duplicate", "reorder", "corrupt"):
            _require_share(name, getattr(self, name))
        for name in ("delay_us", "jitter_us", "rate_bps", "queue_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of 0 or more, not {value!r}")
        if self.delay_us > DAY_US or self.jitter_us > DAY_US:
            raise ValueError("delay_us and jitter_us are a day at most")
        if self.distribution not in ("normal", "uniform"):
            raise ValueError(f"distribution must be normal or uniform, not {self.distribution!r}")
        if self.correlation == 1:
            raise ValueError("correlation must be below 1: all delays would be one random number")
        if self.loss and self.bursts:
            raise ValueError("loss and bursts exclude each other")
        if self.reorder and not self.delay_us:
            raise ValueError("reorder needs a delay_us that the reordered packets skip")
        if self.reorder and self.keep_order:
            raise ValueError("reorder and keep_order exclude each other")

    @property
    def is_clear(self) -> bool:
        """Whether it does nothing."""
        return self == CLEAR


CLEAR = Impairment()
BLACK_HOLE = Impairment(black_hole=True)


class Delivery(NamedTuple):
    """A packet comes out at `at` µs. `flip` is None, or where in it one bit is flipped, as a share of its bits."""

    at: int
    flip: float | None = None


@dataclass(slots=True)
class Counts:
    """Of one lane. `entered + duplicated == delivered + all of dropped + in flight` holds at any time."""

    entered: int = 0
    entered_bytes: int = 0
    black_holed: int = 0
    lost: int = 0
    overflowed: int = 0
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0

    @property
    def dropped(self) -> int:
        return self.black_holed + self.lost + self.overflowed

    def as_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)


class Lane:
    """One direction of a path. `settings` may be changed between packets: the dice, the queue and the state stay."""

    __slots__ = ("_bad", "_busy_until", "_deviate", "_last_out", "_random", "counts", "settings")

    def __init__(self, settings: Impairment, seed: int | str) -> None:
        self.settings = settings
        self.counts = Counts()
        self._random = random.Random(seed)
        self._deviate: float | None = None
        self._bad = False
        self._busy_until = 0
        self._last_out = 0

    def enter(self, now: int, size: int) -> tuple[Delivery, ...]:
        """Take in a packet of `size` bytes; returns when it comes out: never, once, or twice."""
        settings, counts = self.settings, self.counts
        counts.entered += 1
        counts.entered_bytes += size
        if settings.black_hole:
            counts.black_holed += 1
            return ()
        if self._is_lost(settings):
            counts.lost += 1
            return ()
        at = now
        if settings.rate_bps:
            begin = max(now, self._busy_until)
            if (begin - now) * settings.rate_bps / 8_000_000 + size > settings.queue_bytes:
                counts.overflowed += 1
                return ()
            self._busy_until = at = begin + round(size * 8_000_000 / settings.rate_bps)
        flip = None
        if settings.corrupt and self._random.random() < settings.corrupt:
            counts.corrupted += 1
            flip = self._random.random()
        first = Delivery(self._out(settings, at), flip)
        if settings.duplicate and self._random.random() < settings.duplicate:
            counts.duplicated += 1
            return first, Delivery(self._out(settings, at), flip)
        return (first,)

    def _is_lost(self, settings: Impairment) -> bool:
        chain = settings.bursts
        if chain is None:
            return settings.loss > 0 and self._random.random() < settings.loss
        moved = self._random.random() < (chain.r if self._bad else chain.p)
        self._bad ^= moved
        return self._random.random() >= (chain.h if self._bad else chain.k)

    def _out(self, settings: Impairment, at: int) -> int:
        """When a packet that is on the wire at `at` comes out."""
        if settings.reorder and self._random.random() < settings.reorder:
            self.counts.reordered += 1
            return at
        out = at + settings.delay_us
        if settings.jitter_us:
            out = max(at, out + round(settings.jitter_us * self._next_deviate(settings)))
        if settings.keep_order:
            out = self._last_out = max(out, self._last_out)
        return out

    def _next_deviate(self, settings: Impairment) -> float:
        """Normal with deviation 1, or uniform in [-1, 1]; either way the chain is the normal one below, which keeps its
        spread whatever the correlation (netem's weighted mean narrows it)."""
        rho = settings.correlation
        if settings.distribution == "uniform":
            # The correlation of two normals whose uniform ranks have the one asked for.
            rho = 2 * math.sin(math.pi * rho / 6)
        fresh = self._random.gauss(0.0, 1.0)
        if self._deviate is None or not rho:
            self._deviate = fresh
        else:
            self._deviate = rho * self._deviate + math.sqrt(1 - rho * rho) * fresh
        if settings.distribution == "uniform":
            return math.erf(self._deviate / _NORMAL_FROM_UNIFORM)  # 2 Φ(z) - 1
        return self._deviate

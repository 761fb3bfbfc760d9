"""Links in virtual time: what holds for the machines as they are, and that each rule finds machines that break it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from drills.simulation.day_of_bursts import a_day_of_bursts
from drills.simulation.links import LinkOutcome, LinkWorld
from relay.link.breaker import Breaker, BreakerState
from relay.link.history import Entry
from relay.link.inflow import Inflow, Stream
from relay.link.path import PathName
from relay.link.receiver import Arrival, LinkReceiver
from relay.link.sender import LinkSender
from relay.settings import BreakerSettings

SECONDS = 30.0


class Neither(Breaker):
    """Lets nobody carry while it tries the primary."""

    @property
    def carrying(self) -> tuple[PathName, ...]:
        return () if self.state in (BreakerState.OPEN, BreakerState.HALF_OPEN) else super().carrying


class Flapping(Breaker):
    """Goes to and fro as often as it likes, without any rest."""

    def _may_switch(self, now: int) -> bool:
        return True

    @property
    def hold_us(self) -> int:
        return 1_000_000


class Forgetful(LinkReceiver):
    """Takes a copy for another packet."""

    def receive(self, path: PathName, datagram: bytes, now: int) -> None:
        for flow in self._flows.values():
            for stream in flow.streams.values():
                stream._mask &= ~1
        super().receive(path, datagram, now)


class Mixing(LinkReceiver):
    """Hands on what another path brought under the bytes of the packet before."""

    before = b""

    def arrived(self) -> list[Arrival]:
        arrived = super().arrived()
        for each in arrived:
            each.packet, self.before = self.before[:20] + each.packet[20:], each.packet
        return arrived


class Ordering(LinkReceiver):
    """Waits for what is missing, so that all goes in order."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._held: list[Arrival] = []

    def arrived(self) -> list[Arrival]:
        self._held += super().arrived()
        if any(stream.gaps for flow in self._flows.values() for stream in flow.streams.values()):
            return []
        held, self._held = self._held, []
        return held


class Silent(LinkReceiver):
    """Gives up what is missing without a word."""

    def _ask(self, flow: Inflow, stream: Stream, now: int) -> None:
        super()._ask(flow, stream, now)
        stream.gaps.drop([number for number, missing in stream.gaps._missing.items() if missing.tries > 1])


class Hasty(LinkSender):
    """Takes what it has sent for what has arrived."""

    def lost(self, name: PathName, tokens: Iterable[object], now: int) -> None:
        self.acked(name, tokens)


class Nagging(LinkReceiver):
    """Asks again and again, without counting."""

    def _ask(self, flow: Inflow, stream: Stream, now: int) -> None:
        for missing in stream.gaps._missing.values():
            missing.tries = min(missing.tries, 1)
        super()._ask(flow, stream, now)


class Hoping(LinkSender):
    """Takes what is lost for what is still on its way."""

    def lost(self, name: PathName, tokens: Iterable[object], now: int) -> None:
        for entry in tokens:
            if isinstance(entry, Entry):
                entry.repeated_at = now


class Lazy(LinkSender):
    """Never repeats anything, and does not count that."""

    def _repeat(self, entry: Entry, now: int) -> None:
        entry.flight = 0


PLANTED: dict[str, list[dict[str, Callable[..., Any]]]] = {
    "never-neither": [{"make": Neither}],
    "switches": [{"make": Flapping}],
    "once": [{"make_receiver": Forgetful}],
    "same": [{"make_receiver": Mixing}],
    "at-once": [{"make_receiver": Ordering}],
    "conserved": [{"make_receiver": Silent}, {"make_sender": Hasty}, {"make_sender": Lazy}],
    "bounded": [{"make_receiver": Nagging}],
    "stuck": [{"make_sender": Hoping}],
}


def simulated(seed: int, seconds: float = SECONDS, **makers: Any) -> LinkOutcome:
    make = makers.pop("make", Breaker)
    return LinkWorld(seed, make, **makers).run(seconds)


def test_a_link_carries_through_faults() -> None:
    outcome = simulated(0, 40.0)
    assert outcome.violation is None, outcome.violation
    assert {move.state for move in outcome.moves} >= {BreakerState.SUSPECT, BreakerState.OPEN}
    assert outcome.tally.published > 6_000
    assert outcome.tally.handed_on + outcome.tally.dropped >= outcome.tally.published - 5
    assert simulated(0, 40.0).hash == outcome.hash
    assert simulated(4, 5.0).hash != simulated(5, 5.0).hash


@pytest.mark.parametrize(
    ("rule", "makers"),
    [(rule, makers) for rule, each in PLANTED.items() for makers in each],
    ids=lambda value: value if isinstance(value, str) else next(iter(value.values())).__name__,
)
def test_a_planted_bug_is_found_and_found_again(rule: str, makers: dict[str, Any]) -> None:
    seconds = 180.0 if "make" in makers else SECONDS
    for seed in range(6):
        outcome = simulated(seed, seconds, **makers)
        if outcome.violation is not None:
            break
    assert outcome.violation is not None
    assert outcome.violation.rule == rule, outcome.violation
    repeated = simulated(seed, seconds, **makers)
    assert (str(repeated.violation), repeated.hash) == (str(outcome.violation), outcome.hash)


def test_losses_in_bursts_do_not_trip() -> None:
    outcome = a_day_of_bursts(1, 1.0)
    assert outcome.violation is None
    assert outcome.virtual_s > 3590


def test_a_short_window_trips_falsely_and_again() -> None:
    hasty = BreakerSettings(loss_packets=500, spread_packets=500, suspect_packets=250)
    outcome = a_day_of_bursts(1, 1.0, hasty)
    assert outcome.violation is not None
    assert outcome.violation.rule == "no-false-trip"
    repeated = a_day_of_bursts(1, 1.0, hasty)
    assert (repeated.hash, repeated.virtual_s) == (outcome.hash, outcome.virtual_s)


def test_a_path_that_really_loses_does_trip() -> None:
    assert a_day_of_bursts(1, 1.0, loss=0.12).violation is not None

"""Links in virtual time: what holds for the breaker as it is, and that each rule finds a breaker that breaks it."""

from __future__ import annotations

import pytest

from drills.simulation.day_of_bursts import a_day_of_bursts
from drills.simulation.links import LinkWorld
from relay.link.breaker import Breaker, BreakerState
from relay.link.path import PathName
from relay.settings import BreakerSettings


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


def test_a_link_carries_through_faults() -> None:
    outcome = LinkWorld(3).run(120.0)
    assert outcome.violation is None, outcome.violation
    assert {move.state for move in outcome.moves} >= {BreakerState.SUSPECT, BreakerState.OPEN}
    assert LinkWorld(3).run(120.0).hash == outcome.hash
    assert LinkWorld(4).run(20.0).hash != LinkWorld(5).run(20.0).hash


@pytest.mark.parametrize(("planted", "rule"), [(Neither, "never-neither"), (Flapping, "switches")])
def test_a_planted_bug_is_found_and_found_again(planted: type[Breaker], rule: str) -> None:
    for seed in range(6):
        outcome = LinkWorld(seed, planted).run(180.0)
        if outcome.violation is not None:
            break
    assert outcome.violation is not None
    assert outcome.violation.rule == rule, outcome.violation
    repeated = LinkWorld(seed, planted).run(180.0)
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

"""Trials of the breaker: right as it is, and a wrong one is found out by both judges."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from drills.simulation import accuracy, command
from drills.simulation.accuracy import CONDITIONS, Trial, trials
from relay.link.breaker import Breaker
from relay.settings import BreakerSettings


def test_the_breaker_is_right() -> None:
    found = list(trials(2 * len(CONDITIONS), seed=7))
    assert [trial for trial in found if not trial.right] == []
    assert {trial.condition for trial in found} == {condition.name for condition in CONDITIONS}


def test_one_that_leaves_too_late_and_one_that_leaves_too_soon_are_found_out() -> None:
    def deaf(settings: BreakerSettings) -> Breaker:
        return Breaker(settings.model_copy(update={"rtt_limit_ms": 5000, "silence_min_ms": 4000}))

    def nervous(settings: BreakerSettings) -> Breaker:
        return Breaker(settings.model_copy(update={"rtt_limit_ms": 100}))

    storm, slower = (next(c for c in CONDITIONS if c.name.startswith(name)) for name in ("storm", "RTT 120"))
    for condition, make in ((storm, deaf), (slower, nervous)):
        found = accuracy.trial(1, condition, make)
        assert (found.as_oracle, found.as_truth) == (False, False)


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_command_says_which_were_wrong(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    planted = [
        Trial(number, "storm", 1000 * (300 + number), as_oracle=number >= wrong, as_truth=True) for number in range(9)
    ]
    monkeypatch.setattr(command, "trials", lambda count, seed: iter(planted))
    out = io.StringIO()
    assert command.try_breaker(9, 0, Console(file=out, width=200)) is (wrong == 0)
    assert out.getvalue().count("wrong: ") == wrong
    assert "304" in out.getvalue()
    assert "308" in out.getvalue()

"""Bugs that are put into the machines on purpose: the simulation finds each, and finds it again with the same seed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drills.simulation.run import simulate
from drills.simulation.store import StoreModel
from drills.simulation.world import Plan, plan_of
from relay.cluster.lease_keeper import LeaseKeeper
from relay.node.attendance import Attendance
from relay.node.following import FollowedRoom

ROUGH = Plan(nodes=6, hours=0.05, faults_per_hour=900.0, common_per_hour=20.0)
SEEDS = range(1, 5)


class NoFencing(StoreModel):
    """Gives out the same token again and again."""

    def _next_epoch(self, room: str, now: int) -> int:
        return self.epochs.get(room) or now


class Believer(LeaseKeeper):
    """Believes in its leases for ten times as long as they are good for."""

    def _believable(self, sent: float) -> float:
        return sent + 10 * self._ttl_s


def never_resume(self: Attendance) -> None:
    """As `Attendance.tick`, but who was paused by others stays so."""
    if self._leaving:
        self.enforce(self._host.state)


def found(plan: Plan) -> Any:
    """The first outcome with a violation."""
    for seed in SEEDS:
        outcome = simulate(plan_of(plan, seed=seed))
        if outcome.violation is not None:
            return outcome
    pytest.fail("no seed has found it")


def again(outcome: Any) -> None:
    """The same seed finds the same, step by step."""
    repeated = simulate(outcome.plan)
    assert str(repeated.violation) == str(outcome.violation)
    assert (repeated.hash, repeated.lines, repeated.virtual_s) == (outcome.hash, outcome.lines, outcome.virtual_s)


@pytest.mark.parametrize(
    ("more", "rule"),
    [({"make_store": NoFencing}, "fencing"), ({"make_keeper": Believer}, "one-owner")],
    ids=["no-fencing", "believer"],
)
def test_a_planted_bug_is_found_and_found_again(more: dict[str, Any], rule: str) -> None:
    outcome = found(plan_of(ROUGH, **more))
    assert outcome.violation.rule == rule, outcome.violation
    again(outcome)


def test_a_host_who_is_never_live_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attendance, "tick", never_resume)
    outcome = found(ROUGH)
    assert outcome.violation.rule == "heals", outcome.violation
    again(outcome)


def test_nothing_is_found_in_what_is_shipped() -> None:
    outcome = simulate(plan_of(ROUGH, seed=5))
    assert outcome.violation is None, outcome.newest
    assert outcome.grants > 20
    assert outcome.checks > 10
    assert sum(outcome.faults.values()) > 20
    assert len(outcome.heal_s) > 10
    again(outcome)


def test_another_seed_is_another_story() -> None:
    short = plan_of(ROUGH, hours=0.02)
    assert simulate(plan_of(short, seed=1)).hash != simulate(plan_of(short, seed=2)).hash


def test_the_trace_is_written_out_as_it_is_hashed(tmp_path: Any) -> None:
    with (tmp_path / "trace").open("w") as out:
        outcome = simulate(plan_of(ROUGH, hours=0.02), out)
    lines = (tmp_path / "trace").read_text().splitlines()
    assert len(lines) == outcome.lines
    assert lines[-len(outcome.newest) :] == outcome.newest


def test_a_task_that_dies_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(self: Any) -> None:
        await asyncio.sleep(1.0)
        raise KeyError("gone")

    monkeypatch.setattr(FollowedRoom, "_write", dies)
    outcome = simulate(plan_of(ROUGH, hours=0.02))
    assert outcome.violation is not None
    assert outcome.violation.rule == "no-crash"

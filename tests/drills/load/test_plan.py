"""What a load's viewers do, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.load.guard import NoTestCluster, require_test_cluster
from drills.load.plan import LoadPlan, story, turn
from relay.errors import SettingsError

BUSY = LoadPlan(rooms=2, viewers=5, seconds=300.0, ramp_s=20.0, stay_s=30.0, away_s=5.0, switch_s=10.0, seed=7)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 9))
def test_a_story_is_in_order_and_makes_sense(seed: int, number: int) -> None:
    plan = LoadPlan(rooms=2, viewers=5, seconds=300.0, ramp_s=20.0, stay_s=30.0, switch_s=10.0, seed=seed)
    steps = list(story(plan, number))
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert steps == list(story(plan, number))
    assert all(0 <= step.at < plan.seconds for step in steps)
    there = False
    for step in steps:
        assert there is (step.action != "join")
        there = step.action != "leave"


def test_viewers_come_one_after_the_other_and_not_alike() -> None:
    turns = [turn(BUSY, number) for number in range(10)]
    assert all(2.0 * number <= at <= 2.0 * number + 0.5 for number, at in enumerate(turns))
    assert len({tuple(story(BUSY, number)) for number in range(10)}) == 10
    actions = [step.action for number in range(10) for step in story(BUSY, number)]
    assert actions.count("join") > 40
    assert actions.count("switch") > 100


def test_who_never_leaves_only_joins() -> None:
    (step,) = story(LoadPlan(), 0)
    assert step.action == "join"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"rooms": 0}, "rooms"), ({"hosts": 65}, "seats"), ({"seconds": 0.0}, "seconds"), ({"viewers": -1}, "viewers"),
     ({"seconds": 5.0}, "ramp_s"), ({"stay_s": -1.0}, "stay_s")],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        LoadPlan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://127.0.0.1:7080", "https://localhost:7443", "http://[::1]:1"])
def test_this_machine_is_no_production(url: str) -> None:
    require_test_cluster([url], None, sure=False)


@pytest.mark.parametrize(
    "url", ["https://live.example.com", "http://10.1.2.3:7080", "http://127.0.0.1.example.com", "x"]
)
def test_others_need_a_label_or_a_word(url: str, tmp_path: Path) -> None:
    with pytest.raises(NoTestCluster, match="not labelled"):
        require_test_cluster(["http://127.0.0.1:7080", url], None, sure=False)
    require_test_cluster([url], None, sure=True)
    label = tmp_path / "cluster-label"
    label.write_text("costream.io/cluster=production\n")
    with pytest.raises(NoTestCluster, match="does not say"):
        require_test_cluster([url], label, sure=False)
    with pytest.raises(NoTestCluster, match="cannot be read"):
        require_test_cluster([url], tmp_path / "none", sure=False)
    label.write_text("costream.io/cluster=test\n")
    require_test_cluster([url], label, sure=False)

"""How many hands, which frame rate and size: measured lateness in, plans out, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.mix.scaler import DIVISORS, HOLD_WINDOWS, LATE_WINDOWS, SIZES, WINDOW_US, Plan, Scaler, starting_workers

FPS, PERIOD = 25, 40_000


class Stage:
    """A stage in virtual time."""

    def __init__(self, cores: int = 1) -> None:
        self.scaler, self.now = Scaler(FPS, cores, 0), 0

    def windows(self, count: int, lateness: int, busy: int) -> list[Plan]:
        """So many whole windows of frames that are all alike; the plans that came of them."""
        plans = []
        for _ in range(count):
            step = PERIOD * self.scaler.plan.divisor
            for _ in range(-(-WINDOW_US // step)):
                self.now += step
                if (plan := self.scaler.measured(self.now, lateness, busy)) is not None:
                    plans.append(plan)
        return plans


@pytest.mark.parametrize(("fps", "workers"), [(1, 1), (15, 1), (29, 1), (30, 2), (60, 4), (120, 8), (240, 8)])
def test_the_rule_to_start_with(fps: int, workers: int) -> None:
    assert starting_workers(fps) == workers
    assert Scaler(fps, 16, 0).plan == Plan(workers)
    assert Scaler(fps, 1, 0).plan == Plan(1)


def test_lateness_takes_hands_then_frames_then_pixels() -> None:
    stage = Stage(cores=2)
    plans = stage.windows(60, 500_000, 33_000)
    assert plans[0] == Plan(2)
    assert [plan.divisor for plan in plans[1:4]] == list(DIVISORS[1:])
    assert [plan.quarters for plan in plans[4:]] == list(SIZES[1:])
    assert plans[-1] == Plan(2, 4, 2)
    assert stage.windows(20, 500_000, 33_000) == []


def test_a_single_bad_window_changes_nothing() -> None:
    stage = Stage()
    for _ in range(5):
        assert stage.windows(1, 500_000, 20_000) == []
        assert stage.windows(LATE_WINDOWS, 8_000, 20_000) == []


def test_recovery_is_slow_and_gives_size_back_before_frames() -> None:
    stage = Stage()
    stage.windows(30, 500_000, 33_000)
    assert stage.scaler.plan == Plan(1, 4, 2)
    back = stage.windows(HOLD_WINDOWS * 6, 1_000, 5_000)
    assert [(plan.divisor, plan.quarters) for plan in back[:5]] == [(4, 3), (4, 4), (3, 4), (2, 4), (1, 4)]
    assert not stage.scaler.plan.degraded


def test_between_late_and_room_nothing_moves() -> None:
    stage = Stage()
    stage.windows(4, 500_000, 33_000)
    held = stage.scaler.plan
    assert held.degraded
    assert stage.windows(100, PERIOD * held.divisor // 3, 5_000) == []
    assert stage.windows(100, 1_000, PERIOD * held.divisor * 7 // 10) == []


def test_a_step_back_that_is_regretted_doubles_the_wait() -> None:
    stage = Stage()

    def waited() -> int:
        stage.windows(LATE_WINDOWS + 1, 500_000, 33_000)
        assert stage.scaler.plan.degraded
        windows = 0
        while stage.scaler.plan.degraded:
            stage.windows(1, 1_000, 5_000)
            windows += 1
        return windows

    first, second, third = waited(), waited(), waited()
    assert second > 1.5 * first
    assert third > 1.5 * second


def test_skipped_frames_count_as_late() -> None:
    scaler, plans, now = Scaler(FPS, 1, 0), [], 0
    for _ in range(100):
        now += 2 * PERIOD
        plans.append(scaler.measured(now, 1_000, 5_000, skipped=1))
    assert any(plan is not None and plan.degraded for plan in plans)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 30))))
def test_any_measurements_give_a_plan_that_can_be(told: list[tuple[int, int, int, int]]) -> None:
    scaler, now = Scaler(60, 8, 0), 0
    for step, lateness, busy, skipped in told:
        now += step
        before = scaler.plan
        plan = scaler.measured(now, lateness, busy, skipped)
        assert plan is None or plan != before
        assert 1 <= scaler.plan.workers <= 8
        assert scaler.plan.divisor in DIVISORS
        assert scaler.plan.quarters in SIZES


def test_nonsense_is_a_bug_of_ours() -> None:
    with pytest.raises(UsageError):
        Scaler(0, 1, 0)
    with pytest.raises(UsageError):
        Scaler(30, 0, 0)

"""Layers in virtual time: a viewer behind a simulated network, and each rule by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.stage.layers import (
    Allocation,
    LayerAllocator,
    LayerSettings,
    Want,
    assumed_rates,
    nearest_live,
    smooth_rate,
)

RATES = (150_000, 500_000, 1_500_000)
ALL = frozenset({0, 1, 2})


class Watching:
    """One allocator whose answers become the next question's `current`."""

    def __init__(self, *wants: Want, audio: int = 1) -> None:
        self.allocator = LayerAllocator()
        self.wants = list(wants)
        self.audio = audio
        self.now = 0.0
        self.probes: list[tuple[float, int]] = []

    def at(self, now: float, estimate: int | None) -> list[int]:
        self.now = now
        found: Allocation = self.allocator.allocate(self.wants, self.audio, estimate, now)
        self.wants = [replace(want, current=found.layers[want.slot]) for want in self.wants]
        if found.probe is not None:
            self.probes.append((now, found.probe))
        return [found.layers[want.slot] for want in self.wants]


def want(slot: int = 0, priority: int | None = None, **more: object) -> Want:
    made = Want(slot, slot if priority is None else priority, RATES, ALL)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_new_slot_starts_with_what_the_estimate_carries() -> None:
    for estimate, layer in ((100_000, 0), (560_000, 0), (700_000, 1), (1_700_000, 1), (1_800_000, 2), (None, 1)):
        assert Watching(want()).at(0.0, estimate) == [layer]


def test_down_at_once_up_after_a_while() -> None:
    watching = Watching(want())
    assert watching.at(0.0, 2_000_000) == [2]
    assert watching.at(0.2, 700_000) == [1]
    assert watching.at(0.4, 2_000_000) == [1]
    assert watching.at(2.5, 2_000_000) == [1], "held long enough, but too soon after the step down"
    assert watching.at(5.3, 2_000_000) == [2]


def test_an_estimate_that_swings_does_not_swing_the_picture() -> None:
    watching = Watching(want())
    watching.at(0.0, 700_000)
    seen = [watching.at(1 + n, 2_000_000 if n % 2 else 700_000)[0] for n in range(20)]
    assert seen == [1] * 20


def test_without_the_margin_a_step_up_is_not_taken_but_what_plays_is_kept() -> None:
    needed = RATES[1] + LayerSettings().audio_rate
    up = Watching(want(current=0))
    for now in range(10):
        assert up.at(float(now), int(needed * 1.1)) == [0]
    kept = Watching(want(current=1))
    assert kept.at(0.0, needed) == [1]
    assert kept.at(1.0, needed - 1) == [0]


def test_every_slot_gets_its_lowest_layer_before_one_gets_more() -> None:
    watching = Watching(want(0), want(1), want(2))
    assert watching.at(0.0, 3 * RATES[0] + 50_000) == [0, 0, 0]
    assert Watching(want(0), want(1), want(2)).at(0.0, 0) == [0, 0, 0]


def test_the_more_important_slot_is_served_first() -> None:
    watching = Watching(want(0, priority=5), want(1, priority=1))
    assert watching.at(0.0, 1_000_000) == [0, 1]
    assert Watching(want(0, priority=5), want(1, priority=1)).at(0.0, 2_500_000) == [1, 2]


def test_audio_is_paid_first() -> None:
    assert Watching(want(), audio=0).at(0.0, 590_000) == [1]
    assert Watching(want(), audio=4).at(0.0, 590_000) == [0]


def test_caps_and_pins() -> None:
    assert Watching(want(cap=1)).at(0.0, 9_000_000) == [1]
    assert Watching(want(cap=0, live=frozenset({1, 2}))).at(0.0, 9_000_000) == [1]
    assert Watching(want(pinned=2)).at(0.0, 100_000) == [2]
    assert Watching(want(pinned=2, live=frozenset({0, 1}))).at(0.0, 9_000_000) == [1]
    watching = Watching(want(0, pinned=2), want(1))
    assert watching.at(0.0, 1_900_000) == [2, 0], "the pin is paid before others rise"


def test_a_layer_that_is_lost_is_left_at_once() -> None:
    watching = Watching(want())
    assert watching.at(0.0, 9_000_000) == [2]
    watching.wants = [replace(watching.wants[0], live=frozenset({0, 1}))]
    assert watching.at(0.1, 9_000_000) == [1]
    watching.wants = [replace(watching.wants[0], live=frozenset({2}))]
    assert watching.at(0.2, 100_000) == [2]
    watching.wants = [replace(watching.wants[0], live=frozenset())]
    assert watching.at(0.3, 9_000_000) == [2], "nothing arrives: stay"
    assert (nearest_live(1, frozenset({0, 2})), nearest_live(0, frozenset({1, 2})), nearest_live(1, frozenset())) == (
        0,
        1,
        1,
    )


def test_rates_that_were_not_measured_are_assumed_high() -> None:
    nominal = LayerSettings().nominal
    assert assumed_rates((0, 0, 0), nominal) == nominal
    assert assumed_rates((0, 900_000, 0), nominal) == (200_000, 900_000, 2_500_000)
    assert assumed_rates((1_500_000, 0), nominal) == (1_500_000, 3_000_000)
    assert assumed_rates((0,) * 5, nominal) == (200_000, 700_000, 2_500_000, 5_000_000, 10_000_000)
    assert Watching(want(rates=(0, 0, 0))).at(0.0, 2_000_000) == [1]


def test_rates_follow_peaks_at_once_and_ebbs_slowly() -> None:
    assert smooth_rate(100, 800) == 800
    known = 800
    for _ in range(60):
        known = smooth_rate(known, 100)
    assert 100 <= known <= 110


def test_probes_back_off_while_they_do_not_help() -> None:
    watching = Watching(want(current=1))
    for step in range(400):
        watching.at(step * 0.5, 700_000)
    times = [at for at, _ in watching.probes]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:4] == [2.0, 4.0, 8.0, 16.0]
    assert set(gaps[4:]) == {30.0}
    assert {rate for _, rate in watching.probes} == {1_400_000}, "no more than twice the estimate"


def test_no_probe_when_all_is_had_or_shortly_after_a_step_down() -> None:
    watching = Watching(want())
    for step in range(40):
        watching.at(step * 0.5, 9_000_000)
    assert watching.probes == []
    watching.at(20.0, 700_000)
    for step in range(9):
        watching.at(20.5 + step * 0.5, 700_000)
    assert watching.probes == []


@pytest.mark.parametrize("capacity", [400_000, 800_000, 2_500_000])
def test_a_viewer_reaches_what_the_network_carries_and_stays(capacity: int) -> None:
    """The estimate follows what was tried: media or a probe lifts it up to the capacity, never above."""
    watching = Watching(want())
    estimate, changes, layer = 300_000, 0, -1
    for step in range(600):
        now = step * 0.2
        probed = len(watching.probes)
        before, layer = layer, watching.at(now, estimate)[0]
        changes += before not in (-1, layer)
        sent = RATES[layer] + 48_000
        if len(watching.probes) > probed:
            sent = max(sent, watching.probes[-1][1])
        estimate = min(capacity, max(estimate, sent))
    best = max(n for n, rate in enumerate(RATES) if n == 0 or (rate + 48_000) * 1.15 <= capacity)
    assert layer == best
    assert changes <= 2


@st.composite
def _wants(draw: st.DrawFn) -> list[Want]:
    made = []
    for slot in range(draw(st.integers(1, 5))):
        count = draw(st.integers(1, 4))
        layer = st.one_of(st.none(), st.integers(0, count - 1))
        made.append(
            Want(
                slot,
                draw(st.integers(0, 3)),
                tuple(draw(st.integers(0, 4_000_000)) for _ in range(count)),
                draw(st.frozensets(st.integers(0, count - 1))),
                draw(layer),
                draw(layer),
                draw(layer),
            )
        )
    return made


@settings(max_examples=150, deadline=None)
@given(
    _wants(), st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 10_000_000)), st.floats(0.0, 10.0)), max_size=8)
)
def test_what_always_holds(wants: list[Want], steps: list[tuple[int | None, float]]) -> None:
    watching, now = Watching(*wants), 0.0
    for estimate, elapsed in steps:
        now += elapsed
        before = {each.slot: each for each in watching.wants}
        layers = watching.at(now, estimate)
        for each, layer in zip(wants, layers, strict=True):
            assert 0 <= layer < len(each.rates)
            if each.live:
                assert layer in each.live
            under = [one for one in each.live if each.cap is None or one <= each.cap]
            if each.pinned is not None:
                assert layer == nearest_live(each.pinned, each.live)
            elif under:
                assert layer in under
        rates = {each.slot: assumed_rates(each.rates, LayerSettings().nominal) for each in wants}
        free = [each for each in wants if each.pinned is None and each.live]
        total = sum(rates[each.slot][layer] for each, layer in zip(wants, layers, strict=True))
        budget = (estimate if estimate is not None else 1_000_000) - 48_000
        if total > budget:
            # Over budget nobody plays more than before, but where the lowest is all there is.
            for each in free:
                after = next(one for one in watching.wants if one.slot == each.slot).current
                lowest = min([one for one in each.live if each.cap is None or one <= each.cap] or each.live)
                was = before[each.slot].current
                assert after is not None
                assert after == lowest or (was is not None and after <= was)
    for at, rate in watching.probes:
        assert at >= 2.0
        assert rate > 0

"""Impairments do what was asked, to within 1 % and the bounds of theory, and the same again from the same seed."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.fabric.impairment import BLACK_HOLE, CLEAR, Delivery, GilbertElliott, Impairment, Lane
from drills.fabric.impairment_text import from_json, parse_impairment, to_json

SIGMAS = 4  # of what theory says about so many packets
ONE_PERCENT = 0.01


def outcomes(impairment: Impairment, count: int, *, every: int = 1000, size: int = 1000) -> list[tuple[Delivery, ...]]:
    lane = Lane(impairment, seed=7)
    return [lane.enter(number * every, size) for number in range(count)]


def delays(impairment: Impairment, count: int, every: int = 1000) -> list[int]:
    return [out[0].at - n * every for n, out in enumerate(outcomes(impairment, count, every=every))]


def check(found: float, asked: float, deviation: float) -> None:
    """Within 1 % and within what chance explains."""
    assert abs(found - asked) <= ONE_PERCENT * asked
    assert abs(found - asked) <= SIGMAS * deviation


def check_share(hits: int, count: int, asked: float) -> None:
    check(hits / count, asked, math.sqrt(asked * (1 - asked) / count))


def enough(share: float) -> int:
    """So many packets that 1 % of the share is SIGMAS deviations."""
    return math.ceil(SIGMAS**2 * (1 - share) / share / ONE_PERCENT**2)


def test_nothing_is_done_by_default() -> None:
    assert CLEAR.is_clear
    assert outcomes(CLEAR, 3) == [(Delivery(0),), (Delivery(1000),), (Delivery(2000),)]


@pytest.mark.parametrize("asked", [0.2, 0.5])
def test_independent_loss(asked: float) -> None:
    out = outcomes(Impairment(loss=asked), enough(asked))
    check_share(out.count(()), len(out), asked)
    both = sum(not a and not b for a, b in itertools.pairwise(out))
    assert abs(both / len(out) - asked**2) <= SIGMAS * math.sqrt(3 * asked**2 / len(out))


@pytest.mark.parametrize(
    "chain",
    [GilbertElliott.bursts(0.2, 4), GilbertElliott(p=0.2, r=0.6, h=0.3, k=0.98)],
)
def test_loss_in_bursts(chain: GilbertElliott) -> None:
    out = outcomes(Impairment(bursts=chain), 700_000)
    # A chain's share varies like that of fewer independent packets: by the sum of its autocorrelation.
    memory = 1 - chain.p - chain.r
    spread = math.sqrt(chain.loss * (1 - chain.loss) * (1 + memory) / (1 - memory) / len(out))
    check(out.count(()) / len(out), chain.loss, spread)


def test_bursts_are_as_long_as_asked() -> None:
    out = outcomes(Impairment(bursts=GilbertElliott.bursts(0.5, 3)), 500_000)
    lengths = [len(list(run)) for lost, run in itertools.groupby(not each for each in out) if lost]
    r = 1 / 3
    check(statistics.fmean(lengths), 3, math.sqrt((1 - r) / r**2 / len(lengths)))


@pytest.mark.parametrize(("distribution", "share"), [("normal", 1.0), ("uniform", 1 / math.sqrt(3))])
@pytest.mark.parametrize("correlation", [0.0, 0.25])
def test_delay_and_jitter(distribution: str, share: float, correlation: float) -> None:
    asked = Impairment(delay_us=150_000, jitter_us=20_000, correlation=correlation, distribution=distribution)  # type: ignore[arg-type]
    found = delays(asked, 150_000)
    deviation = 20_000 * share
    stretch = math.sqrt((1 + correlation) / (1 - correlation) / len(found))
    check(statistics.fmean(found), 150_000, deviation * stretch)
    check(statistics.pstdev(found), deviation, deviation * stretch)
    neighbours = statistics.correlation(found[1:], found[:-1])
    assert abs(neighbours - correlation) <= SIGMAS / math.sqrt(len(found))
    if distribution == "uniform":
        assert 130_000 <= min(found) <= 130_100
        assert 169_900 <= max(found) <= 170_000


def test_order_is_free_or_kept() -> None:
    free = Impairment(delay_us=50_000, jitter_us=10_000)
    kept = Impairment(delay_us=50_000, jitter_us=10_000, keep_order=True)
    assert any(b[0].at < a[0].at for a, b in itertools.pairwise(outcomes(free, 1000)))
    assert all(b[0].at >= a[0].at for a, b in itertools.pairwise(outcomes(kept, 1000)))


def test_reordered_packets_skip_the_delay() -> None:
    found = delays(Impairment(delay_us=5000, reorder=0.5), enough(0.5))
    assert set(found) == {0, 5000}
    check_share(found.count(0), len(found), 0.5)


def test_duplicates_and_corruption() -> None:
    out = outcomes(Impairment(duplicate=0.5, corrupt=0.3), enough(0.3))
    check_share(sum(len(each) == 2 for each in out), len(out), 0.5)
    flips = [each[0].flip for each in out if each[0].flip is not None]
    check_share(len(flips), len(out), 0.3)
    check(statistics.fmean(flips), 0.5, math.sqrt(1 / 12 / len(flips)))
    assert all(0 <= flip < 1 for flip in flips)


def test_the_rate_is_limited_and_the_queue_bounded() -> None:
    lane = Lane(Impairment(rate_bps=8_000_000, queue_bytes=20_000), 1)  # 1 byte per µs, for packets at twice the rate
    out = [lane.enter(n * 500, 1000) for n in range(20_000)]
    times = [each[0].at for each in out if each]
    assert {b - a for a, b in itertools.pairwise(times)} == {1000}
    check(len(times) * 1000 / (20_000 * 500), 1.0, 0.0025)
    assert max(each[0].at - n * 500 for n, each in enumerate(out) if each) == 20_000  # a full queue's delay
    assert lane.counts.overflowed == 20_000 - len(times)
    idle = lane.enter(10_000_000_000, 1000)
    assert idle[0].at == 10_000_001_000


def test_a_black_hole_swallows_all_until_it_is_taken_back() -> None:
    lane = Lane(BLACK_HOLE, 1)
    assert lane.enter(0, 100) == ()
    lane.settings = CLEAR
    assert lane.enter(1, 100) == (Delivery(1),)
    assert (lane.counts.black_holed, lane.counts.dropped, lane.counts.entered) == (1, 1, 2)


shares = st.floats(0, 1)
impairments = st.builds(
    Impairment,
    delay_us=st.integers(1, 1_000_000),
    jitter_us=st.integers(0, 1_000_000),
    correlation=st.floats(0, 0.99),
    distribution=st.sampled_from(["normal", "uniform"]),
    keep_order=st.just(False),
    loss=st.just(0.0),
    bursts=st.none() | st.builds(GilbertElliott, st.floats(0.01, 1), shares, shares, shares),
    duplicate=shares,
    reorder=shares,
    corrupt=shares,
    rate_bps=st.integers(0, 10**9),
    queue_bytes=st.integers(0, 10**6),
    black_hole=st.booleans(),
)
packets = st.lists(st.tuples(st.integers(0, 100_000), st.integers(20, 9000)), max_size=50)


@settings(max_examples=100, deadline=None)
@given(impairments, packets, st.integers())
def test_every_packet_is_accounted_for_and_a_seed_repeats(
    impairment: Impairment, steps: list[tuple[int, int]], seed: int
) -> None:
    lane, again = Lane(impairment, seed), Lane(impairment, seed)
    now = delivered = 0
    for pause, size in steps:
        now += pause
        out = lane.enter(now, size)
        assert out == again.enter(now, size)
        assert all(each.at >= now for each in out)
        delivered += len(out)
    counts = lane.counts
    assert counts.entered + counts.duplicated == delivered + counts.dropped
    assert counts.entered_bytes == sum(size for _, size in steps)


def test_seeds_differ() -> None:
    asked = Impairment(loss=0.5)
    first, second = Lane(asked, "a/b"), Lane(asked, "b/a")
    assert [first.enter(n, 1) for n in range(64)] != [second.enter(n, 1) for n in range(64)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"loss": 1.01}, "loss must be within 0 and 1"),
        ({"loss": float("nan")}, "loss must be within"),
        ({"delay_us": -1}, "delay_us must be a whole number"),
        ({"delay_us": 1.5}, "delay_us must be a whole number"),
        ({"delay_us": 86_400_000_001}, "a day at most"),
        ({"distribution": "pareto"}, "normal or uniform"),
        ({"correlation": 1.0}, "correlation must be below 1"),
        ({"loss": 0.1, "bursts": GilbertElliott(0.1, 0.1)}, "exclude each other"),
        ({"reorder": 0.1}, "reorder needs a delay_us"),
        ({"reorder": 0.1, "delay_us": 1, "keep_order": True}, "exclude each other"),
    ],
)
def test_impossible_impairments_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Impairment(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("p", "r", "reason"), [(0, 0, "for ever"), (-0.1, 1, "p must be"), (0.1, 2, "r must be")])
def test_impossible_chains_are_refused(p: float, r: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        GilbertElliott(p, r)


@pytest.mark.parametrize(("loss", "length"), [(0, 4), (1, 4), (-0.1, 4), (0.1, 0.5), (0.9, 2)])
def test_impossible_bursts_are_refused(loss: float, length: float) -> None:
    with pytest.raises(ValueError, match="bursts"):
        GilbertElliott.bursts(loss, length)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("delay=150ms jitter=20ms correlation=25%", Impairment(delay_us=150_000, jitter_us=20_000, correlation=0.25)),
        ("loss=12%", Impairment(loss=0.12)),
        ("loss=0.2 burst=4", Impairment(bursts=GilbertElliott.bursts(0.2, 4))),
        ("p=1% r=20% h=0 k=1", Impairment(bursts=GilbertElliott(0.01, 0.2, 0, 1))),
        ("rate=2.5mbit queue=64kB", Impairment(rate_bps=2_500_000, queue_bytes=64_000)),
        ("delay=1s order=kept", Impairment(delay_us=1_000_000, keep_order=True)),
        ("blackhole", BLACK_HOLE),
        ("", CLEAR),
    ],
)
def test_words_and_json(text: str, wanted: Impairment) -> None:
    assert parse_impairment(text.split()) == wanted
    assert from_json(to_json(wanted)) == wanted


@given(impairments)
def test_json_keeps_everything(impairment: Impairment) -> None:
    assert from_json(to_json(impairment)) == impairment


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("los=3%", "did you mean loss"),
        ("xyzzy=1", "no impairment: delay=150ms"),
        ("loss", "a value is missing"),
        ("blackhole=1", "takes no value"),
        ("loss=1% loss=2%", "given twice"),
        ("loss=many", "write a share as 12%"),
        ("loss=120%", "loss must be within 0 and 1"),
        ("delay=150", "write a number with one of us, ms, s"),
        ("rate=-2mbit", "write a number with one of bit"),
        ("burst=3", "burst needs a loss"),
        ("loss=1% burst=x", "packets lost in a row"),
        ("p=1%", "needs p and r"),
        ("p=1% r=1% loss=1%", "exclude"),
        ("order=best", "kept or free"),
    ],
)
def test_wrong_words_say_what_is_right(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_impairment(text.split())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["delay_us", "bursts", "loss", "black_hole", "distribution", "rate_bps", "other"])


@given(json_values | st.dictionaries(names, json_values, max_size=4))
def test_json_of_strangers_is_read_or_refused(fields: object) -> None:
    try:
        made = from_json(fields)
    except ValueError:
        return
    Lane(made, 1).enter(0, 1000)

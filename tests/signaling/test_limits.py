"""Rate limits: bursts, refill, and a table that stays bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.limits import RateLimiter


def test_passes_a_burst_then_names_the_wait() -> None:
    limiter = RateLimiter(per_minute=60)
    assert [limiter.take("a", 100.0) for _ in range(10)] == [0] * 10
    assert limiter.take("a", 100.0) == 1
    assert limiter.take("b", 100.0) == 0
    assert limiter.take("a", 101.0) == 0
    assert limiter.take("a", 101.0) == 1


def test_a_slow_rate_still_passes_one() -> None:
    limiter = RateLimiter(per_minute=1)
    assert limiter.take("a", 0.0) == 0
    assert limiter.take("a", 0.5) == 60
    assert limiter.take("a", 60.0) == 0


def test_forgets_the_least_recently_used_key() -> None:
    limiter = RateLimiter(per_minute=1, max_keys=2)
    for key in ("a", "b", "c"):
        assert limiter.take(key, 0.0) == 0
    assert len(limiter) == 2
    assert limiter.take("c", 1.0) > 0
    assert limiter.take("a", 1.0) == 0


def test_forgets_keys_that_would_pass_a_whole_burst_again() -> None:
    limiter = RateLimiter(per_minute=60)
    for number in range(1000):
        assert limiter.take(f"k{number}", number / 10) == 0
        assert len(limiter) <= 11
    assert [limiter.take("a", 200.0) for _ in range(11)] == [0] * 10 + [1]
    assert limiter.take("b", 205.0) == 0
    assert len(limiter) == 2
    assert [limiter.take("a", 205.0) for _ in range(6)] == [0] * 5 + [1]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 600), st.lists(st.floats(0, 5), max_size=200))
def test_never_passes_more_than_the_rate_and_one_burst(per_minute: int, gaps: list[float]) -> None:
    limiter, now, passed = RateLimiter(per_minute), 0.0, 0
    for gap in gaps:
        now += gap
        passed += limiter.take("a", now) == 0
    assert passed <= max(1, per_minute // 6) + now * per_minute / 60 + 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 600), st.integers(1, 200))
def test_waiting_as_told_always_passes(per_minute: int, requests: int) -> None:
    limiter, now = RateLimiter(per_minute), 0.0
    for _ in range(requests):
        now += limiter.take("a", now)
    wait = limiter.take("a", now)
    assert limiter.take("a", now + wait) == 0 or wait == 0

"""Durations as HdrHistograms: three digits, from 1 µs to an hour."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

_LEAST_US, _MOST_US, _DIGITS = 1, 3_600_000_000, 3
PARTS = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def histogram(seconds: Iterable[float]) -> HdrHistogram:
    """A histogram of durations, in microseconds."""
    found = HdrHistogram(_LEAST_US, _MOST_US, _DIGITS)
    for each in seconds:
        found.record_value(min(_MOST_US, max(_LEAST_US, round(each * 1e6))))
    return found


def spread_ms(seconds: Iterable[float]) -> dict[str, float | None]:
    """p50, p95, p99 and max in milliseconds; None for all where there is nothing."""
    found = histogram(seconds)
    if not found.get_total_count():
        return dict.fromkeys(PARTS)
    return {part: round(found.get_value_at_percentile(share) / 1000, 1) for part, share in PARTS.items()}

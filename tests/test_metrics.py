"""Metrics: names, what a snapshot becomes, sums that never go down."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import Literal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics import Metrics
from relay.plane import open_plane
from relay.plane.contract import LayerStats, PlaneConfig, PlaneStats, SlotStats

LOSSES = ("events", "taps", "orders", "injects", "datagrams")


class Failed:
    """What a native plane says once its thread has gone."""

    name = "native"
    ways = ("gso",)
    healthy = False
    addresses = (("192.0.2.1", 7443), ("192.0.2.1", 7444))
    cpus = (0, 2)

    def counters(self) -> dict[str, object]:
        return {"events_lost": 3, "out_overflowed": 5, "messages_out": 7, "out_errors": {1: 2}, "late_us": 2_500_000}


def scrape(metrics: Metrics) -> dict[str, float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def snapshot() -> PlaneStats:
    tracks = {1: [LayerStats(active=True, lost=2, nacks_sent=3), LayerStats(lost=1)], 2: [LayerStats(keyframes=4)]}
    slots = {5: SlotStats(track=1, nacks=7, resent=6), 6: SlotStats()}
    return PlaneStats({}, tracks, slots, {"stranger": 9}, datagrams_in=100, bytes_out=5000)


def test_own_names_have_prefix_and_unit() -> None:
    metrics = Metrics("0.1.0", "n1")
    metrics.watch_plane(snapshot)
    body, _ = metrics.render()
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", body.decode(), re.M))
    own = {name: kind for name, kind in types.items() if not name.startswith(("process_", "python_"))}
    assert own
    for name, kind in own.items():
        assert name.startswith("costream_")
        if kind == "counter":
            assert name.endswith("_total")
        if kind == "histogram":
            assert name.endswith("_seconds")


def test_a_snapshot_becomes_samples() -> None:
    metrics = Metrics("0.1.0", "n1")
    metrics.watch_plane(snapshot)
    samples = scrape(metrics)
    assert samples["costream_build_info{node=n1,version=0.1.0}"] == 1
    assert samples["costream_publications"] == 2
    assert samples["costream_active_layers"] == 1
    assert samples["costream_slots{state=playing}"] == samples["costream_slots{state=silent}"] == 1
    assert samples["costream_datagrams_dropped_total{reason=stranger}"] == 9
    assert samples["costream_datagrams_in_total"] == 100
    assert samples["costream_sent_bytes_total"] == 5000
    assert samples["costream_packets_lost_in_total"] == 3
    assert samples["costream_nacks_in_total"] == 7


def test_sums_do_not_go_down_when_tracks_and_slots_end() -> None:
    now = snapshot()
    metrics = Metrics()
    metrics.watch_plane(lambda: now)
    scrape(metrics)
    del now.tracks[1], now.slots[5]
    now.slots[7] = SlotStats(nacks=1)
    for _ in range(2):
        samples = scrape(metrics)
        assert samples["costream_packets_lost_in_total"] == 3
        assert samples["costream_nacks_in_total"] == 8
        assert samples["costream_publications"] == 1


@pytest.mark.parametrize("kind", ["reference", "native"])
async def test_the_plane_says_who_it_is_and_what_it_lost(kind: Literal["reference", "native"]) -> None:
    if kind == "native":
        pytest.importorskip("relay.plane._native", reason="the native plane is not built: see rust/README.md")
    plane = open_plane(kind, PlaneConfig(), "127.0.0.1", 0)
    plane.start()
    metrics = Metrics()
    metrics.watch_plane(plane.stats, plane)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"nonsense", plane.addresses[0])
        async with asyncio.timeout(20):
            while scrape(metrics)["costream_datagrams_in_total"] < 1:
                await asyncio.sleep(0.001)
    samples = scrape(metrics)
    plane.close()
    assert samples[f"costream_plane_info{{plane={kind},ways={','.join(plane.ways)}}}"] == 1
    assert samples["costream_plane_healthy"] == 1
    own = {
        name: value for name, value in samples.items() if name.startswith(("costream_plane_lost", "costream_plane_s"))
    }
    if kind == "reference":
        assert set(own) == {"costream_plane_sessions"}
    else:
        assert own["costream_plane_system_calls_total{direction=in}"] >= 1
        lost = {name: value for name, value in own.items() if "lost" in name}
        assert lost == {f"costream_plane_lost_total{{what={what}}}": 0 for what in LOSSES}


def test_a_failed_plane_and_full_rings_show() -> None:
    metrics = Metrics()
    metrics.watch_plane(snapshot, Failed())
    samples = scrape(metrics)
    assert samples["costream_plane_healthy"] == 0
    assert samples["costream_plane_lost_total{what=events}"] == 3
    assert samples["costream_plane_lost_total{what=datagrams}"] == 5
    assert samples["costream_plane_messages_total{direction=out}"] == 7
    assert samples["costream_plane_late_seconds_total"] == 2.5


def test_pushed_metrics_are_rendered() -> None:
    metrics = Metrics()
    metrics.joins.labels("viewer").inc()
    metrics.refusals.labels("sessions").inc(2)
    metrics.api_latency.labels("GET", "/v1/rooms", "200").observe(0.003)
    samples = scrape(metrics)
    assert samples["costream_joins_total{kind=viewer}"] == 1
    assert samples["costream_refusals_total{reason=sessions}"] == 2
    assert samples["costream_api_request_duration_seconds_bucket{le=0.005,method=GET,route=/v1/rooms,status=200}"] == 1


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.store_failures.inc()
    assert scrape(second)["costream_store_failures_total"] == 0


def test_openmetrics_is_spoken_when_asked_for() -> None:
    body, content_type = Metrics().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("accept", ["text/plain; version=x", "application/openmetrics-text; version=", ";;,,=", "é"])
def test_strange_accept_headers_get_something_readable(accept: str) -> None:
    body, _ = Metrics().render(accept)
    assert b"costream_rooms" in body


async def test_loop_lag_is_sampled_and_stops_when_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.metrics._LAG_INTERVAL_S", 0.001)
    metrics = Metrics()
    task = asyncio.create_task(metrics.measure_loop_lag())
    while scrape(metrics)["costream_event_loop_lag_seconds_count"] < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()

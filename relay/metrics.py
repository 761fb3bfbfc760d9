"""Metrics in Prometheus form: names start with `costream_` and end in their unit.

What is counted per change is pushed into `Metrics`. What the plane counts per packet is pulled at scrape time
(`relay.collectors`), so the packet path never meets a metric.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from relay.collectors import PREFIX, EgressCollector, LinkCollector, PlaneCollector, PlaneCounts, PlaneFacts

_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_API_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_JOIN_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 20)
_LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1)
_LAG_INTERVAL_S = 0.25  # four wake-ups a second cost nothing and see every stall that a viewer could


class Metrics:
    """The registry of one process and everything that is pushed into it."""

    def __init__(self, version: str = "", node: str = "") -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Gauge(f"{PREFIX}_build_info", "Version and node id.", ["version", "node"], registry=self.registry)
        build.labels(version, node).set(1)
        self.rooms = self._gauge(
            "rooms", "Rooms that this process has sessions in, by traffic: live, drill, load.", "traffic"
        )
        self.sessions = self._gauge(
            "sessions",
            "Open sessions by kind (publisher or viewer) and by the traffic of their room.",
            "kind",
            "traffic",
        )
        self.event_streams = self._gauge("event_streams", "Clients that follow a room's events.")
        self.joins = self._counter("joins", "Sessions that reached media, by kind.", "kind")
        self.refusals = self._counter("refusals", "Joins refused by admission, by reason.", "reason")
        self.link_moves = self._counter(
            "link_moves", "Moves of a link's breaker, by peer and new state.", "peer", "state"
        )
        self.programs = self._gauge("programs", "Programs that this node mixes.")
        self.one_sounds = self._gauge("one_sounds", "Mixes of this node for viewers who asked for one sound.")
        self.mix_replacements = self._counter(
            "mix_replacements", "Processes and threads of the mix that died or hung and were replaced, by part.", "part"
        )
        self.mix_frames = self._counter("mix_frames", "Pictures of programs that were sent.")
        self.mix_skipped = self._counter("mix_skipped_frames", "Pictures of programs that were left out, being late.")
        self.mix_troubles = self._counter("mix_input_troubles", "What went wrong with inputs of programs.", "fault")
        self.reports_refused = self._counter(
            "sender_reports_refused",
            "Times that a publisher's sender reports began to be unusable for lip sync, by reason.",
            "reason",
        )
        self.mix_tick_lateness = self._gauge(
            "mix_tick_lateness_seconds", "How late the audio mixers woke: the 99th percentile of the last seconds."
        )
        self.mix_ticks_skipped = self._counter("mix_skipped_ticks", "Audio ticks that were never made.")
        self.endings = self._counter("session_endings", "Sessions that ended, by reason.", "reason")
        self.events = self._counter("room_events", "Room events by type.", "type")
        self.store_failures = self._counter("store_failures", "Calls that the store did not answer.")
        self.webhooks = self._counter("webhook_tries", "Tries to deliver a webhook, by what became of them.", "outcome")
        self.api_latency = self._histogram(
            "api_request_duration_seconds", "Time to answer a request.", _API_BUCKETS_S, "method", "route", "status"
        )
        self.join_latency = self._histogram(
            "join_duration_seconds", "Time from the offer to the first media packet, by kind.", _JOIN_BUCKETS_S, "kind"
        )
        self.loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop ran a timer.", _LAG_BUCKETS_S
        )

    def watch_plane(self, stats: Callable[[], PlaneCounts], plane: PlaneFacts | None = None) -> None:
        """Read the plane's snapshot at each scrape, and what `plane` says of itself. ValueError when called twice."""
        self.registry.register(PlaneCollector(stats, plane))

    def watch_links(self, states: Callable[[], list[dict[str, Any]]]) -> None:
        """Read the links at each scrape (`NodeControl.links`)."""
        self.registry.register(LinkCollector(states))

    def watch_egress(self, facts: Callable[[], list[dict[str, Any]]]) -> None:
        """Read the egress at each scrape (`EgressManager.list`)."""
        self.registry.register(EgressCollector(facts))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the body and the content type of `/metrics` for an Accept header: OpenMetrics if named."""
        # Parameters of the header are not handed on: the library raises TypeError for `version=x`.
        encode, content_type = choose_encoder(_OPENMETRICS if "application/openmetrics-text" in accept else "")
        return encode(self.registry), content_type

    async def measure_loop_lag(self) -> None:
        """Sample the lag of the running event loop until cancelled. The caller owns the task."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL_S
            await asyncio.sleep(_LAG_INTERVAL_S)
            self.loop_lag.observe(max(0.0, loop.time() - due))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}_total", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)

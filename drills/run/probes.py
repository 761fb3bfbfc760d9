"""What a drill measures beside its clients, each probe in a thread of its own: the API, the relays' metrics, events,
and how busy this machine is. They only write lines; faults are none of their business.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]

from drills.cluster import Cluster
from drills.record import Recorder
from drills.run.metrics import read_metrics

_API_TIMEOUT_S = 5.0
_SAMPLE_S = 0.5
_MACHINE_S = 0.1
_EVENT_TYPE = "app.drill"
_RETRY_S = 0.2


class Probes:
    """Run from `start` to `stop`."""

    def __init__(self, cluster: Cluster, room: str, record: Recorder, api_rate: float) -> None:
        self._cluster, self._room, self._record, self._api_rate = cluster, room, record, api_rate
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sent: dict[tuple[str, int], float] = {}

    def start(self) -> None:
        """Begin to measure."""
        for member in self._cluster.signaling:
            self._spawn(self._ask_api, member.name)
        for member in self._cluster.relays:
            self._spawn(self._sample, member.name)
        self._spawn(self._follow_events, self._cluster.signaling[-1].name)
        self._spawn(self._watch_machine)

    def stop(self) -> None:
        """End all threads; each notices within its time-out."""
        self._over.set()
        for thread in self._threads:
            thread.join(_API_TIMEOUT_S + 1)

    def _spawn(self, run: Callable[..., None], *arguments: str) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True, name=run.__name__)
        thread.start()
        self._threads.append(thread)

    def _ask_api(self, member: str) -> None:
        """A read and a write in turn, on a warm connection, at a fixed rate: a slow answer does not hide others."""
        number, pause = 0, 1 / self._api_rate
        with self._client(member) as api:
            due = time.monotonic()
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due = max(due + pause, time.monotonic())
                began = time.monotonic()
                try:
                    if number % 2:
                        response = api.get(f"/v1/rooms/{self._room}")
                    else:
                        self._sent[member, number] = began
                        body = {"type": _EVENT_TYPE, "data": {"n": number, "by": member}}
                        response = api.post(f"/v1/rooms/{self._room}/events", json=body)
                    status = response.status_code
                except httpx2.HTTPError:
                    status = 0
                self._record.write("api", began, member=member, took=time.monotonic() - began, status=status)
                number += 1

    def _follow_events(self, member: str) -> None:
        """The stream of the room's events, opened again when it breaks."""
        with self._client(member) as api:
            while not self._over.is_set():
                try:
                    for data in self._events(api):
                        sent = self._sent.pop((str(data.get("by")), int(data.get("n", -1))), None)
                        if sent is not None:
                            self._record.write("event", sent=sent, took=time.monotonic() - sent)
                        if self._over.is_set():
                            return
                except (httpx2.HTTPError, ValueError):
                    self._over.wait(_RETRY_S)

    def _events(self, api: httpx2.Client) -> Iterator[dict[str, Any]]:
        timeout = httpx2.Timeout(_API_TIMEOUT_S, read=3.0)
        with api.stream("GET", f"/v1/rooms/{self._room}/events", timeout=timeout) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if event.get("type") == _EVENT_TYPE:
                        yield event["data"]["data"]

    def _sample(self, member: str) -> None:
        with self._client(member) as api:
            while not self._over.wait(_SAMPLE_S):
                at = time.monotonic()
                try:
                    text = api.get("/metrics", timeout=2.0).text
                except httpx2.HTTPError:
                    self._record.write("sample", at, member=member, there=False)
                else:
                    self._record.write("sample", at, member=member, there=True, **read_metrics(text).flat())

    def _watch_machine(self) -> None:
        """How late a timer of ours fires says how much of what clients saw is this machine's doing."""
        psutil.cpu_percent()
        told, late = time.monotonic(), 0.0
        while True:
            due = time.monotonic() + 0.02
            if self._over.wait(0.02):
                return
            now = time.monotonic()
            late = max(late, now - due)
            if now - told >= _MACHINE_S:
                self._record.write("machine", told, cpu=psutil.cpu_percent(), late=round(late, 4))
                told, late = now, 0.0

    @contextmanager
    def _client(self, member: str) -> Iterator[httpx2.Client]:
        with self._cluster.api(member, timeout=_API_TIMEOUT_S) as api:
            yield api

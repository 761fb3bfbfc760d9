"""Carries out a scenario: cluster, load, steady state, method, rollback (always), calm; then the evidence is collected.

Everything that starts or ends processes runs on the main thread: their lives hang on the thread that started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from drills.chromium import finding as chromium
from drills.cluster import Cluster
from drills.cluster.config import Place
from drills.fabric import FabricError
from drills.faults import Fault, Preparation, Stage
from drills.interrupts import undisturbed
from drills.record import Recorder
from drills.run.guard import label_as_test_cluster, left_out, require_possible, require_test_cluster
from drills.run.load import Load
from drills.run.metrics import NodeFigures, read_metrics
from drills.run.probes import Probes
from drills.run.rooms import Rooms
from drills.run.steady import Steady
from drills.scenario.model import Scenario
from relay.cluster.leases import LeaseEntry, RedisLeases
from relay.errors import StoreUnavailable

_PLAY_S = 90.0
_TICK_S = 0.05
_WARM_S = 1.5
_TRIES, _AGAIN_S = 6, 0.5
_ARRIVE_S = 0.5  # what was on its way has arrived, or been given up
Tell = Callable[[str, float], None]
"""Progress: what is being done, and for how many seconds at most."""


@dataclass(slots=True)
class Times:
    """When the phases began, CLOCK_MONOTONIC; 0 for what was not reached."""

    started: float = 0.0
    watching: float = 0.0
    method: float = 0.0
    rollback: float = 0.0
    calm: float = 0.0
    over: float = 0.0


@dataclass(slots=True)
class Evidence:
    """What is left of a drill when its cluster is gone."""

    times: Times = field(default_factory=Times)
    faults: list[tuple[float, float, Fault]] = field(default_factory=list)
    """When it began and was taken back, in the order of the method."""
    clients: list[dict[str, Any]] = field(default_factory=list)
    watched_until: float = 0.0
    """When clients were told to leave."""
    near: set[str] = field(default_factory=set)
    expected: set[tuple[str, int]] = field(default_factory=set)
    publishers: dict[int, str] = field(default_factory=dict)
    leases: dict[str, list[LeaseEntry]] = field(default_factory=dict)
    nodes: dict[str, NodeFigures] = field(default_factory=dict)
    nodes_later: dict[str, NodeFigures] = field(default_factory=dict)
    """The same, once what was on its way then has arrived."""
    lanes: dict[str, Any] = field(default_factory=dict)
    wall: float = 0.0
    """Wall clock minus CLOCK_MONOTONIC."""
    failure: str = ""
    """Why the drill itself could not be carried out; empty when it was."""
    left_out: list[str] = field(default_factory=list)
    """What the scenario would have liked to have, and why it was not there."""
    steady: bool = True
    interrupted: bool = False


class Drill:
    """One run. `carry_out` returns the evidence, whatever happens; only bugs of ours surface."""

    def __init__(self, scenario: Scenario, directory: Path, record: Recorder, tell: Tell) -> None:
        self._scenario, self._directory, self._record, self._tell = scenario, directory, record, tell
        self.evidence = Evidence(wall=time.time() - time.monotonic())
        self._applied: list[tuple[int, Fault, float]] = []
        self._waiting = sorted(enumerate(scenario.method), key=lambda pair: pair[1].at)

    def carry_out(self) -> Evidence:
        """Raises Refused before anything is started."""
        preparation = require_possible(self._scenario)
        self.evidence.left_out = left_out(self._scenario)
        for each in self.evidence.left_out:
            self._tell(f"LEFT OUT: {each}", -1.0)
            self._record.write("run", what="left out", text=each)
        self._phase("started", "starting the cluster", 60.0)
        try:
            with self._cluster(preparation) as cluster:
                self._on(cluster)
        except KeyboardInterrupt:
            self.evidence.interrupted = True
            self.evidence.failure = "interrupted"
        except FabricError as error:
            self.evidence.failure = str(error)
        self._phase("over", "reading what was recorded", 0.0)
        return self.evidence

    def _cluster(self, preparation: Preparation) -> Cluster:
        wanted = self._scenario.cluster
        traces = self._directory / "breakers"

        def extra(place: Place) -> Mapping[str, Mapping[str, Any]]:
            if place.role != "relay":
                return {}
            own = traces / place.name
            own.mkdir(parents=True, exist_ok=True)
            asked = {**wanted.settings, **preparation.settings.get(place.name, {})}
            return _sections({"link.breaker.trace_dir": str(own), **asked})

        def env(directory: Path, name: str) -> Mapping[str, str]:
            for file, text in preparation.files.items():
                (directory / file).write_text(text)
            return {key: text.format(directory=directory) for key, text in preparation.env.get(name, {}).items()}

        cluster = Cluster(
            relays=wanted.relays,
            signaling=wanted.signaling,
            regions=wanted.regions,
            kind="tun" if self._scenario.root else "auto",
            seed=self._scenario.seed,
            extra=extra,
            env=env,
        )
        label_as_test_cluster(cluster.directory)
        return cluster

    def _on(self, cluster: Cluster) -> None:
        scenario = self._scenario
        require_test_cluster(cluster.directory)
        load = Load(cluster, scenario.load, scenario.seed, chromium.executable())
        probes = Probes(cluster, load.rooms[0], self._record, scenario.load.api_rate)
        rooms = Rooms(cluster, load, scenario.load, self._record)
        stage = Stage(cluster, random.Random(f"{scenario.seed}/faults"), self._note)
        try:
            self._tell("hosts go on air", _PLAY_S)
            load.start_hosts()
            load.start_viewers()
            self._tell("viewers join", _PLAY_S)
            load.wait_until_all_play(_PLAY_S)
            time.sleep(_WARM_S)
            probes.start()
            rooms.start()
            self._go(cluster, load, rooms, stage)
        finally:
            with undisturbed():
                self._take_back_all(stage)
                self.evidence.watched_until = time.monotonic()
                self._tell("collecting", 10.0)
                probes.stop()
                rooms.stop()
                self._collect(cluster, load)

    def _go(self, cluster: Cluster, load: Load, rooms: Rooms, stage: Stage) -> None:
        scenario = self._scenario
        if scenario.load.pk:
            self._tell("the PK begins", 20.0)
            rooms.begin_pk()
            rooms.wait_until_shown(lambda seconds: self._wait(load, seconds))
        self._phase("watching", "watching the steady state", scenario.watch)
        self._wait(load, scenario.watch)
        steady = Steady(load, self._record, self.evidence.times.watching, time.monotonic())
        if failed := steady.failures(scenario.steady_state.before):
            self.evidence.steady = False
            self.evidence.failure = "no steady state, so nothing was broken: " + "; ".join(failed)
            return
        self._phase("method", "faults", scenario.lasts)
        load.start_newcomers()
        self._method(load, stage)
        self._phase("rollback", "everything is taken back, settling", scenario.settle)
        self._take_back_all(stage)
        if scenario.load.pk:
            rooms.begin_pk()
        self._wait(load, scenario.settle)
        with contextlib.suppress(FabricError):  # a member that does not come back shows in what viewers see
            cluster.wait_until_healthy(20.0)
        self._phase("calm", "watching the calm", scenario.calm)
        self._wait(load, scenario.calm)

    def _method(self, load: Load, stage: Stage) -> None:
        began = self.evidence.times.method
        while (elapsed := time.monotonic() - began) < self._scenario.lasts:
            while self._waiting and self._waiting[0][1].at <= elapsed:
                self._apply(stage, *self._waiting.pop(0))
            for entry in list(self._applied):
                _, fault, since = entry
                if fault.lasts is not None and time.monotonic() - since >= fault.lasts:
                    self._take_back(stage, entry)
                else:
                    fault.tick(stage, time.monotonic() - since)
            self._wait(load, _TICK_S)

    def _apply(self, stage: Stage, number: int, fault: Fault) -> None:
        require_test_cluster(stage.cluster.directory)
        at = time.monotonic()
        self._applied.append((number, fault, at))  # first: a fault that fails half-way is taken back, too
        self._record.write("fault", at, what="applied", fault=number, text=fault.as_text(), targets=fault.targets())
        self._tell(f"fault: {fault.as_text()}", -1.0)
        fault.apply(stage)

    def _take_back(self, stage: Stage, entry: tuple[int, Fault, float]) -> None:
        self._applied.remove(entry)
        number, fault, since = entry
        try:
            fault.take_back(stage)
        finally:
            at = time.monotonic()
            self.evidence.faults.append((since, at, fault))
            self._record.write("fault", at, what="taken back", fault=number, text=fault.as_text(), targets=[])

    def _take_back_all(self, stage: Stage) -> None:
        """The rollback: one fault that cannot be taken back keeps no other from it."""
        for entry in reversed(list(self._applied)):
            try:
                self._take_back(stage, entry)
            except (FabricError, OSError) as error:
                self.evidence.failure = self.evidence.failure or f"{entry[1].fault} was not taken back: {error}"
        with contextlib.suppress(FabricError):
            stage.cluster.fabric.heal()

    def _wait(self, load: Load, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            load.read()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))

    def _collect(self, cluster: Cluster, load: Load) -> None:
        """Read what only the living cluster can tell, then end the clients."""
        evidence = self.evidence
        evidence.near, evidence.expected, evidence.publishers = load.near, load.watching.expected, load.publishers
        evidence.nodes = _read_nodes(cluster)
        time.sleep(_ARRIVE_S)
        evidence.nodes_later = _read_nodes(cluster)
        with contextlib.suppress(FabricError):
            evidence.lanes = cluster.fabric.counters()
        for room in load.rooms:
            history = asyncio.run(_history(cluster.store_url, room))
            if history is not None:
                evidence.leases[room] = history
        load.stop()
        evidence.clients = load.lines()
        for line in evidence.clients:
            kind = "newcomer" if line["event"] == "offered" else "client"
            self._record.write(kind, **line)

    def _note(self, what: str, text: str) -> None:
        self._record.write("fault", what=what, fault=-1, text=text, targets=[])

    def _phase(self, name: str, text: str, seconds: float) -> None:
        now = time.monotonic()
        setattr(self.evidence.times, name, now)
        self._record.write("run", now, what=name)
        self._tell(text, seconds)


def _read_nodes(cluster: Cluster) -> dict[str, NodeFigures]:
    """The figures of all relays that answer."""
    found = {}
    for relay in cluster.relays:
        with contextlib.suppress(httpx2.HTTPError, FabricError), cluster.api(relay.name, timeout=2.0) as api:
            found[relay.name] = read_metrics(api.get("/metrics").text)
    return found


async def _history(url: str, room: str) -> list[LeaseEntry] | None:
    """A room's leases; None when the store does not tell: what was not read is no proof, and is reported as such."""
    leases = RedisLeases(url, socket_timeout_s=3.0)
    try:
        for _ in range(_TRIES):
            try:
                return await leases.history(room)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN_S)
    finally:
        await leases.close()
    return None


def _sections(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`link.breaker.hold_s` → {"link": {"breaker": {"hold_s": …}}}."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *path, key = name.split(".")
        table = found
        for part in path:
            table = table.setdefault(part, {})
        table[key] = value
    return found

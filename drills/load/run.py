"""Puts a load on a cluster: makes the rooms, starts hosts and viewers in processes, records, takes all away again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2

from drills.cluster.tokens import sign
from drills.interrupts import undisturbed
from drills.load.plan import LoadPlan, story, turn
from drills.load.summary import Summary, summarise
from drills.ownership import own_directory, this_process
from drills.processes import Process
from drills.record import Recorder, Tail
from relay.errors import CostreamError

TRAFFIC = "load"
"""In the rooms' metadata: nobody takes them for real ones."""
_LOOK_S = 0.1
_LEAVE_S = 5.0
_HEAD_START_S = 2.0
"""Processes need so long until they can act."""

Progress = Callable[[str], None]


class LoadFailed(CostreamError):
    """The load could not be put on the target, or a client's process has ended by itself."""


class Load:
    """One run. `keys` are (id, secret) of the signing key; `urls` the API's addresses, tried in turn by clients."""

    def __init__(self, plan: LoadPlan, urls: Sequence[str], key: tuple[str, str], record: Recorder,
                 progress: Progress = lambda text: None) -> None:  # fmt: skip
        self._plan, self._urls, self._key, self._record = plan, [url.rstrip("/") for url in urls], key, record
        self._progress = progress
        self._owner = this_process()
        self._processes: list[tuple[str, Process, Tail]] = []
        self._made: list[str] = []
        self.rooms = [f"load-{plan.seed}-{number}" for number in range(1, plan.rooms + 1)]
        bearer = {"Authorization": f"Bearer {self._token('*', 'load', 'service')}"}
        self._api = httpx2.Client(base_url=self._urls[0], verify=False, trust_env=False, timeout=3.0, headers=bearer)

    def run(self) -> Summary:
        """Return what was seen. KeyboardInterrupt ends it early, as cleanly; the summary says so. Raises LoadFailed."""
        directory = own_directory(self._owner)
        interrupted = False
        try:
            self._make_rooms()
            began = time.monotonic()
            self._record.write("run", began, what="begun", plan=asdict(self._plan))
            self._start(directory, began + _HEAD_START_S)
            self._go_on(began + _HEAD_START_S)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            with undisturbed():
                self._end(directory)
        return summarise(self._plan, self._record, interrupted=interrupted)

    # --- phases ------------------------------------------------------------------------------------------------------

    def _make_rooms(self) -> None:
        for room in self.rooms:
            wanted = {"id": room, "max_seats": max(1, self._plan.hosts), "metadata": {"traffic": TRAFFIC}}
            try:
                answer = self._api.post("/v1/rooms", json=wanted)
            except httpx2.HTTPError as error:
                raise LoadFailed(f"{self._urls[0]} does not answer: {error}") from error
            if answer.status_code != 201:
                raise LoadFailed(f"room {room}: {answer.status_code} {answer.text[:300]}")
            self._made.append(room)

    def _start(self, directory: Path, begin: float) -> None:
        plan = self._plan
        self._progress(f"{plan.rooms} rooms, {plan.rooms * plan.hosts} hosts")
        for index, room in enumerate(self.rooms):
            for number in range(plan.hosts):
                name = f"host-{index + 1}-{number + 1}"
                size = {"width": 1280, "height": 720} if plan.simulcast else {}
                self._process("drills.publisher", directory, name, {
                    "urls": [f"{url}/whip/{room}" for url in self._urls], "name": name,
                    "token": self._token(room, name, "guest"), "publisher": (index * plan.hosts + number + 1) % 65_536,
                    "tone": 220.0 + 40 * number, "simulcast": plan.simulcast, **size,
                })  # fmt: skip
        for room_number, room in enumerate(self.rooms):
            crowd = [number for number in range(plan.rooms * plan.viewers) if number % plan.rooms == room_number]
            for first in range(0, len(crowd), plan.per_process):
                part = crowd[first : first + plan.per_process]
                self._process("drills.load.viewers", directory, f"crowd-{room_number + 1}-{first + 1}", {
                    "urls": [f"{url}/whep/{room}" for url in self._urls], "begin": begin, "videos": max(1, plan.hosts),
                    "viewers": [self._viewer(room, number) for number in part],
                })  # fmt: skip

    def _viewer(self, room: str, number: int) -> tuple[str, str, Sequence[tuple[float, str, str | None]]]:
        name = f"viewer-{number + 1}"
        steps = [(step.at, step.action, step.layer) for step in story(self._plan, number)]
        return name, self._token(room, name, "viewer"), steps

    def _go_on(self, begin: float) -> None:
        plan = self._plan
        come = begin + max((turn(plan, number) for number in range(plan.rooms * plan.viewers)), default=0.0)
        asked = time.monotonic()
        told = False
        while (now := time.monotonic()) < begin + plan.seconds:
            if now >= come and not told:
                told = True
                self._record.write("run", what="all have come")
            if plan.api_per_s and now >= asked:
                asked = max(asked + 1 / plan.api_per_s, now)
                self._ask()
            self._read()
            self._require_processes()
            self._progress(f"{max(0.0, now - begin):.0f} of {plan.seconds:g} s")
            due = time.monotonic() + _LOOK_S
            time.sleep(_LOOK_S)
            self._record.write("machine", busy=_busy(), late=round(time.monotonic() - due, 4))

    def _end(self, directory: Path) -> None:
        self._progress("taking everything away")
        # Viewers first. All are told before any is waited for.
        for viewers in (True, False):
            part = [each for name, each, _ in self._processes if name.startswith("crowd") is viewers]
            for process in part:
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGTERM)
            for process in part:
                process.stop(_LEAVE_S)
        self._read()
        for room in self._made:
            with contextlib.suppress(httpx2.HTTPError):
                self._api.delete(f"/v1/rooms/{room}")
        self._api.close()
        self._record.write("run", what="over")
        shutil.rmtree(directory, ignore_errors=True)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _process(self, module: str, directory: Path, name: str, plan: Mapping[str, Any]) -> None:
        out, path = directory / f"{name}.jsonl", directory / f"{name}.plan"
        path.touch(mode=0o600)  # it holds tokens
        path.write_text(json.dumps({**plan, "out": str(out)}))
        argv = [sys.executable, "-m", module, str(path)]
        process = Process(name, argv, directory / f"{name}.log", tag=self._owner.tag)
        self._processes.append((name, process, Tail(out)))

    def _ask(self) -> None:
        began, status = time.monotonic(), 0
        room = self.rooms[len(self._record.lines) % len(self.rooms)]
        with contextlib.suppress(httpx2.HTTPError):
            status = self._api.get(f"/v1/rooms/{room}").status_code
        self._record.write("api", began, what="read room", took=round(time.monotonic() - began, 6), status=status)

    def _read(self) -> None:
        for _, _, tail in self._processes:
            for line in tail.read():
                self._record.write("client", **line)

    def _require_processes(self) -> None:
        for name, process, _ in self._processes:
            if not process.is_running:
                raise LoadFailed(f"{name} has ended ({process.code}):\n{process.tail()}")

    def _token(self, room: str, identity: str, role: str) -> str:
        return sign(*self._key, room=room, identity=identity, role=role)


def _busy() -> float:
    """How many processes want a CPU, for each that there is (over the last minute)."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)

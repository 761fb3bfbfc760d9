"""What rooms are told and show: their events of programs and PKs, and in a PK whether both stages are shown.

What a room shows is read where it is shown: in the slots of its viewers' sessions, asked of the relays that have them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from drills.cluster import Cluster
from drills.fabric import FabricError
from drills.record import Recorder
from drills.run.load import Load
from drills.scenario.model import LoadPart

_EVENTS = ("program.", "pk.")
_RETRY_S = 0.2
_LOOK_S = 0.1
_TIMEOUT_S = 1.0
_READ_S = 3.0
_COUNTDOWN_S = 2.0
_STARTS_S = 20.0


class Rooms:
    """Probes of the rooms of a drill, in threads of their own, from `start` to `stop`. Without program and PK: none."""

    def __init__(self, cluster: Cluster, load: Load, wanted: LoadPart, record: Recorder) -> None:
        self._cluster, self._load, self._wanted, self._record = cluster, load, wanted, record
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._shown: dict[str, bool] = {}

    def start(self) -> None:
        """Begin to follow and to look."""
        if self._wanted.program or self._wanted.pk:
            for room in self._load.rooms:
                self._spawn(self._follow, room)
        if self._wanted.pk:
            for relay in self._cluster.relays:
                self._spawn(self._look, relay.name)

    def stop(self) -> None:
        """End all threads; each notices within its time-out."""
        self._over.set()
        for thread in self._threads:
            thread.join(_READ_S + 1)

    def begin_pk(self) -> None:
        """Have the first room invite the second one, which accepts; no wait. Raises FabricError with the problem."""
        red, blue = self._load.rooms
        body = {"room": blue, "duration_s": self._wanted.pk_lasts, "countdown_s": _COUNTDOWN_S}
        pk = self._cluster.ask("POST", f"/v1/rooms/{red}/pk", body)
        self._cluster.ask("POST", f"/v1/rooms/{blue}/pk/{pk['id']}/accept")

    def wait_until_shown(self, wait: Callable[[float], None]) -> None:
        """Until every viewer's session shows both stages. Raises FabricError, naming those that do not."""
        deadline = time.monotonic() + _COUNTDOWN_S + _STARTS_S
        while not all(self._shown.get(viewer) for viewer in self._load.room_of):
            if time.monotonic() > deadline:
                missing = [viewer for viewer in self._load.room_of if not self._shown.get(viewer)]
                raise FabricError(f"the PK is not shown to {', '.join(missing[:6])}")
            wait(_LOOK_S)

    def _spawn(self, run: Callable[[str], None], name: str) -> None:
        thread = threading.Thread(target=run, args=(name,), daemon=True, name=f"{run.__name__} {name}")
        thread.start()
        self._threads.append(thread)

    def _follow(self, room: str) -> None:
        """A room's stream from now on; when it breaks it is resumed where it was, so that no event is missed."""
        position = ""
        with self._cluster.api(timeout=_READ_S) as api:
            while not self._over.wait(_RETRY_S):
                try:
                    position = position or str(api.get(f"/v1/rooms/{room}").json()["sync_id"])
                    headers = {"Last-Event-ID": position}
                    with api.stream("GET", f"/v1/rooms/{room}/events", headers=headers) as response:
                        for line in response.iter_lines():
                            if line.startswith("id: "):
                                position = line.removeprefix("id: ").strip()
                            elif line.startswith("data: "):
                                self._told(room, json.loads(line.removeprefix("data: ")))
                            if self._over.is_set():
                                return
                except (httpx2.HTTPError, ValueError, KeyError):
                    continue

    def _told(self, room: str, event: Mapping[str, Any]) -> None:
        if str(event.get("type")).startswith(_EVENTS):
            self._record.write("room", room=room, type=event["type"], data=event["data"])

    def _look(self, relay: str) -> None:
        """What each session on a relay shows of the other room, a few times a second."""
        with self._cluster.api(relay, timeout=_TIMEOUT_S) as api:
            while not self._over.wait(_LOOK_S):
                for viewer, session in dict(self._load.sessions).items():
                    if session.split("~")[0] == relay:
                        shows = self._shows(api, viewer, session)
                        if shows is not None:
                            self._shown[viewer] = shows
                        self._record.write("pk", room=self._load.room_of[viewer], viewer=viewer, shows=shows)

    def _shows(self, api: httpx2.Client, viewer: str, session: str) -> bool | None:
        """Whether a viewer is shown a host of the other room; None when nobody says."""
        try:
            answer = api.get(f"/v1/sessions/{session}")
        except httpx2.HTTPError:
            return None
        if not answer.is_success:
            return None
        (other,) = set(self._load.rooms) - {self._load.room_of[viewer]}
        return any((slot.get("identity") or "").startswith(f"{other}/") for slot in answer.json()["slots"])

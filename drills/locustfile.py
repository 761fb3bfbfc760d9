"""Load on the REST API with Locust: tokens, rooms, participants, stage, events. No media.

    COSTREAM_SECRET=… locust -f drills/locustfile.py --host http://127.0.0.1:7080 --headless -u 50 -r 10 -t 60s

Without COSTREAM_SECRET it signs with the known key of `costream dev`. A target that is neither this machine nor
labelled (COSTREAM_LABEL=FILE, see docs/load.md) is refused, unless COSTREAM_SURE=1. Each user has a room of its own,
with `traffic: load` in its metadata, and ends it when he stops. Answers that are no success count as failures; 429, the
API's word that it has enough, by its own name.
"""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import os
import random
import secrets
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task
from locust.exception import StopUser

from drills.cluster.tokens import sign
from drills.load.guard import NoTestCluster, require_test_cluster
from relay.settings import DEV_KEY_ID, DEV_SECRET

KEY_ID = os.environ.get("COSTREAM_KEY_ID", DEV_KEY_ID)
SECRET = os.environ.get("COSTREAM_SECRET", DEV_SECRET)


@events.test_start.add_listener
def only_test_clusters(environment: Any, **_: Any) -> None:
    """Stop before the first request to a target that is no test cluster."""
    label = os.environ.get("COSTREAM_LABEL")
    sure = os.environ.get("COSTREAM_SURE") == "1"
    try:
        require_test_cluster([environment.host or ""], Path(label) if label else None, sure=sure)
    except NoTestCluster as error:
        print(f"locust: {error}")
        environment.process_exit_code = 2
        environment.runner.quit()
        raise SystemExit(2) from None


class Backend(HttpUser):  # type: ignore[misc]
    """An application's backend with one show: it mints tokens, asks who is there, sends events, changes the stage."""

    wait_time = between(0.05, 0.5)

    def on_start(self) -> None:
        """Make the show."""
        self.dice = random.Random()
        self.room = f"locust-{secrets.token_hex(6)}"
        self.bearer = sign(KEY_ID, SECRET, room="*", identity="locust", role="service")
        self.client.verify = False
        self.client.headers["Authorization"] = f"Bearer {self.bearer}"
        body = {"id": self.room, "max_seats": 4, "metadata": {"traffic": "load"}}
        if not self._call("POST", "/v1/rooms", 201, json=body):
            raise StopUser

    def on_stop(self) -> None:
        """End it."""
        self._call("DELETE", f"/v1/rooms/{self.room}", 204, name="/v1/rooms/{room}")

    @task(6)
    def read_room(self) -> None:
        self._in_room("GET", "", 200)

    @task(4)
    def mint_token(self) -> None:
        identity = f"guest-{self.dice.randrange(1000)}"
        self._call("POST", "/v1/tokens", 201, json={"room": self.room, "identity": identity, "role": "viewer"})

    @task(4)
    def send_event(self) -> None:
        self._in_room("POST", "/events", 202, json={"type": "app.cheer", "data": {"n": self.dice.randrange(100)}})

    @task(3)
    def read_stage(self) -> None:
        self._in_room("GET", "/stage", 200)

    @task(2)
    def read_people(self) -> None:
        self._in_room("GET", "/participants", 200)

    @task(2)
    def invite(self) -> None:
        self._in_room("POST", "/stage/invitations", 201, json={"identity": f"guest-{self.dice.randrange(40)}"})

    @task(1)
    def read_sessions(self) -> None:
        self._in_room("GET", "/sessions", 200)

    @task(1)
    def read_publications(self) -> None:
        self._in_room("GET", "/publications", 200)

    def _in_room(self, method: str, path: str, wanted: int, **more: Any) -> bool:
        return self._call(method, f"/v1/rooms/{self.room}{path}", wanted, name=f"/v1/rooms/{{room}}{path}", **more)

    def _call(self, method: str, path: str, wanted: int, name: str = "", **more: Any) -> bool:
        """Returns whether it was answered as wanted."""
        with self.client.request(method, path, name=name or path, catch_response=True, **more) as answer:
            if answer.status_code == wanted:
                answer.success()
                return True
            reason = "429: enough" if answer.status_code == 429 else f"{answer.status_code}: {answer.text[:200]}"
            answer.failure(reason)
            return False

"""Load on the REST API with Locust: tokens, rooms, participants, stage, events, programs. No media.

    COSTREAM_SECRET=… locust -f drills/locustfile.py --host http://127.0.0.1:7080 --headless -u 50 -r 10 -t 60s

Without COSTREAM_SECRET it signs with the known key of `costream dev`. A target that is neither this machine nor
labelled (COSTREAM_LABEL=FILE, see docs/load.md) is refused, unless COSTREAM_SURE=1. Each user has a room of its own,
with `traffic: load` in its metadata, and ends it when he stops. Nobody is on air in it, so a program is switched on and
arranged in its document, and no relay mixes it. Answers that are no success count as failures; 429, the
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


LAYOUTS: tuple[dict[str, Any], ...] = (
    {"kind": "grid"},
    {"kind": "speaker", "order": ["guest-1"]},
    {"kind": "side_by_side", "left": ["guest-1"], "right": ["guest-2"], "fit": "crop"},
    {"kind": "picture_in_picture", "order": ["guest-2", "guest-1"]},
    {"kind": "custom", "rectangles": [{"identity": "guest-1", "x": 0, "y": 0, "width": 0.5, "height": 1}]},
)
"""One of each kind."""


class Backend(HttpUser):  # type: ignore[misc]
    """An application's backend with one show: it mints tokens, asks who is there, sends events, changes the stage, and
    arranges the program."""

    wait_time = between(0.05, 0.5)

    def on_start(self) -> None:
        """Make the show. Its program is tried once from on to off, then switched on."""
        self.dice = random.Random()
        self.has_program = False
        self.room = f"locust-{secrets.token_hex(6)}"
        self.bearer = sign(KEY_ID, SECRET, room="*", identity="locust", role="service")
        self.client.verify = False
        self.client.headers["Authorization"] = f"Bearer {self.bearer}"
        body = {"id": self.room, "max_seats": 4, "metadata": {"traffic": "load"}}
        if not self._call("POST", "/v1/rooms", 201, json=body):
            raise StopUser
        self.put_program()
        self.arrange_program()
        self.read_program()
        self.delete_program()
        self.put_program()

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

    @task(1)
    def put_program(self) -> None:
        """Switch it on, or change it while it runs."""
        form = {"width": 640, "height": 360, "fps": self.dice.choice((15, 25, 30)), "layout": self.dice.choice(LAYOUTS)}
        self.has_program |= self._in_room("PUT", "/program", 200, json=form)

    @task(3)
    def arrange_program(self) -> None:
        """Another layout; whoever has no program is told so."""
        body = {"layout": self.dice.choice(LAYOUTS), "animate": self.dice.choice((0, 12))}
        self._in_room("POST", "/program/layout", 200 if self.has_program else 404, json=body)

    @task(2)
    def read_program(self) -> None:
        self._in_room("GET", "/program", 200 if self.has_program else 404)

    @task(1)
    def delete_program(self) -> None:
        """Switch it off."""
        if self._in_room("DELETE", "/program", 204 if self.has_program else 404):
            self.has_program = False

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

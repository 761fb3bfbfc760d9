"""A service that gets webhooks: a real HTTP server that verifies what it gets and answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

Answer = tuple[int, dict[str, str]]


@dataclass
class Got:
    """One request. `verified` by any of the secrets."""

    path: str
    headers: dict[str, str]
    body: bytes
    verified: bool
    event: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """`answers` is asked for each request; `hold` set makes requests wait until it is cleared."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.got: list[Got] = []
        self.answers: Callable[[Got], Answer] = lambda got: (204, {})
        self.released = threading.Event()
        self.released.set()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        """On the same port as before, once it had one."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = receiver.take(self.path, dict(self.headers.items()), body)
                try:
                    self.send_response(status)
                    for name, value in {"Content-Length": "0", **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Repeatable."""
        self.released.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        got = Got(path, {name.lower(): value for name, value in headers.items()}, body, False)
        got.verified = any(self._verifies(secret, got) for secret in self.secrets)
        got.event = json.loads(body)
        self.got.append(got)
        self.released.wait(30)
        return self.answers(got)

    def ids(self) -> list[str]:
        return [each.id for each in self.got]

    def types(self) -> list[str]:
        """Without the prefix, each message once, in the order of their coming."""
        found = {each.id: each.event["type"].removeprefix("dev.costream.") for each in self.got}
        return list(found.values())

    @staticmethod
    def _verifies(secret: str, got: Got) -> bool:
        try:
            Webhook(secret).verify(got.body, got.headers)
        except WebhookVerificationError:
            return False
        return True

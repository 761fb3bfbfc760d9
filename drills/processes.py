"""Processes of a drill: they write to a file, can be killed, stopped and resumed, and die with their owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from drills.ownership import MARK

# Runs between fork and exec. PR_SET_PDEATHSIG (1): the kernel kills the process when the owner is gone, however that
# went; a `preexec_fn` would run Python after a fork of a process with threads. The second look is for an early death.
_TRAMPOLINE = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class Process:
    """One command. Start it from the main thread: its life hangs on the thread that started it.

    It is a session of its own, so that a terminal's Ctrl-C does not reach it and its children can be ended with it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        tag: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """`log` takes what it writes, at the end; `env` is the whole environment (ours by default)."""
        self.name, self.argv, self.log = name, tuple(argv), log
        environment = {**(os.environ if env is None else env), MARK: tag}
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Also while it is paused."""
        return self._popen.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it alone; nothing happens if it has ended."""
        self._popen.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: it is there but does nothing, as a node whose machine hangs."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        return self._popen.wait(seconds)

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, and SIGKILL if that does not end it in time; returns its exit code."""
        if self.is_running:
            self.resume()  # what is paused cannot end
            self.signal(signal.SIGTERM)
            try:
                self.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        return self.kill()

    def kill(self) -> int:
        """SIGKILL, to what it has started as well; returns its exit code."""
        running = self.is_running
        try:
            # While it has not been waited for, its group cannot be somebody else's.
            if running:
                os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._popen.kill()
        return self._popen.wait()

    def tail(self, size: int = 3000) -> str:
        """The end of what it wrote."""
        try:
            return self.log.read_bytes()[-size:].decode(errors="replace")
        except FileNotFoundError:
            return ""

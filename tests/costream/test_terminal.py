"""A node in a terminal, as developers have it: a real one (pty(7)), also with `stty tostop`."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tests.interop.relays import free_ports

PATIENCE_S = 60.0


class Terminal:
    """A process whose controlling terminal we hold."""

    def __init__(self, pid: int, end: int) -> None:
        self.pid, self.end, self.printed = pid, end, b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.printed:
            assert time.monotonic() < deadline, self.printed.decode(errors="replace")
            assert self._read(), f"it ended: {self.printed.decode(errors='replace')}"

    def code(self) -> int:
        """Read until it ends."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if not self._read():
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        raise TimeoutError(self.printed.decode(errors="replace"))

    def _read(self) -> bool:
        if select.select([self.end], [], [], 0.1)[0]:
            try:
                self.printed += os.read(self.end, 65536)
            except OSError:  # EIO: nobody holds the terminal any more
                return False
        return True


@contextlib.contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    pid, end = pty.fork()
    if pid == 0:
        mode = termios.tcgetattr(0)
        mode[3] |= termios.TOSTOP
        termios.tcsetattr(0, termios.TCSANOW, mode)
        os.execv(sys.executable, [sys.executable, "-m", "costream.cli", *words])
    try:
        yield Terminal(pid, end)
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(end)


def children(pid: int) -> set[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return set(map(int, file.read().split()))


@pytest.mark.timeout(150)
def test_ctrl_c_ends_a_node_and_its_workers_in_good_order() -> None:
    port, plain = free_ports()
    with terminal("dev", "--port", str(port), "--http-port", str(plain)) as node:
        node.until(b"Ctrl-C ends it")
        found = children(node.pid)
        assert found, "a node has its store beside it, at least"
        os.write(node.end, b"\x03")
        assert node.code() == 0, node.printed.decode(errors="replace")
    assert b"Traceback" not in node.printed
    assert not [pid for pid in found if os.path.exists(f"/proc/{pid}")]

"""A worker process as the relay sees it: spawned with descriptors, spoken to, watched, ended and reaped.

It is `python -m MODULE ARGUMENTS… CONTROL PARENT`: the last two are the descriptor of its end of the control socket and
the process id of its parent (`relay.process.worker` is the other side). A worker ends when its control socket does, and
is killed when the relay's process dies, when it says nonsense, and when it does not read what it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic

import relay
from relay.errors import UsageError
from relay.process.control import M, Message, Wire
from relay.process.stream import ControlStream

STOP_S = 3.0


class Child(Generic[M]):
    """A running worker. `on_end` is called once, in the loop, when the process has ended and was reaped: with why."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        fds: Sequence[int],
        wire: Wire[M],
        on_message: Callable[[M], None],
        on_end: Callable[[str], None],
    ) -> None:
        """Spawn it; `fds` keep their numbers there, and stay the caller's here. Raises OSError when it cannot be."""
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._why = ""
        self._ended = asyncio.Event()
        control, theirs = socket.socketpair()
        try:
            words = [sys.executable, "-m", module, *arguments, str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(
                words,
                pass_fds=(*fds, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                # A terminal's Ctrl-C is for us. Not a session: the kernel may share cores out by session
                # (sched_autogroup), and whoever sleeps much then starves beside who never does.
                process_group=0,
                env=os.environ | {"PYTHONPATH": _python_path()},
            )
        except BaseException:
            control.close()
            raise
        finally:
            theirs.close()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._control = ControlStream(control, wire, on_message, self.kill)
        self._loop.add_reader(self._pidfd, self._exited)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def send(self, message: Message) -> None:
        """Tell the worker. Never waits; what is told to one that is ending is lost."""
        if self._why or self.ended:
            return
        self._control.send(message)

    def kill(self, why: str) -> None:
        """End it at once; `on_end` gets `why`. Repeatable."""
        self._why = self._why or why
        if not self.ended:
            self._process.kill()

    async def stop(self) -> None:
        """Close its control socket, give it `STOP_S` to end in good order, then kill it. Returns when it is reaped."""
        self._why = self._why or "stopped"
        self._control.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._ended.wait()
        self.kill("stopped")
        await self._ended.wait()

    def _exited(self) -> None:
        code = self._process.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._control.close()
        self._ended.set()
        self._on_end(self._why or f"it ended with {code}")


class Restarts:
    """How long to wait before the next start of something that keeps dying. Pure: time in seconds comes in.

    The first death costs nothing; each more within `quiet_s` of life doubles the wait, up to `most_s`.
    """

    def __init__(self, first_s: float = 0.1, most_s: float = 5.0, quiet_s: float = 10.0) -> None:
        if not 0 < first_s <= most_s:
            raise UsageError("the first wait has to be above 0 and at most the longest")
        self._first_s, self._most_s, self._quiet_s = first_s, most_s, quiet_s
        self._wait_s = 0.0

    def died(self, lived_s: float) -> float:
        """Return the seconds to wait before the next start."""
        if lived_s >= self._quiet_s:
            self._wait_s = 0.0
        wait = self._wait_s
        self._wait_s = min(max(2 * wait, self._first_s), self._most_s)
        return wait


def _python_path() -> str:
    """The worker imports the same tree, also when this one runs from a checkout elsewhere."""
    tree = str(Path(relay.__file__).parents[1])
    return os.pathsep.join([tree, *filter(None, [os.environ.get("PYTHONPATH")])])

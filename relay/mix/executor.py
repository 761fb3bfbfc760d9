"""Where the workers of a mix run: on this machine, as processes. Others of a cluster: `relay.workers.executor`.

A worker is a module that runs until it is told to end or until whoever started it is gone. It is handed descriptors of
shared memory for its packets; for one elsewhere a process of this machine takes them in its place and is a link's peer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relay.process.child import Child
from relay.process.control import Message, Wire


@dataclass(frozen=True, slots=True)
class Body:
    """What to run: `python -m module arguments…`. `fds` stay open there under their numbers; they need this machine."""

    module: str
    arguments: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


class Running(Protocol):
    """A worker that was started."""

    @property
    def where(self) -> str:
        """The place it runs at, for people: `local:4711`."""
        ...

    @property
    def ended(self) -> bool: ...

    def send(self, message: Message) -> None:
        """Tell it. Never waits; what is told to one that is ending is lost."""
        ...

    def kill(self, why: str) -> None:
        """End it at once. Repeatable."""
        ...

    async def stop(self) -> None:
        """End it in good order, within seconds. Repeatable."""
        ...


OnMessage = Callable[[Message], None]
OnEnd = Callable[[str], None]


class Executor(Protocol):
    """Starts workers. Whether one is alive shows by `on_end`, whether it does its work by what it says and writes."""

    start_s: float
    """One that has not begun its work by then hangs."""
    keeps: int
    """So many workers without work are kept for the next program, however few shall wait."""

    def start(self, body: Body, wire: Wire[Message], on_message: OnMessage, on_end: OnEnd) -> Running:
        """Start one. `on_end` is called once, in the loop, with why it ended. Raises OSError when it cannot be."""
        ...


class LocalProcess:
    """A child process of the relay. It dies with it."""

    def __init__(self, child: Child[Message]) -> None:
        self._child = child
        self.where = f"local:{child.pid}"

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def ended(self) -> bool:
        return self._child.ended

    def send(self, message: Message) -> None:
        self._child.send(message)

    def kill(self, why: str) -> None:
        self._child.kill(why)

    async def stop(self) -> None:
        await self._child.stop()


class LocalProcesses:
    """The default executor."""

    start_s = 20.0
    keeps = 1

    def start(self, body: Body, wire: Wire[Message], on_message: OnMessage, on_end: OnEnd) -> LocalProcess:
        return LocalProcess(Child(body.module, body.arguments, body.fds, wire, on_message, on_end))

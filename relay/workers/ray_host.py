"""Ray's part: it finds a machine for a worker's host, starts it there and carries words. Ray is imported when used.

Ray's driver is the stand-in's process: what Ray does to a process that has lost its cluster (it may end it) costs one
worker. The actor goes with the driver.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from relay.errors import PeerError
from relay.workers.host import WorkerHost
from relay.workers.words import Begin, Heard, Prepared

if TYPE_CHECKING:
    from ray.actor import ActorHandle

T = TypeVar("T")

LOOK_S = 3.0


class HostActor(WorkerHost):
    """What Ray runs: its machine's address and this process make it a host."""

    def __init__(self) -> None:
        import ray

        super().__init__(ray.util.get_node_ip_address(), os.getpid())


class RayHost:
    """See `relay.workers.words.Host`. Made by `ask_host`."""

    def __init__(self, actor: ActorHandle[Any]) -> None:
        self._actor = actor

    async def prepare(self) -> Prepared:
        return await _answer(self._actor.prepare.remote())

    async def begin(self, begin: Begin) -> int:
        return await _answer(self._actor.begin.remote(begin))

    async def clock(self) -> int:
        return await _answer(self._actor.clock.remote())

    async def tell(self, data: bytes) -> None:
        await _answer(self._actor.tell.remote(data))

    async def hear(self) -> Heard:
        return await _answer(self._actor.hear.remote())

    async def stop(self) -> None:
        await _answer(self._actor.stop.remote())


def join(address: str) -> None:
    """Join a cluster, in the main thread. Raises PeerError when that cannot be."""
    import ray

    _look(address)
    try:
        ray.init(address=address, namespace="costream", log_to_driver=False, configure_logging=False)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise PeerError(f"no Ray cluster at {address}: {error}") from None


def _look(address: str) -> None:
    """Ray itself asks for minutes before it says that nobody is there."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), LOOK_S).close()
    except (OSError, OverflowError) as error:
        raise PeerError(f"no Ray cluster at {address}: {error}") from None


def ask_host(cpus: float) -> tuple[RayHost, str]:
    """Ask the cluster for a host; returns at once, it is placed when there is room. The text is this machine's address
    as the cluster knows it."""
    import ray

    made = ray.remote(num_cpus=cpus, max_restarts=0)(HostActor)
    return RayHost(made.remote()), str(ray.util.get_node_ip_address())


async def _answer(asked: Awaitable[T]) -> T:
    import ray

    try:
        return await asked
    except ray.exceptions.RayError as error:
        raise PeerError(f"Ray: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """Ray's errors come with a traceback; the last line of that says what it was."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if type(error).__name__.startswith("RayTaskError") else " ".join(map(str.strip, lines))
    return f"{type(error).__name__}: {text}"[:300] if lines else type(error).__name__

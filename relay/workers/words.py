"""What is said around a worker on another machine: its stand-in tells the relay, and asks the host that runs it.

The stand-in is a process on the relay's machine, the host a process next to the worker. Their talk is control alone;
packets go by links.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, Protocol

from relay.process.control import Message

NEAR, FAR = "stand-in", "worker"
"""What both are called in their certificates, which an authority of this one pair has signed."""


@dataclass(frozen=True, slots=True)
class Placed(Message):
    """A stand-in's worker runs at this place."""

    where: str


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """There is no worker, or not any more. The stand-in ends."""

    why: str


class Prepared(NamedTuple):
    """A host is there. `address` is where others reach its machine, `public_key` (PEM) what it will prove itself by."""

    release: str
    address: str
    pid: int
    public_key: bytes


class Begin(NamedTuple):
    """What a host needs to start its worker and the links. Certificates in PEM; `stand_in` is where to dial."""

    certificate: bytes
    authority: bytes
    stand_in: tuple[str, int]
    shape: str
    font: str
    report_s: float


class Heard(NamedTuple):
    """What a worker said since the last time, as `relay.process.control` frames it. `still` is how long ago (µs) it
    last gave a sign of life; `ended` why it is gone, empty while it is not."""

    data: bytes
    still: int
    ended: str


class Host(Protocol):
    """The host of a worker, as its stand-in calls it. All raise PeerError when it is gone."""

    async def prepare(self) -> Prepared: ...

    async def begin(self, begin: Begin) -> int:
        """Start. Returns the port at which the worker's packets may be subscribed to."""
        ...

    async def clock(self) -> int:
        """Return its monotonic microseconds."""
        ...

    async def tell(self, data: bytes) -> None:
        """Tell the worker, in the order of the calls."""
        ...

    async def hear(self) -> Heard:
        """Wait for the worker's words, at most `Begin.report_s`."""
        ...

    async def stop(self) -> None:
        """End the worker and the links. Repeatable."""
        ...


def release() -> str:
    """Return which release this process runs: both ends have to be of the same one."""
    try:
        return version("costream")
    except PackageNotFoundError:
        return "from a directory"

"""How the audio pool reaches the packet plane: where an input's packets come from, where a mix's go to.

A process that replaces another one has rings of its own, so the pool opens every source and sink again; each keeps no
more than the plane needs for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

from relay.errors import UsageError
from relay.plane.contract import AddTap, Command, RemoveTap
from relay.plane.rings import InjectRing, OnGone, TapRing


class RingPlane(Protocol):
    """The part of `relay.plane.Plane` that the pool needs."""

    def open_tap_ring(self, *, slots: int = ..., slot_size: int = ..., on_gone: OnGone | None = None) -> TapRing: ...

    def open_inject_ring(
        self, *, slots: int = ..., slot_size: int = ..., on_gone: OnGone | None = None
    ) -> InjectRing: ...


class Source(Protocol):
    """A publication's packets."""

    def open(self, ring: TapRing) -> int:
        """Have them go to this ring from now on; return their stream number there."""
        ...

    def close(self) -> None:
        """No more of them. The ring may be gone already."""
        ...


class Sink(Protocol):
    """Where a mix goes."""

    def open(self, ring: InjectRing, stream: int) -> None:
        """Take the packets of `stream` of this ring from now on."""
        ...

    def close(self) -> None:
        """No more of them. The ring may be gone already."""
        ...


class TrackSource:
    """A layer of a plane's track. `number` gives a tap handle that was never used."""

    def __init__(
        self, submit: Callable[[Command], None], number: Callable[[], int], track: int, layer: int = 0
    ) -> None:
        self._submit, self._number, self._track, self._layer = submit, number, track, layer
        self._tap: int | None = None

    def open(self, ring: TapRing) -> int:
        self._tap = tap = self._number()
        self._submit(AddTap(tap, self._track, self._layer, ring=ring.number, canonical=True))
        return tap

    def close(self) -> None:
        if self._tap is not None:
            with contextlib.suppress(UsageError):  # it went with its ring or its track
                self._submit(RemoveTap(self._tap))
            self._tap = None


class TrackSink:
    """A layer of a plane's track without session."""

    def __init__(self, track: int, layer: int = 0) -> None:
        self._track, self._layer = track, layer
        self._bound: tuple[InjectRing, int] | None = None

    def open(self, ring: InjectRing, stream: int) -> None:
        ring.bind(stream, self._track, self._layer)
        self._bound = ring, stream

    def close(self) -> None:
        if self._bound is not None:
            ring, stream = self._bound
            if not ring.closed:
                ring.unbind(stream)
            self._bound = None

"""A feed from the plane of this node: taps of some tracks' layers, in a ring of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.egress.source import Stream
from relay.plane.contract import AddTap, Command, RequestKeyframe
from relay.plane.rings import Gone, OnGone, TapRing


class TapPlane(Protocol):
    """What of a plane is needed here."""

    def submit(self, *commands: Command) -> None: ...

    def open_tap_ring(self, *, on_gone: OnGone | None = None) -> TapRing: ...


@dataclass(frozen=True, slots=True)
class Tapped:
    """A layer of a track. `stream.number` becomes the tap's handle: one that no other tap of the plane has."""

    stream: Stream
    track: int
    layer: int


class PlaneFeed:
    """`relay.egress.feed.Feed` on a plane. Its owner calls `end` when a track goes. Raises Overloaded, UsageError when
    the plane has no such track."""

    def __init__(self, plane: TapPlane, layers: Sequence[Tapped], on_end: Callable[[], None]) -> None:
        self._plane, self._layers, self._on_end = plane, tuple(layers), on_end
        self._closed = False
        self._ring = plane.open_tap_ring(on_gone=self._gone)
        try:
            plane.submit(*(AddTap(each.stream.number, each.track, each.layer, self._ring.number) for each in layers))
        except BaseException:
            self._ring.close()
            raise

    @property
    def fds(self) -> tuple[int, ...]:
        return self._ring.fds

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(each.stream for each in self._layers)

    def passed(self) -> None:
        self._ring.passed()

    def request_keyframe(self, stream: int) -> None:
        if not self._closed:
            found = (each for each in self._layers if each.stream.number == stream)
            self._plane.submit(*(RequestKeyframe(each.track, each.layer) for each in found))

    def end(self) -> None:
        """A track is gone, and so is the source. Repeatable."""
        if not self._closed:
            self.close()
            self._on_end()

    def close(self) -> None:
        """The ring takes its taps along."""
        self._closed = True
        self._ring.close()

    def _gone(self, why: Gone) -> None:
        """The process died, or wrote what cannot be; its supervisor sees that for itself, but not the second."""
        if why == "corrupt":
            self.end()

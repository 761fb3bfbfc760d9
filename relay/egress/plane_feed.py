"""A feed from the plane of this node: taps of some tracks' layers, in a ring of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from relay.egress.feed import Tell
from relay.egress.messages import Follow
from relay.egress.source import Stream
from relay.plane.contract import AddTap, Command, RemoveTap, RequestKeyframe
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
    """`relay.egress.feed.Feed` on a plane. Its owner calls `end` when a track goes, and `go_on_with` to take another
    layer of one. Raises Overloaded, UsageError when the plane has no such track."""

    def __init__(self, plane: TapPlane, layers: Sequence[Tapped], on_end: Callable[[], None]) -> None:
        self._plane, self._on_end = plane, on_end
        self._layers = {each.stream.number: each for each in layers}
        """All that is tapped, by the stream's number."""
        self._taken = {each.track: each for each in layers}
        """What the process takes, by track."""
        self._wanted = dict(self._taken)
        """What it was told to take."""
        self._tell: Tell | None = None
        self._closed = False
        self._ring = plane.open_tap_ring(on_gone=self._gone)
        try:
            plane.submit(*map(self._tap, layers))
        except BaseException:
            self._ring.close()
            raise

    @property
    def fds(self) -> tuple[int, ...]:
        return self._ring.fds

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(each.stream for each in self._taken.values())

    def passed(self) -> None:
        self._ring.passed()

    def watch(self, tell: Tell) -> None:
        """See `Feed.watch`."""
        self._tell = tell

    def go_on_with(self, track: int, layer: int, next_number: Callable[[], int]) -> None:
        """Tap another layer of a track, too, and have the process go on with it; the one before goes when it has.
        Nothing happens before the process is there. Raises as the constructor does."""
        if self._closed or self._tell is None:
            return
        there = [each for each in self._layers.values() if (each.track, each.layer) == (track, layer)]
        if there:
            wanted = there[0]
        else:
            stream = replace(self._taken[track].stream, number=next_number())
            wanted = Tapped(stream, track, layer)
            self._plane.submit(self._tap(wanted))
            self._layers[stream.number] = wanted
        self._wanted[track] = wanted
        self._prune(track)
        self._tell(Follow(wanted.stream))

    def wanted_layer(self, track: int) -> int:
        """The layer of a track that the process takes, or was told to go on with."""
        return self._wanted[track].layer

    def switched(self, stream: int) -> None:
        """See `Feed.switched`."""
        found = self._layers.get(stream)
        if found is not None and not self._closed:
            self._taken[found.track] = found
            self._prune(found.track)

    def request_keyframe(self, stream: int) -> None:
        if not self._closed and (found := self._layers.get(stream)) is not None:
            self._plane.submit(RequestKeyframe(found.track, found.layer))

    def end(self) -> None:
        """A track is gone, and so is the source. Repeatable."""
        if not self._closed:
            self.close()
            self._on_end()

    def close(self) -> None:
        """The ring takes its taps along."""
        self._closed = True
        self._ring.close()

    def _tap(self, layer: Tapped) -> AddTap:
        # Canonical, so that capture times are found.
        return AddTap(layer.stream.number, layer.track, layer.layer, self._ring.number, canonical=True)

    def _prune(self, track: int) -> None:
        """Of a track, tap only what is taken or wanted."""
        kept = (self._taken[track], self._wanted[track])
        for each in [each for each in self._layers.values() if each.track == track and each not in kept]:
            del self._layers[each.stream.number]
            self._plane.submit(RemoveTap(each.stream.number))

    def _gone(self, why: Gone) -> None:
        """The process died, or wrote what cannot be; its supervisor sees that for itself, but not the second."""
        if why == "corrupt":
            self.end()

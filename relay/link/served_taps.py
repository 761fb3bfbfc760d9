"""The layers that a node taps for its links: each is tapped and marked once, however many links carry it.

It has the same flow number on every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.ids import HybridClock
from relay.link import flows, varint
from relay.link import messages as m
from relay.link.hooks import LayerSource, OriginHooks
from relay.link.marking import Marker
from relay.link.served_link import ServedLink


@dataclass(slots=True)
class _Tap:
    """A layer that at least one link carries."""

    flow: int
    publication: str
    layer: int
    source: LayerSource
    marker: Marker
    prefix: bytes
    links: set[ServedLink] = field(default_factory=set)


class ServedTaps:
    """All taps of a node. Links have to `leave` before they are forgotten."""

    def __init__(self, hooks: OriginHooks, clock: HybridClock) -> None:
        self.unknown_flow = 0
        self._hooks = hooks
        self._clock = clock
        self._taps: dict[tuple[str, int], _Tap] = {}
        self._by_flow: dict[int, _Tap] = {}
        self._next_flow = flows.FIRST

    def join(self, link: ServedLink, publication: str, layer: int) -> bool:
        """Let a link carry a layer. False when the node has none such."""
        key = (publication, layer)
        tap = self._taps.get(key)
        if tap is None:
            flow = self._next_flow
            source = self._hooks.tap(flow, *key)
            if source is None:
                return False
            self._next_flow += flows.STEP
            marker = Marker(self._clock, source.clock_hz, source.extensions, source.timeline)
            tap = _Tap(flow, publication, layer, source, marker, varint.encode(flow))
            self._taps[key] = self._by_flow[flow] = tap
        link.sender.open_flow(tap.flow, tap.source.spec)
        link.flows[key] = tap.flow
        tap.links.add(link)
        return True

    def leave(self, link: ServedLink, publication: str, layer: int) -> None:
        """Let a link carry a layer no more. The last one ends the tap."""
        tap = self._taps[publication, layer]
        link.sender.close_flow(tap.flow)
        link.flows.pop((publication, layer), None)
        tap.links.discard(link)
        if not tap.links:
            del self._taps[publication, layer]
            del self._by_flow[tap.flow]
            self._hooks.untap(tap.flow)

    def leave_all(self, link: ServedLink) -> None:
        """A link is over."""
        for key in tuple(link.flows):
            self.leave(link, *key)

    def drop(self, publication: str) -> None:
        """Nobody may have a publication from here any more."""
        for tap in [tap for tap in self._taps.values() if tap.publication == publication]:
            for link in tuple(tap.links):
                self.leave(link, publication, tap.layer)

    def feed(self, packets: Iterable[tuple[int, bytes]], now: int, wall: int) -> set[ServedLink]:
        """Mark tapped packets and push them; returns the links that got any. `wall` is in microseconds, too."""
        touched: set[ServedLink] = set()
        for flow, packet in packets:
            tap = self._by_flow.get(flow)
            if tap is None:
                self.unknown_flow += 1
                continue
            marked = tap.marker.mark(packet, wall)
            if marked is None:
                continue
            datagram = tap.prefix + marked.data
            for link in tap.links:
                link.sender.push(flow, marked, datagram, now)
            touched |= tap.links
        return touched

    def change_source(self, flow: int, source: LayerSource) -> None:
        """See `LinkServer.change_source`."""
        tap = self._by_flow.get(flow)
        if tap is not None:
            tap.source = source
            tap.marker.use_extensions(source.extensions)

    def request_keyframe(self, flow: int) -> None:
        """Ask for a keyframe of a tapped layer."""
        tap = self._by_flow.get(flow)
        if tap is not None:
            self._hooks.request_keyframe(tap.publication, tap.layer)

    def anchored(self, publication: m.Publication) -> m.Publication:
        """Return a catalog's entry with the anchors of the layers that are tapped."""
        layers = []
        for index, layer in enumerate(publication.layers):
            tap = self._taps.get((publication.id, index))
            anchor = tap.marker.frames.anchor if tap else None
            layers.append(layer.model_copy(update={"anchor": anchor}) if anchor else layer)
        return publication.model_copy(update={"layers": tuple(layers)})

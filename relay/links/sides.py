"""What the links in their own process ask of the node, and tell it: `OriginHooks` and `SubscriberHooks` by messages.

No question waits for an answer. What the origin's side has to know at once stands in the catalog that it was given;
who may offer what is decided by the relay, which says it afterwards (`Fence`), and until then subscribes to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from struct import Struct
from typing import Any, TypeVar

import structlog

from relay.clock import now_us
from relay.errors import UsageError
from relay.link.hooks import LayerSource, LinkEvent, LinkMoved
from relay.link.marking import read_sync_id
from relay.link.messages import Publication
from relay.links import messages as m
from relay.links.readings import LedTimeline, ToldLine
from relay.links.sources import source_of
from relay.plane.contract import Kind
from relay.plane.shared_ring import RingWriter
from relay.ports import RoomEvent
from relay.process.control import Message
from relay.stage.timeline import Reading

T = TypeVar("T")
Tell = Callable[[Message], None]
_TIMESTAMP_SSRC = Struct("!II")
log = structlog.get_logger(__name__)


class OriginSide:
    """See `OriginHooks`. `catalog` is what the relay offers; `flow_of` maps the tap ring's streams to flows."""

    def __init__(self, tell: Tell) -> None:
        self.catalog: dict[str, Publication] = {}
        self.flow_of: dict[int, int] = {}
        self._tell = tell
        self._stream_of: dict[int, int] = {}
        self._lines: dict[int, LedTimeline] = {}

    def tapped(self, flow: int, stream: int) -> None:
        """The relay's answer to a tap."""
        if flow in self._lines:  # or nobody has wanted it any more since
            self.flow_of[stream], self._stream_of[flow] = flow, stream

    def times_of(self, readings: Sequence[tuple[int, Reading]]) -> None:
        """When frames were, by flow."""
        for flow, reading in readings:
            if flow in self._lines:
                self._lines[flow].lead(*reading)

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        known = self.catalog.get(publication)
        if known is None or layer >= len(known.layers):
            return None
        self._tell(m.Tap(flow, publication, layer))
        line = self._lines[flow] = LedTimeline(known.clock_hz)
        return source_of(Kind(known.kind), known.codecs, line)

    def untap(self, flow: int) -> None:
        self._lines.pop(flow, None)
        stream = self._stream_of.pop(flow, None)
        if stream is not None:
            del self.flow_of[stream]
        self._tell(m.Untap(flow))

    def request_keyframe(self, publication: str, layer: int) -> None:
        self._tell(m.KeyframeWanted(publication, layer))

    def watch_room(self, room: str, watched: bool) -> None:
        """Nothing to tell: rooms give their events in any case."""

    def link_changed(self, event: LinkEvent) -> None:
        self._tell(m.Moved(True, event) if isinstance(event, LinkMoved) else m.PathTold(True, event))


class SubscriberSide:
    """See `SubscriberHooks`, of one link. `streams` are those of the inject ring, by publication and layer."""

    def __init__(self, number: int, tell: Tell, ring: RingWriter) -> None:
        self.streams: dict[tuple[str, int], int] = {}
        self.fences: dict[tuple[str, int], str] = {}
        self._number = number
        self._tell = tell
        self._ring = ring
        self._told: dict[str, Publication] = {}
        self._lines: dict[tuple[str, int], ToldLine] = {}
        self._anew = True

    def inject_as(self, publication: str, layers: Sequence[int], streams: Sequence[int]) -> None:
        """From now on these are the layers of a publication that are injected."""
        self.streams = {key: stream for key, stream in self.streams.items() if key[0] != publication}
        self._lines = {key: line for key, line in self._lines.items() if key[0] != publication}
        self.streams.update(((publication, layer), stream) for layer, stream in zip(layers, streams, strict=True))

    def admit(self, node: str, publication: Publication) -> str:
        return self.fences.get((publication.id, publication.epoch), "")

    def catalog_changed(self, node: str, publications: dict[str, Publication]) -> None:
        for changed, removed, done in catalog_steps(self._told, publications):
            self._tell(m.Offered(self._number, changed, removed, self._anew, done))
            self._anew = False
        self._told = publications

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None:
        self._tell(m.Subscribed(self._number, publication, layers))

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None:
        self._tell(m.LayerStarted(self._number, publication, layer, payload_type))

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        stream = self.streams.get((publication, layer))
        if stream is None:
            return
        put, now = self._ring.put, now_us()
        for packet in packets:
            if len(packet) >= 12 and (sync_id := read_sync_id(packet)) is not None:
                self._time_of(publication, layer, packet, sync_id)
            put(stream, now, packet, more=True)
        self._ring.flush()

    def _time_of(self, publication: str, layer: int, packet: bytes, sync_id: int) -> None:
        line = self._lines.get((publication, layer))
        if line is None:
            if publication not in self._told:
                return
            line = self._lines[publication, layer] = ToldLine(self._told[publication].clock_hz)
        timestamp, ssrc = _TIMESTAMP_SSRC.unpack_from(packet, 4)
        reading = ssrc, timestamp, sync_id
        if line.is_due(reading, time.monotonic()):
            self._tell(m.TimeOf(self._number, publication, layer, reading))

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        for event in events:
            try:
                self._tell(m.HeardEvents(self._number, room, (event,), gap))
            except UsageError as error:  # longer than what the wire takes
                log.error("an event is lost on its way to the relay", room=room, node=node, reason=str(error))
                gap = True
            else:
                gap = False
        if gap:
            self._tell(m.HeardEvents(self._number, room, (), gap))

    def link_changed(self, event: LinkEvent) -> None:
        self._tell(m.Moved(False, event) if isinstance(event, LinkMoved) else m.PathTold(False, event))

    def goodbye(self, node: str, reason: str, instead: str) -> None:
        self._tell(m.Goodbye(self._number, reason, instead))


Step = tuple[tuple[Publication, ...], tuple[str, ...], bool]


def catalog_steps(before: Mapping[str, Publication], after: Mapping[str, Publication]) -> list[Step]:
    """Cut what changed from one catalog to another into messages: (changed, removed, done), at least one."""
    changed = [entry for key, entry in after.items() if before.get(key) != entry]
    removed = [key for key in before if key not in after]
    steps: list[Step] = [((), tuple(batch), False) for batch in batches(removed, m.BATCH)]
    steps += [(tuple(batch), (), False) for batch in batches(changed, m.BATCH)]
    *most, (last_changed, last_removed, _) = steps or [((), (), False)]
    return [*most, (last_changed, last_removed, True)]


def pulses(
    sync_id: int, served: Sequence[dict[str, Any]], dialled: Sequence[tuple[int, int, dict[str, Any]]]
) -> list[m.Pulse]:
    """Cut one pulse into messages, at least one."""
    parts = zip_longest(batches(served, m.STATES), batches(dialled, m.STATES), fillvalue=())
    cut = [(tuple(ours), tuple(theirs)) for ours, theirs in parts] or [((), ())]
    return [m.Pulse(sync_id, *part, more=at + 1 < len(cut)) for at, part in enumerate(cut)]


def batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut into what one message takes."""
    return [items[at : at + size] for at in range(0, len(items), size)]

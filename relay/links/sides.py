"""What the links in their own process ask of the node, and tell it: `OriginHooks` and `SubscriberHooks` by messages.

No question waits for an answer. What the origin's side has to know at once stands in the catalog that it was given;
who may offer what is decided by the relay, which says it afterwards (`Fence`), and until then subscribes to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from relay.link.hooks import LayerSource, LinkEvent, LinkMoved
from relay.link.messages import Publication
from relay.link.served_link import now_us
from relay.links import messages as m
from relay.links.sources import source_of
from relay.mix.control import Message
from relay.plane.contract import Kind
from relay.plane.shared_ring import RingWriter
from relay.ports import RoomEvent

T = TypeVar("T")
Tell = Callable[[Message], None]


class OriginSide:
    """See `OriginHooks`. `catalog` is what the relay offers; `flow_of` maps the tap ring's streams to flows."""

    def __init__(self, tell: Tell) -> None:
        self.catalog: dict[str, Publication] = {}
        self.flow_of: dict[int, int] = {}
        self._tell = tell
        self._stream_of: dict[int, int] = {}

    def tapped(self, flow: int, stream: int) -> None:
        """The relay's answer to a tap."""
        self.flow_of[stream], self._stream_of[flow] = flow, stream

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        known = self.catalog.get(publication)
        if known is None or layer >= len(known.layers):
            return None
        self._tell(m.Tap(flow, publication, layer))
        return source_of(Kind(known.kind), known.codecs)

    def untap(self, flow: int) -> None:
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
        self._anew = True

    def inject_as(self, publication: str, layers: Sequence[int], streams: Sequence[int]) -> None:
        """From now on these are the layers of a publication that are injected."""
        self.streams = {key: stream for key, stream in self.streams.items() if key[0] != publication}
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
            put(stream, now, packet, more=True)
        self._ring.flush()

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        self._tell(m.HeardEvents(self._number, room, tuple(events), gap))

    def link_changed(self, event: LinkEvent) -> None:
        self._tell(m.Moved(False, event) if isinstance(event, LinkMoved) else m.PathTold(False, event))

    def goodbye(self, node: str, reason: str, instead: str) -> None:
        self._tell(m.Goodbye(self._number, reason, instead))


Step = tuple[tuple[Publication, ...], tuple[str, ...], bool]


def catalog_steps(before: Mapping[str, Publication], after: Mapping[str, Publication]) -> list[Step]:
    """Cut what changed from one catalog to another into messages: (changed, removed, done), at least one."""
    changed = [entry for key, entry in after.items() if before.get(key) != entry]
    removed = [key for key in before if key not in after]
    steps: list[Step] = [((), tuple(batch), False) for batch in _batches(removed)]
    steps += [(tuple(batch), (), False) for batch in _batches(changed)]
    *most, (last_changed, last_removed, _) = steps or [((), (), False)]
    return [*most, (last_changed, last_removed, True)]


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[at : at + m.BATCH] for at in range(0, len(items), m.BATCH)]

"""What a subscriber wants of one origin, what it gets, and under which flows: no I/O.

A wish is said again whenever the channel comes back and when the origin's catalog has it anew. What the origin offers
is believed only as far as `SubscriberHooks.admit` says: a publication that another node holds is refused (FENCED).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from relay.ids import HybridClock
from relay.link import flows
from relay.link import messages as m
from relay.link.hooks import LinkMoved, SubscriberHooks
from relay.link.merge import EventMerger
from relay.link.receiver import Arrival, LinkReceiver, StreamStarted
from relay.ports import RoomEvent
from relay.settings import LinkFlowSettings


@dataclass(slots=True)
class _Wish:
    epoch: int
    layers: tuple[int, ...]
    demand: tuple[int, ...] | None = None
    request: int = 0
    flows: dict[int, int] = field(default_factory=dict)  # layer: flow


class Subscriptions:
    """One per link. `say` sends a message when the channel is there, and drops it when not."""

    def __init__(
        self,
        origin: str,
        receiver: LinkReceiver,
        hooks: SubscriberHooks,
        clock: HybridClock,
        settings: LinkFlowSettings,
        say: Callable[[m.Message], None],
    ) -> None:
        self.catalog: dict[str, m.Publication] = {}
        self.fenced: dict[str, m.Publication] = {}
        self._origin = origin
        self._receiver = receiver
        self._hooks = hooks
        self._clock = clock
        self._hold_us = settings.event_hold_ms * 1000
        self._say = say
        self._version: int | None = None
        self._wishes: dict[str, _Wish] = {}
        self._by_flow: dict[int, tuple[str, int]] = {}
        self._rooms: dict[str, EventMerger] = {}
        self._anew: dict[str, int | None] = {}  # rooms whose watch has not been answered: where to begin
        self._unanswered: set[str] = set()  # rooms whose events come again, in the answer to a watch that was sent
        self._request = 0

    # --- wishes -----------------------------------------------------------------------------------------------------

    def subscribe(self, publication: str, epoch: int, layers: tuple[int, ...]) -> None:
        """See `LinkClient.subscribe`."""
        wish = self._wishes.get(publication)
        if wish is None or wish.epoch > epoch:
            if wish is not None:
                self._close_flows(wish)
            wish = self._wishes[publication] = _Wish(epoch, layers)
        elif (wish.epoch, wish.layers) == (epoch, layers) and wish.flows:
            return
        wish.epoch = epoch  # a later one of the same origin: what flows is closed if its answer no longer has it
        wish.layers = layers
        self._ask(publication, wish)

    def unsubscribe(self, publication: str) -> None:
        """See `LinkClient.unsubscribe`."""
        wish = self._wishes.pop(publication, None)
        if wish is not None:
            self._close_flows(wish)
            wish.layers = ()
            self._ask(publication, wish)

    def demand(self, publication: str, layers: tuple[int, ...]) -> None:
        """See `LinkClient.demand`."""
        wish = self._wishes.get(publication)
        if wish is not None and wish.demand != layers:
            wish.demand = layers
            self._say(m.Demand(publication=publication, layers=layers))

    def watch_room(self, room: str, after: int | None) -> None:
        """See `LinkClient.watch_room`."""
        if room not in self._rooms:
            self._rooms[room] = EventMerger(self._hold_us, after or 0)
            self._anew[room] = after
            self._unanswered.add(room)
            self._say(m.WatchRoom(room=room, after=after))

    def unwatch_room(self, room: str) -> None:
        """See `LinkClient.unwatch_room`."""
        if self._rooms.pop(room, None) is not None:
            self._anew.pop(room, None)
            self._unanswered.discard(room)
            self._say(m.UnwatchRoom(room=room))

    def _ask(self, publication: str, wish: _Wish) -> None:
        self._request += 1
        wish.request = self._request
        self._say(m.Subscribe(request=self._request, publication=publication, epoch=wish.epoch, layers=wish.layers))

    def channel_opened(self) -> None:
        """Say everything again: the origin may be another process than before."""
        self._version = None
        for publication, wish in self._wishes.items():
            self._ask(publication, wish)
            if wish.demand is not None:
                self._say(m.Demand(publication=publication, layers=wish.demand))
        for room, merger in self._rooms.items():
            self._unanswered.add(room)
            self._say(m.WatchRoom(room=room, after=self._anew.get(room, merger.last)))

    # --- messages ---------------------------------------------------------------------------------------------------

    def message(self, message: m.Catalog | m.Subscribed | m.Refused | m.RoomEvents, now: int) -> bool:
        """Take what the origin says. False for a catalog's change that does not fit the catalog that is here."""
        match message:
            case m.Catalog():
                return self._take_catalog(message)
            case m.Subscribed():
                self._take_flows(message)
            case m.Refused():
                self._take_refusal(message)
            case m.RoomEvents():
                self._take_events(message, now)
        return True

    def _take_catalog(self, change: m.Catalog) -> bool:
        if change.base is None:
            offered: dict[str, m.Publication] = {}
        elif change.base != self._version:
            return False
        else:
            offered = self.catalog | self.fenced
        self._version = change.version
        for key in change.removed:
            offered.pop(key, None)
        offered.update((publication.id, publication) for publication in change.publications)
        self._admit(offered)
        for publication in change.publications:
            wish = self._wishes.get(publication.id)
            if wish is not None and not wish.flows and wish.epoch == publication.epoch and change.base is not None:
                self._ask(publication.id, wish)
        return True

    def recheck(self) -> None:
        """Ask again who may offer what."""
        self._admit(self.catalog | self.fenced)

    def _admit(self, offered: dict[str, m.Publication]) -> None:
        before, fenced = self.catalog, self.fenced
        self.catalog, self.fenced = {}, {}
        for key, publication in offered.items():
            reason = self._hooks.admit(self._origin, publication)
            if not reason:
                self.catalog[key] = publication
                continue
            self.fenced[key] = publication
            if key not in fenced or fenced[key].epoch != publication.epoch:
                self._say(m.Refused(publication=key, epoch=publication.epoch, code="FENCED", detail=reason))
        for key, wish in self._wishes.items():
            known = self.catalog.get(key)
            if wish.flows and (known is None or known.epoch < wish.epoch):
                self._close_flows(wish)
                self._hooks.subscribed(self._origin, key, ())
            elif wish.flows and known is not None:
                wish.epoch = known.epoch  # its lease was given anew; a break would have been a removal
        if self.catalog != before:
            self._hooks.catalog_changed(self._origin, dict(self.catalog))

    def _take_flows(self, answer: m.Subscribed) -> None:
        wish = self._wishes.get(answer.publication)
        known = self.catalog.get(answer.publication)
        if wish is None or wish.request != answer.request or known is None or known.epoch != wish.epoch:
            return  # of a wish that is not the latest, or of what this origin must not offer
        found = {entry.layer: entry.flow for entry in answer.flows if flows.is_media(entry.flow)}
        for layer, flow in tuple(wish.flows.items()):
            if found.get(layer) != flow:
                self._close(wish, layer)
        for layer, flow in found.items():
            if layer in wish.flows:
                continue
            if flow in self._by_flow:  # the origin numbers anew: what was there is over
                publication, former = self._by_flow[flow]
                self._close(self._wishes[publication], former)
            wish.flows[layer] = flow
            self._by_flow[flow] = (answer.publication, layer)
            self._receiver.open_flow(flow, known.clock_hz)
        self._hooks.subscribed(self._origin, answer.publication, tuple(sorted(wish.flows)))

    def _take_refusal(self, refusal: m.Refused) -> None:
        wish = self._wishes.get(refusal.publication)
        if wish is not None and wish.request == refusal.request:
            self._close_flows(wish)
            self._hooks.subscribed(self._origin, refusal.publication, ())

    def _close_flows(self, wish: _Wish) -> None:
        for layer in tuple(wish.flows):
            self._close(wish, layer)

    def _close(self, wish: _Wish, layer: int) -> None:
        flow = wish.flows.pop(layer)
        del self._by_flow[flow]
        self._receiver.close_flow(flow)

    def _take_events(self, message: m.RoomEvents, now: int) -> None:
        merger = self._rooms.get(message.room)
        if merger is None:
            return
        if message.position is None and message.room in self._unanswered:
            return  # the origin said it before it heard where to go on: what comes first may be missing
        if message.position is not None:
            self._unanswered.discard(message.room)
            self._anew.pop(message.room, None)
            merger.last = max(merger.last, message.position)
        if message.gap:
            self._hooks.room_events(self._origin, message.room, merger.flush(), gap=True)
        for event in message.events:
            if merger.add(RoomEvent(event.sync_id, event.type, event.data, event.stored), now):
                self._clock.observe(event.sync_id)

    def moved(self, link: str, state: m.LinkState) -> LinkMoved:
        """Return a breaker's announcement as the node's event."""
        return LinkMoved(
            link, self._origin, state.code, state.state, state.previous, state.reason, state.sync_id, state.carrying
        )

    # --- media ------------------------------------------------------------------------------------------------------

    def started(self, event: StreamStarted) -> None:
        """A flow's first packet is here."""
        key = self._by_flow.get(event.flow)
        if key is not None:
            self._hooks.layer_started(self._origin, *key, event.payload_type)

    def deliver(self, arrived: Sequence[Arrival], now: int) -> None:
        """Hand on new packets, and the events whose frames are here."""
        batches: dict[int, list[bytes]] = {}
        for arrival in arrived:
            batch = batches.get(arrival.flow)
            if batch is None:
                batch = batches[arrival.flow] = []
            batch.append(arrival.packet)
            if arrival.sync_id is not None:
                self._note_frame(arrival.flow, arrival.sync_id, now)
        for flow, packets in batches.items():
            key = self._by_flow.get(flow)
            if key is not None:
                self._hooks.packets(self._origin, *key, packets)
        for room, merger in self._rooms.items():
            events = merger.take(now)
            if events:
                self._hooks.room_events(self._origin, room, events, gap=False)

    def _note_frame(self, flow: int, sync_id: int, now: int) -> None:
        self._clock.observe(sync_id)
        key = self._by_flow.get(flow)
        known = self.catalog.get(key[0]) if key else None
        merger = self._rooms.get(known.room) if known else None
        if merger is not None:
            merger.media(sync_id, now)

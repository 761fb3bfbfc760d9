"""A link that the link process has dialled, as the relay sees it: a `relay.links.ends.DialledEnd`.

What is wanted is kept here, and said again to the next process when one dies. What the origin offers is judged here, by
`SubscriberHooks.admit`, before the node sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from relay.link.hooks import SubscriberHooks
from relay.link.messages import MAX_PUBLICATIONS, Publication
from relay.links import messages as m
from relay.ports import RoomEvent
from relay.stage.timeline import Reading


class Injecting(Protocol):
    """What a link asks of the process's inject ring."""

    def bind(self, stream: int, track: int, layer: int) -> None:
        """Inject packets of a stream into a layer of a track. Without effect while there is no ring."""
        ...

    def unbind(self, stream: int) -> None:
        """Drop what comes of it."""
        ...

    def new_stream(self) -> int:
        """A number that was never used."""
        ...


class Taking(SubscriberHooks, Protocol):
    """The subscriber's side of a node."""

    def handle_of(self, node: str, publication: str) -> int | None:
        """The plane's track that a node's packets of a publication go into."""
        ...

    def placed(self, track: int, layer: int, clock_hz: int, reading: Reading | None) -> None:
        """When a frame of a layer of a track was. None: it is not known yet, but will be told."""
        ...

    def media_came(self, node: str) -> None:
        """Packets of a node came a moment ago: it lives."""
        ...


class _Wish:
    """Layers of a publication that are wanted, each with its stream and when its newest frame was, as far as told.
    `track` is where they go now."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.streams: dict[int, int] = {}
        self.readings: dict[int, Reading] = {}
        self.track: int | None = None


class ProcessLink:
    """See the module."""

    def __init__(
        self,
        number: int,
        node: str,
        addresses: tuple[str, ...],
        hooks: Taking,
        ring: Injecting,
        tell: Callable[[m.Order], None],
        on_close: Callable[[int], None],
    ) -> None:
        self.number = number
        self.last_state: dict[str, Any] | None = None
        self.heard_at = 0
        self.node = node
        self._addresses = addresses
        self._hooks = hooks
        self._ring = ring
        self._tell = tell
        self._on_close = on_close
        self._started = False
        self._offered: dict[str, Publication] = {}
        self._fenced: dict[str, Publication] = {}
        self._catalog: dict[str, Publication] = {}
        self._wishes: dict[str, _Wish] = {}
        self._rooms: dict[str, int | None] = {}  # the newest event of each

    # --- the node says ----------------------------------------------------------------------------------------------

    @property
    def catalog(self) -> dict[str, Publication]:
        return dict(self._catalog)

    def offer(self, publication: str) -> Publication | None:
        return self._catalog.get(publication)

    def start(self) -> None:
        self._started = True
        self.begin_anew()

    async def close(self) -> None:
        for publication in tuple(self._wishes):
            self.unsubscribe(publication)
        self._started = False
        self._tell(m.HangUp(self.number))
        self._on_close(self.number)

    def subscribe(self, publication: str, epoch: int, layers: Iterable[int]) -> None:
        wish = self._wishes.setdefault(publication, _Wish(epoch))
        wish.epoch, wanted = epoch, tuple(layers)
        for layer in [layer for layer in wish.streams if layer not in wanted]:
            self._ring.unbind(wish.streams.pop(layer))
            wish.readings.pop(layer, None)
        for layer in wanted:
            if layer not in wish.streams:
                wish.streams[layer] = self._ring.new_stream()
        wish.track = None
        self._bind(publication, wish)
        self._say_wish(publication, wish)

    def unsubscribe(self, publication: str) -> None:
        wish = self._wishes.pop(publication, None)
        if wish is not None:
            for stream in wish.streams.values():
                self._ring.unbind(stream)
            self._tell(m.Subscribe(self.number, publication, wish.epoch, (), ()))

    def request_keyframe(self, publication: str, layer: int) -> None:
        self._tell(m.AskKeyframe(self.number, publication, layer))

    def watch_room(self, room: str) -> None:
        if room not in self._rooms:
            self._rooms[room] = None
            self._tell(m.WatchRoom(self.number, room, True))

    def unwatch_room(self, room: str) -> None:
        if room in self._rooms:
            del self._rooms[room]
            self._tell(m.WatchRoom(self.number, room, False))

    def recheck(self) -> None:
        for key, publication in tuple(self._fenced.items()):
            if not self._hooks.admit(self.node, publication):
                self._lift(key)  # it is offered again by that
        self._admit()

    def state(self) -> dict[str, Any]:
        return self.last_state or {
            "link": "", "peer": self.node, "role": "subscriber", "breaker": "closed", "carrying": [], "connected": [],
            "dials": {}, "early_dials": 0, "last_error": {"metadata": "the link process starts"}, "flows": 0,
            "bytes": 0, "longest_gap_us": 0, "counts": {},
        }  # fmt: skip

    # --- the process comes and goes ---------------------------------------------------------------------------------

    def begin_anew(self) -> None:
        """There is a process that knows nothing: say all that is wanted."""
        if not self._started:
            return
        self.last_state = None
        self._fenced.clear()
        self._tell(m.Dial(self.number, self.node, self._addresses))
        for room, newest in self._rooms.items():
            self._tell(m.WatchRoom(self.number, room, True, newest))
        for publication, wish in self._wishes.items():
            wish.track = None
            self._bind(publication, wish)
            self._say_wish(publication, wish)

    def rebind(self) -> None:
        """A few times a second: let packets go where the node has them now."""
        for publication, wish in self._wishes.items():
            self._bind(publication, wish)

    def _bind(self, publication: str, wish: _Wish) -> None:
        track = self._hooks.handle_of(self.node, publication)
        if track == wish.track:
            return
        wish.track = track
        for layer, stream in wish.streams.items():
            if track is None:
                self._ring.unbind(stream)
            else:
                self._place(publication, layer, track, wish.readings.get(layer))
                self._ring.bind(stream, track, layer)

    def _place(self, publication: str, layer: int, track: int, reading: Reading | None) -> None:
        entry = self._catalog.get(publication)
        if entry is not None:
            self._hooks.placed(track, layer, entry.clock_hz, reading)

    def _say_wish(self, publication: str, wish: _Wish) -> None:
        self._tell(m.Subscribe(self.number, publication, wish.epoch, tuple(wish.streams), tuple(wish.streams.values())))

    # --- the process says -------------------------------------------------------------------------------------------

    def offered(self, told: m.Offered) -> None:
        """What the origin offers changed."""
        if told.anew:
            self._offered = {}
        for key in told.removed:
            self._offered.pop(key, None)
        self._offered.update((entry.id, entry) for entry in told.changed)
        if told.done:
            self._admit()

    def time_of(self, publication: str, layer: int, reading: Reading) -> None:
        """When a frame was."""
        wish = self._wishes.get(publication)
        if wish is None or layer not in wish.streams:
            return
        wish.readings[layer] = reading
        self._bind(publication, wish)
        if wish.track is not None:
            self._place(publication, layer, wish.track, reading)

    def events(self, room: str, events: tuple[RoomEvent, ...], gap: bool) -> None:
        """Events of a room that is watched."""
        if room in self._rooms:
            if events:
                self._rooms[room] = events[-1].sync_id
            self._hooks.room_events(self.node, room, events, gap)

    def _admit(self) -> None:
        before, self._catalog = self._catalog, {}
        for key, publication in self._offered.items():
            reason = self._hooks.admit(self.node, publication)
            if not reason:
                self._catalog[key] = publication
            elif self._fenced.get(key) != publication:
                self._fence(publication, reason)
        if self._catalog != before:
            self._hooks.catalog_changed(self.node, dict(self._catalog))

    def _fence(self, publication: Publication, reason: str) -> None:
        if publication.id in self._fenced:
            self._lift(publication.id)
        elif len(self._fenced) >= MAX_PUBLICATIONS:
            self._lift(next(iter(self._fenced)))
        self._fenced[publication.id] = publication
        self._tell(m.Fence(self.number, publication.id, publication.epoch, reason))

    def _lift(self, key: str) -> None:
        publication = self._fenced.pop(key)
        self._tell(m.Fence(self.number, key, publication.epoch, ""))

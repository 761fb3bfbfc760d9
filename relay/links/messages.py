"""What a relay and its link process say to each other; the wire is that of `relay.process.control`.

`number` names a link that the relay has dialled, never used twice in a relay's life. Packets do not go this way: they
are in the two rings, under streams that the relay has chosen (`Tapped`, `Subscribe`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay.link.hooks import LinkMoved, PathChanged
from relay.link.messages import Publication
from relay.ports import RoomEvent
from relay.process.control import Message
from relay.settings import LinkSettings, LogSettings
from relay.stage.timeline import Reading


class Order(Message):
    """What the relay says."""

    __slots__ = ()


class Word(Message):
    """What the link process says."""

    __slots__ = ()


# --- the relay says -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin(Order):
    """First, and once: open the sockets. The relay's clock stands at `sync_id`."""

    node: str
    link: LinkSettings
    log: LogSettings
    sync_id: int


@dataclass(frozen=True, slots=True)
class Observe(Order):
    """The relay's clock stands here. Repeated all the time."""

    sync_id: int


@dataclass(frozen=True, slots=True)
class SetCatalog(Order):
    """What changed in what the node offers. It counts when a message with `done` has come."""

    changed: tuple[Publication, ...]
    removed: tuple[str, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class Tapped(Order):
    """The answer to `Tap`, said before the first packet: the flow's packets come as this stream of the tap ring."""

    flow: int
    stream: int


@dataclass(frozen=True, slots=True)
class TimesOf(Order):
    """When frames of tapped layers were, by flow: what this node's own viewers are told. Repeated, and at a change."""

    readings: tuple[tuple[int, Reading], ...]


@dataclass(frozen=True, slots=True)
class SayEvents(Order):
    """Events of a room of this node."""

    room: str
    events: tuple[RoomEvent, ...]


@dataclass(frozen=True, slots=True)
class Drain(Order):
    """Tell the subscribers to go elsewhere."""


@dataclass(frozen=True, slots=True)
class Command(Order):
    """Force a link open, or reset it; `Answered` answers."""

    request: int
    link: str
    action: str


@dataclass(frozen=True, slots=True)
class Dial(Order):
    """Link to a node at these addresses."""

    number: int
    node: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HangUp(Order):
    """Close a link."""

    number: int


@dataclass(frozen=True, slots=True)
class WatchRoom(Order):
    """Want a room's events, those after a sync id or from now on; `wanted` False: no more."""

    number: int
    room: str
    wanted: bool
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Subscribe(Order):
    """Want these layers and inject each as the stream at its place; none ends it."""

    number: int
    publication: str
    epoch: int
    layers: tuple[int, ...]
    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AskKeyframe(Order):
    """Ask the origin for a keyframe."""

    number: int
    publication: str
    layer: int


@dataclass(frozen=True, slots=True)
class Fence(Order):
    """A node may not offer a publication under this epoch, for this reason; with none it may again."""

    number: int
    publication: str
    epoch: int
    reason: str


# --- the link process says ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready(Word):
    """The sockets are open."""


@dataclass(frozen=True, slots=True)
class Failed(Word):
    """They cannot be opened; the process ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pulse(Word):
    """It lives, several times a second: where its clock stands, the links that others dialled, and those dialled.

    Those with when their origins last said anything, in monotonic microseconds. `more` follow at once.
    """

    sync_id: int
    served: tuple[dict[str, Any], ...]
    dialled: tuple[tuple[int, int, dict[str, Any]], ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Tap(Word):
    """A first link wants a layer; `Tapped` answers, or nothing when there is no such layer any more."""

    flow: int
    publication: str
    layer: int


@dataclass(frozen=True, slots=True)
class Untap(Word):
    """No link wants it any more."""

    flow: int


@dataclass(frozen=True, slots=True)
class KeyframeWanted(Word):
    """A subscriber needs a keyframe of a layer of this node."""

    publication: str
    layer: int


@dataclass(frozen=True, slots=True)
class Answered(Word):
    """The link's state after a `Command`, or why it was not carried out."""

    request: int
    state: dict[str, Any]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Moved(Word):
    """See `LinkMoved`; `served` tells which end this node is."""

    served: bool
    event: LinkMoved


@dataclass(frozen=True, slots=True)
class PathTold(Word):
    """See `PathChanged`; `served` tells which end this node is."""

    served: bool
    event: PathChanged


@dataclass(frozen=True, slots=True)
class Offered(Word):
    """What changed in what an origin offers. It counts when one with `done` has come. `anew`: all else is gone."""

    number: int
    changed: tuple[Publication, ...]
    removed: tuple[str, ...]
    anew: bool
    done: bool


@dataclass(frozen=True, slots=True)
class Subscribed(Word):
    """The origin sends these layers from now on."""

    number: int
    publication: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerStarted(Word):
    """The first packet of a layer is here."""

    number: int
    publication: str
    layer: int
    payload_type: int


@dataclass(frozen=True, slots=True)
class TimeOf(Word):
    """When a frame of a layer was, by its origin. Repeated, and said at once at a change."""

    number: int
    publication: str
    layer: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class HeardEvents(Word):
    """Events of a room, each when the media it belongs to has been injected."""

    number: int
    room: str
    events: tuple[RoomEvent, ...]
    gap: bool


@dataclass(frozen=True, slots=True)
class Goodbye(Word):
    """The origin drains."""

    number: int
    reason: str
    instead: str


ORDERS: tuple[type[Order], ...] = (
    *(Begin, Observe, SetCatalog, Tapped, TimesOf, SayEvents, Drain, Command),
    *(Dial, HangUp, WatchRoom, Subscribe, AskKeyframe, Fence),
)
WORDS: tuple[type[Word], ...] = (
    *(Ready, Failed, Pulse, Tap, Untap, KeyframeWanted, Answered, Moved, PathTold),
    *(Offered, Subscribed, LayerStarted, TimeOf, HeardEvents, Goodbye),
)
BATCH = 8
"""Publications in one message: each may have a hundred thousand bytes, and the wire takes a million."""
TIMES = 1024
"""Readings in one `TimesOf`."""
STATES = 64
"""Links in one `Pulse`; each has a thousand bytes."""

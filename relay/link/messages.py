"""The messages of a link's metadata channel: typed, versioned, bounded.

On the wire a message is its length (4 bytes, big endian) and a JSON object whose `type` names its class. Each end says
`hello` first. A type that is not known is skipped, so that newer nodes may say more; fields that are not known are
ignored for the same reason. A `hello` of another version, and anything that is not as described here, is Malformed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from relay.errors import PeerError, UsageError
from relay.link.flows import MAX_FLOW
from relay.link.path import PathName

VERSION = 1
LENGTH_BYTES = 4
MAX_PUBLICATIONS = 4096
MAX_LAYERS = 16
MAX_EVENTS = 256
MAX_WAITS = 64
MAX_WAIT_MS = 2000


class Malformed(PeerError):
    """A message that breaks the rules of the channel; the channel is closed."""


class UnknownVersion(Malformed):
    """The peer speaks a version of the channel that this node does not."""


Name = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=1024)]
Bits32 = Annotated[int, Field(ge=0, lt=1 << 32)]
SyncId = Annotated[int, Field(ge=0, lt=1 << 64)]
Counter = Annotated[int, Field(ge=0, lt=1 << 53)]
LayerIndex = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]
Layers = Annotated[tuple[LayerIndex, ...], Field(max_length=MAX_LAYERS)]


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Codec(_Base):
    """One payload type, as in `relay.plane.contract.PayloadType`."""

    number: Annotated[int, Field(ge=0, le=127)]
    codec: Annotated[str, Field(min_length=1, max_length=32)]
    clock_hz: Annotated[int, Field(ge=1, le=10_000_000)]
    apt: Annotated[int, Field(ge=0, le=127)] | None = None
    profile: Annotated[str, Field(max_length=256)] = ""


class Layer(_Base):
    """One layer. `bps` is about its bitrate, 0 when not known. `anchor` ties an RTP timestamp to the sync id of its
    frame, as of this catalog. `captured` ties one of stream SSRC to the microsecond of the publisher's clock at which
    its frame was captured, by his sender reports: (SSRC, RTP timestamp, µs since 1970)."""

    rid: Annotated[str, Field(max_length=64)] = ""
    active: bool = True
    bps: Annotated[int, Field(ge=0, lt=1 << 40)] = 0
    anchor: tuple[Bits32, SyncId] | None = None
    captured: tuple[Bits32, Bits32, Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)]] | None = None


class SoundWait(_Base):
    """In a program, a participant's sound waits for his picture for `ms` after it came."""

    participant: Name
    ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)]


class Publication(_Base):
    """One publication that a node is the origin of. `epoch` is its lease's fencing token: the higher one holds. `waits`
    are of a program's sound, for who mixes the same voices elsewhere beside its picture."""

    id: Name
    epoch: Counter
    room: Name
    participant: Annotated[str, Field(max_length=256)] = ""
    kind: Literal["audio", "video"]
    source: Annotated[str, Field(max_length=64)] = ""
    codecs: Annotated[tuple[Codec, ...], Field(min_length=1, max_length=64)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    waits: Annotated[tuple[SoundWait, ...], Field(max_length=MAX_WAITS)] = ()

    @property
    def clock_hz(self) -> int:
        """The RTP clock of its media."""
        return self.codecs[0].clock_hz


class Hello(_Base):
    """First on the channel, both ways. `link` is chosen by the subscriber, unguessable, and ties the paths to it.
    `instance` is another one when the process that serves is another one, and knows nothing of paths to the former."""

    type: Literal["hello"] = "hello"
    version: Annotated[int, Field(ge=0)] = VERSION
    node: Name
    link: Annotated[str, Field(min_length=16, max_length=64)]
    capabilities: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    instance: Annotated[str, Field(max_length=64)] = ""


class Bind(_Base):
    """First on a media path, on a bidirectional stream: which link's which path this is. `bound` answers it."""

    type: Literal["bind"] = "bind"
    link: Annotated[str, Field(min_length=16, max_length=64)]
    path: PathName
    generation: Counter


class Bound(_Base):
    """The origin sends media here from now on."""

    type: Literal["bound"] = "bound"


class Catalog(_Base):
    """What the origin has. Without `base` it is all of it; else it is what changed since version `base`."""

    type: Literal["catalog"] = "catalog"
    version: Counter
    base: Counter | None = None
    publications: Annotated[tuple[Publication, ...], Field(max_length=MAX_PUBLICATIONS)] = ()
    removed: Annotated[tuple[Name, ...], Field(max_length=MAX_PUBLICATIONS)] = ()


class Subscribe(_Base):
    """These layers of a publication are wanted, all others are not; none ends the subscription. May be repeated."""

    type: Literal["subscribe"] = "subscribe"
    request: Counter
    publication: Name
    epoch: Counter
    layers: Layers


class FlowOf(_Base):
    """The flow that carries a layer."""

    layer: LayerIndex
    flow: Annotated[int, Field(ge=0, le=MAX_FLOW)]


class Subscribed(_Base):
    """The layers asked for, as far as there are such, and their flows."""

    type: Literal["subscribed"] = "subscribed"
    request: Counter
    publication: Name
    epoch: Counter
    flows: Annotated[tuple[FlowOf, ...], Field(max_length=MAX_LAYERS)]


class Refused(_Base):
    """A request is not served (`request`), or a claim is not believed. `code`: FENCED, NOT_FOUND, LIMIT, DRAINING."""

    type: Literal["refused"] = "refused"
    request: Counter | None = None
    publication: Annotated[str, Field(max_length=256)] = ""
    epoch: Counter = 0
    code: Annotated[str, Field(min_length=1, max_length=64)]
    detail: Text = ""


class Demand(_Base):
    """Of the subscribed layers these are wanted now; the others pause, and keep their flows."""

    type: Literal["demand"] = "demand"
    publication: Name
    layers: Layers


class KeyframeRequest(_Base):
    """A keyframe of a layer is wanted."""

    type: Literal["keyframe"] = "keyframe"
    publication: Name
    layer: LayerIndex


class WatchRoom(_Base):
    """Send a room's events, those kept after sync id `after` first; None: from now on."""

    type: Literal["watch_room"] = "watch_room"
    room: Name
    after: SyncId | None = None


class UnwatchRoom(_Base):
    """Send a room's events no more."""

    type: Literal["unwatch_room"] = "unwatch_room"
    room: Name


class Event(_Base):
    """One event of a room."""

    sync_id: SyncId
    type: Name
    data: dict[str, Any]
    stored: bool = True


class RoomEvents(_Base):
    """Events of a room in order. `gap`: some before these are not kept any more. The first message after `watch_room`
    tells in `position` the newest event before those that will come, so that the watcher knows where to go on."""

    type: Literal["events"] = "events"
    room: Name
    events: Annotated[tuple[Event, ...], Field(max_length=MAX_EVENTS)]
    gap: bool = False
    position: SyncId | None = None


class LinkState(_Base):
    """The breaker moved. `code` is LINK_UNSTABLE, or LINK_STABLE when the primary alone carries again. Media goes to
    `carrying` from the frame after `sync_id` on."""

    type: Literal["link_state"] = "link_state"
    code: Literal["LINK_UNSTABLE", "LINK_STABLE"]
    state: Name
    previous: Name
    reason: Text
    sync_id: SyncId
    carrying: Annotated[tuple[PathName, ...], Field(max_length=2)]


class Ping(_Base):
    """Answer this. `at` is the sender's clock, given back as it is."""

    type: Literal["ping"] = "ping"
    id: Counter
    at: Annotated[int, Field(ge=0, lt=1 << 63)]


class Pong(_Base):
    """`sync_id` is the newest of the answering node."""

    type: Literal["pong"] = "pong"
    id: Counter
    at: Annotated[int, Field(ge=0, lt=1 << 63)]
    sync_id: SyncId = 0


class Goodbye(_Base):
    """The origin drains: go to another one, `instead` if it names one. Media flows until the link is closed."""

    type: Literal["goodbye"] = "goodbye"
    reason: Text = ""
    instead: Annotated[str, Field(max_length=256)] = ""


Message = (
    Hello
    | Bind
    | Bound
    | Catalog
    | Subscribe
    | Subscribed
    | Refused
    | Demand
    | KeyframeRequest
    | WatchRoom
    | UnwatchRoom
    | RoomEvents
    | LinkState
    | Ping
    | Pong
    | Goodbye
)
_CLASSES: dict[str, type[BaseModel]] = {
    cast(str, member.model_fields["type"].default): member
    for member in (
        *(Hello, Bind, Bound, Catalog, Subscribe, Subscribed, Refused, Demand, KeyframeRequest),
        *(WatchRoom, UnwatchRoom, RoomEvents, LinkState, Ping, Pong, Goodbye),
    )
}
_ANY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def encode(message: Message, limit: int) -> bytes:
    """Return a message as it stands on the wire. Raises UsageError when it is longer than `limit` bytes."""
    body = json.dumps(message.model_dump(mode="json"), separators=(",", ":"), allow_nan=False).encode()
    if len(body) > limit:
        raise UsageError(f"a {message.type} message of {len(body)} bytes is longer than {limit}")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode(body: bytes) -> Message | None:
    """Read a message without its length; None for a type that is not known. Raises Malformed, UnknownVersion."""
    try:
        fields = _ANY.validate_json(body)
    except ValidationError as error:
        raise Malformed(f"a message is no JSON object: {error.errors()[0]['msg']}") from None
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise Malformed("a message has no type")
    if kind == "hello" and isinstance(fields.get("version"), int) and fields["version"] != VERSION:
        raise UnknownVersion(f"the peer speaks version {fields['version']} of the link, this node speaks {VERSION}")
    found = _CLASSES.get(kind)
    if found is None:
        return None
    try:
        return cast("Message", found.model_validate_json(body))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Malformed(f"{kind}: {place}: {first['msg']}"[:200]) from None


class MessageReader:
    """Cuts a stream of bytes into messages. Holds at most one unfinished message of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self.unknown = 0

    def receive(self, data: bytes) -> Iterator[Message]:
        """Take bytes, give the messages that they complete. Raises Malformed; the reader is of no use after that."""
        self._rest += data
        at = 0
        try:
            while len(self._rest) - at >= LENGTH_BYTES:
                length = int.from_bytes(self._rest[at : at + LENGTH_BYTES], "big")
                if length > self._limit:
                    raise Malformed(f"a message of {length} bytes is longer than {self._limit}")
                end = at + LENGTH_BYTES + length
                if len(self._rest) < end:
                    break
                body = bytes(self._rest[at + LENGTH_BYTES : end])
                at = end
                message = decode(body)
                if message is None:
                    self.unknown += 1
                else:
                    yield message
        finally:
            del self._rest[:at]

"""The Protocols through which the parts of a node meet. Nobody imports a sibling; `relay.node` hands them over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# --- what signaling asks of a node ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """A WHIP or WHEP offer whose token was already checked."""

    room: str
    identity: str
    role: str
    sdp: str
    client: str = ""
    """The HTTP User-Agent; some encoders need an answer of their own kind."""
    program: bool = False
    """WHEP: play the program by itself, and publications of the stage only where a slot is pinned to them."""
    one_sound: bool = False
    """WHEP: play all who are heard, without the viewer himself if he is a host, mixed in the first slot for sound."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an `Offer`: `session` names the WHIP or WHEP resource, `etag` its ICE generation."""

    session: str
    sdp: str
    etag: str


@dataclass(frozen=True, slots=True)
class IceFragment:
    """The SDP fragment (RFC 8840) that answers an ICE restart, with the new entity tag."""

    sdp: str
    etag: str


@dataclass(frozen=True, slots=True)
class SlotChange:
    """A wish for one slot; a field left out stays as it is. `publication` None gives the slot back to the policy."""

    changes: dict[str, Any] = field(default_factory=dict)
    """Any of `publication: str | None`, `paused: bool`, `layer: str | None` (pin a rid), `max_layer: str | None`."""


class NodeControl(Protocol):
    """What a node does for signaling. Errors: those of `relay.errors`; `Overloaded` when full or draining."""

    @property
    def node_id(self) -> str: ...

    async def publish(self, offer: Offer) -> Answer:
        """Answer a WHIP offer. Raises BadOffer, UnacceptableOffer, NotFound (room), Forbidden, Overloaded."""
        ...

    async def watch(self, offer: Offer) -> Answer:
        """Answer a WHEP offer. Raises as `publish` does."""
        ...

    async def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        """Take candidates (returns None) or restart ICE when the fragment has new credentials (returns the fragment).

        Raises NotFound, BadOffer, PreconditionFailed, PreconditionRequired (restart without `etag`).
        """
        ...

    async def close(self, session: str) -> None:
        """End a session. Raises NotFound."""
        ...

    def session(self, session: str) -> dict[str, Any]:
        """Read a session (the `Session` schema of the API). Raises NotFound."""
        ...

    def sessions(self, room: str | None = None) -> list[dict[str, Any]]:
        """Read all sessions, or those of one room."""
        ...

    async def change_slot(self, session: str, index: int, change: SlotChange) -> dict[str, Any]:
        """Re-bind, pause or cap a slot. Raises NotFound (session, slot, publication), BadRequest, Conflict (codec)."""
        ...

    def links(self) -> list[dict[str, Any]]:
        """Read the links to and from other nodes."""
        ...

    async def change_link(self, link: str, action: str) -> dict[str, Any]:
        """Force a link's media to its backup path (`open`), or back (`reset`). Raises NotFound (link, action)."""
        ...

    def status(self) -> dict[str, Any]:
        """Read the node (the `Node` schema of the API): id, load, limits, plane, draining."""
        ...


# --- who else is there ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a node tells about itself: who wants to call it needs no more."""

    id: str
    control_url: str
    region: str
    version: str
    certificate: str = ""
    """PEM of the certificate that its HTTPS shows; empty for plain HTTP."""
    sessions: int = 0
    max_sessions: int = 1
    draining: bool = False
    load: float = 0.0
    """0 to 1: the greatest of sessions, bitrate, memory and CPU, each as a share of its limit."""
    healthy: bool = True
    """Whether its packet plane works."""
    public_url: str = ""
    """Where clients reach its WHIP and WHEP, for redirects; empty when they do not."""
    link: tuple[str, ...] = ()
    """`host:port` of the media paths that other nodes dial, primary and backup; empty: no links."""
    hears: tuple[str, ...] = ()
    """The nodes of which its links bring something now."""

    @property
    def full(self) -> bool:
        """Whether it had all its sessions, or was at another limit, at the last heartbeat."""
        return self.sessions >= self.max_sessions or self.load >= 1


class NodeDirectory(Protocol):
    """The nodes that are alive. Every call raises StoreUnavailable within the store's time-out when it is gone."""

    async def announce(self, record: NodeRecord, expiry_s: float) -> None:
        """Write or renew a node's record; it ends by itself after `expiry_s`."""
        ...

    async def withdraw(self, node: str) -> None:
        """Remove a node's record; no error when there is none."""
        ...

    async def nodes(self) -> list[NodeRecord]:
        """List the records that have not expired, by id. One that cannot be read or believed is left out."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Wait until the list differs from the one that `nodes` returned last, for `timeout_s` at most.

        An expiry is only noticed by those who ask: call `nodes` afterwards in any case.
        """
        ...

    async def place(self, room: str, node: str, instead_of: str | None = None) -> str:
        """Return the node that a room was placed on; place it on `node` when it is on none, or on `instead_of`."""
        ...

    async def close(self) -> None: ...


class KnownNodes(Protocol):
    """The directory as this process knows it: no call waits, and it outlives the store."""

    def records(self) -> tuple[NodeRecord, ...]:
        """The nodes, by id."""
        ...

    def get(self, node: str) -> NodeRecord | None:
        """One node's record."""
        ...

    @property
    def current(self) -> bool:
        """Whether the store answered when it was last asked: False while what is known may be out of date."""
        ...


# --- who is the origin of a publication -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be the origin of a publication, for `ttl_s` after it was asked for.

    `epoch` is the fencing token: greater than any that was given out for this publication before, 62 bits. Whoever is
    offered the publication under several epochs believes the greatest.
    """

    room: str
    publication: str
    node: str
    epoch: int
    ttl_s: float


class LeaseStore(Protocol):
    """Who owns which publication. Every call raises StoreUnavailable within the store's time-out when it is gone; it
    may have been carried out all the same, and may then simply be made again."""

    async def acquire(self, room: str, publication: str, node: str, ttl_s: float, over: int | None = None) -> Lease:
        """Take a publication that nobody holds, that `node` holds itself, or that is held under epoch `over`, with a
        new epoch. Raises LeaseHeld, which names the owner."""
        ...

    async def renew(self, room: str, node: str, epochs: Mapping[str, int], ttl_s: float) -> dict[str, Lease | None]:
        """Renew a node's leases of a room, publication -> epoch, in one step.

        Returns those that are lost: the present owner's lease, None when nobody has it. One that expired is renewed
        when nobody took it meanwhile.
        """
        ...

    async def release(self, room: str, node: str, epochs: Mapping[str, int]) -> None:
        """Give leases back; those that are lost already are left alone."""
        ...

    async def owners(self, room: str) -> dict[str, Lease]:
        """Read who holds what in a room, by publication. `ttl_s` is what is left."""
        ...

    async def close(self) -> None: ...


# --- room state -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoomEvent:
    """Something that happened in a room. `sync_id` orders it; `type` is the stable name, `data` is JSON-ready.

    One that is not `stored` was made by a node while the store was away: it is in no stream and cannot be resumed from.
    """

    sync_id: int
    type: str
    data: dict[str, Any]
    stored: bool = True


class RoomStore(Protocol):
    """Where rooms live. Every call raises StoreUnavailable within the configured time-out when the store is gone.

    A room is one JSON-ready document, changed by pure functions under compare-and-set; the events that a change
    returns are appended to the room's stream in the same step, so that state and stream never disagree.
    """

    @property
    def pks(self) -> PkStore:
        """The PKs between rooms, beside them."""
        ...

    async def create(
        self, room: str, document: dict[str, Any], events: Iterable[tuple[str, dict[str, Any]]] = ()
    ) -> None:
        """Store a new room and its first events, `room.created` when none are given. Raises Conflict when it exists."""
        ...

    async def read(self, room: str) -> dict[str, Any]:
        """Read a room. Raises NotFound."""
        ...

    async def rooms(self) -> list[str]:
        """List the ids of all rooms."""
        ...

    async def change(self, room: str, apply: ChangeRoom) -> tuple[dict[str, Any], list[RoomEvent]]:
        """Apply a change and append its events. Returns the new document and its events with their sync ids.

        `apply` may run several times. Raises NotFound; whatever `apply` raises passes through and changes nothing.
        """
        ...

    async def append(
        self, room: str, events: Iterable[tuple[str, dict[str, Any]]], *, late: bool = False
    ) -> list[RoomEvent]:
        """Append events that change no state (a speaker, an application's own). Raises NotFound.

        `late`: also after the room's last event, for as long as its stream is kept. Followers have left by then;
        webhooks have not.
        """
        ...

    async def delete(self, room: str, event: tuple[str, dict[str, Any]]) -> None:
        """End a room: append a last event, then forget the state; followers see the event. Raises NotFound."""
        ...

    def events(self, room: str, after: int | None = None) -> AsyncIterator[RoomEvent]:
        """Follow a room's stream from `after` (exclusive; None: from now on) until closed. Raises NotFound, Gone-like
        Conflict when `after` is older than what is kept."""
        ...

    async def put_viewer(self, room: str, identity: str, data: dict[str, Any]) -> None:
        """Note a viewer's presence; kept apart from the document because there may be thousands."""
        ...

    async def drop_viewer(self, room: str, identity: str) -> None:
        """Forget a viewer's presence."""
        ...

    async def viewers(self, room: str, limit: int = 1000) -> dict[str, dict[str, Any]]:
        """Read who watches."""
        ...

    async def count_viewers(self, room: str) -> int:
        """Count who watches, however many they are."""
        ...

    @property
    def silent_s(self) -> float:
        """Seconds since the store last answered anything: some two while a room is followed and nothing happens."""
        ...

    async def ping(self) -> bool:
        """Whether the store answers now; never raises."""
        ...

    async def close(self) -> None: ...


ChangeRoom = Callable[[dict[str, Any]], tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]]
"""Takes a room's document, returns the new one and the events (type, data). Pure: it may run more than once."""


class PkStore(Protocol):
    """Where the records of PKs live: JSON-ready documents of one key each, which decide for two rooms at once.

    Every call raises StoreUnavailable within the configured time-out when the store is gone; a change may have been
    made all the same.
    """

    async def create(self, pk: str, document: dict[str, Any], ttl_s: float) -> None:
        """Store a new record, which is kept for `ttl_s` at least. Raises Conflict when there is one of this name."""
        ...

    async def read(self, pk: str) -> dict[str, Any]:
        """Read a record. Raises NotFound."""
        ...

    async def change(self, pk: str, apply: ChangeRecord, ttl_s: float) -> dict[str, Any]:
        """Apply a change under compare-and-set and return the record; `apply` may run several times, and one that
        returns its argument changes nothing. Raises NotFound; whatever `apply` raises passes through."""
        ...


ChangeRecord = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes a record, returns the new one. Pure: it may run more than once."""

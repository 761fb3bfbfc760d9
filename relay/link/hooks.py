"""How a node is attached to its links: what a link tells the node's plane and rooms. The node implements these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from relay.link.history import FlowSpec
from relay.link.messages import Publication
from relay.link.path import PathName
from relay.ports import RoomEvent


@dataclass(frozen=True, slots=True)
class LinkMoved:
    """A link's breaker moved, or, at the subscriber, was told to have moved. Media goes to `carrying` from the frame
    after `sync_id` on."""

    link: str
    peer: str
    code: Literal["LINK_UNSTABLE", "LINK_STABLE"]
    state: str
    previous: str
    reason: str
    sync_id: int
    carrying: tuple[PathName, ...]


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A connection of a link came or went; `metadata` is the channel. `reason` says why it went."""

    link: str
    peer: str
    path: Literal["metadata", "primary", "backup"]
    up: bool
    reason: str = ""


LinkEvent = LinkMoved | PathChanged


@dataclass(frozen=True, slots=True)
class LayerSource:
    """What the origin knows of a layer that is about to be tapped. `extensions` are the ids in the publisher's session
    by the names of `rtp.EXTENSIONS`."""

    spec: FlowSpec
    clock_hz: int
    extensions: dict[str, int]


class OriginHooks(Protocol):
    """What a `LinkServer` asks of its node. None of it may block or raise."""

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        """A first link wants a layer: give its packets to `LinkServer.feed` under this number. None: there is none.

        Numbers are multiples of four, and never used twice.
        """
        ...

    def untap(self, flow: int) -> None:
        """No link wants the layer any more."""
        ...

    def request_keyframe(self, publication: str, layer: int) -> None:
        """A subscriber needs a keyframe. Not coalesced here: the plane's RequestKeyframe does that."""
        ...

    def watch_room(self, room: str, watched: bool) -> None:
        """A first link wants the events of a room (give them to `LinkServer.room_events`), or the last one does not."""
        ...

    def link_changed(self, event: LinkEvent) -> None:
        """Something happened to a link."""
        ...


class SubscriberHooks(Protocol):
    """What a `LinkClient` tells its node. None of it may block or raise."""

    def admit(self, node: str, publication: Publication) -> str:
        """Say why a node may not offer this publication (another holds it, a later epoch is known); "" when it may."""
        ...

    def catalog_changed(self, node: str, publications: dict[str, Publication]) -> None:
        """This is what the node offers now, by publication id; fenced ones are left out."""
        ...

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None:
        """The origin sends these layers from now on: none when it cannot."""
        ...

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None:
        """The first packet of a layer is here, or its first from another source; `packets` follows."""
        ...

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        """New packets of a layer as they came, each once, for `plane.inject`. Some are late."""
        ...

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        """Events in the order of their sync ids, each once, with the media they belong to. `gap`: some are gone."""
        ...

    def link_changed(self, event: LinkEvent) -> None:
        """Something happened to the link."""
        ...

    def goodbye(self, node: str, reason: str, instead: str) -> None:
        """The origin drains. Media flows on until the link is closed: subscribe elsewhere, then close it."""
        ...

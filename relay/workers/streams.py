"""The two ends of a worker's link: streams that are offered, and the other machine's, all of which are taken.

A stream is a publication with one layer; its number, the one it has in the rings, is the publication's id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from relay.link import messages as m
from relay.link.history import FlowSpec
from relay.link.hooks import LayerSource, LinkEvent, PathChanged
from relay.link.serve import LinkServer
from relay.mix.video.assembly import VideoCodec
from relay.plane.contract import Kind
from relay.plane.reference.descriptors import Codec
from relay.plane.reference.state import CODECS, INJECT_EXTENSIONS
from relay.ports import RoomEvent

log = structlog.get_logger()

CLOCK_HZ = 90_000
WAITING = 512
"""Packets of a stream that are kept until the other side has subscribed: it takes a round trip, and the first of them
are a keyframe, of which the longest is some 300."""
_EPOCH = 1
_ANY_PAYLOAD_TYPE = 96  # a stream has one codec; what its packets call it is their affair


@dataclass(slots=True)
class _Offered:
    codec: VideoCodec
    published: bool
    flow: int | None = None
    waiting: deque[bytes] = field(default_factory=deque)
    lost: bool = False


class Offers:
    """See `relay.link.hooks.OriginHooks`. What is offered before there is a server waits for `serve`; `ask` is told
    which stream needs a keyframe."""

    def __init__(self, ask: Callable[[int], None]) -> None:
        self.server: LinkServer | None = None
        self.dropped = 0
        self._ask = ask
        self._offered: dict[int, _Offered] = {}

    def __contains__(self, stream: int) -> bool:
        return stream in self._offered

    def serve(self, server: LinkServer) -> None:
        """Offer by this server."""
        self.server = server
        self._tell()

    def offer(self, stream: int, codec: VideoCodec, *, later: bool = False) -> None:
        """Offer a stream, from its next packet on; `later`: keep its packets, and say so by `publish`."""
        self._offered[stream] = _Offered(codec, not later)
        self._tell()

    def publish(self, streams: Iterable[int]) -> None:
        """Offer what was to be offered later, as far as it is not withdrawn."""
        for stream in streams:
            if (one := self._offered.get(stream)) is not None:
                one.published = True
        self._tell()

    def withdraw(self, stream: int) -> None:
        """Offer it no more; no error when it was not offered."""
        if self._offered.pop(stream, None) is not None:
            self._tell()

    def feed(self, packets: Iterable[tuple[int, bytes]]) -> None:
        """Send packets of streams. Those of streams that are not offered are dropped, and counted."""
        flowing = []
        for stream, packet in packets:
            one = self._offered.get(stream)
            if one is None:
                self.dropped += 1
            elif one.flow is not None and not one.waiting:
                flowing.append((one.flow, packet))
            else:
                self._keep(one, packet)
        if flowing and self.server is not None:
            self.server.feed(flowing)

    def _keep(self, one: _Offered, packet: bytes) -> None:
        one.waiting.append(packet)
        if len(one.waiting) > WAITING:
            one.waiting.popleft()
            one.lost = True
            self.dropped += 1

    def _flush(self, one: _Offered) -> None:
        if one.flow is not None and self.server is not None:
            waiting, one.waiting = one.waiting, deque()
            self.server.feed([(one.flow, packet) for packet in waiting])

    def _tell(self) -> None:
        if self.server is not None:
            self.server.set_catalog(
                _publication(stream, one.codec) for stream, one in self._offered.items() if one.published
            )

    # --- the link asks ------------------------------------------------------------------------------------------------

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        one = self._offered.get(_stream(publication))
        if one is None or not one.published or layer:
            return None
        one.flow = flow
        asyncio.get_running_loop().call_soon(self._flush, one)  # the link takes packets once this has returned
        codecs: dict[int, Codec] = dict.fromkeys(range(128), CODECS[one.codec])
        return LayerSource(FlowSpec(Kind.VIDEO, codecs), CLOCK_HZ, dict(INJECT_EXTENSIONS))

    def untap(self, flow: int) -> None:
        for one in self._offered.values():
            if one.flow == flow:
                one.flow, one.lost = None, True

    def request_keyframe(self, publication: str, layer: int) -> None:
        """The first request comes with the subscription, and is answered by what waits, if that is whole."""
        stream = _stream(publication)
        one = self._offered.get(stream)
        if one is None:
            return
        if one.waiting and not one.lost:
            return
        one.lost = False
        self._ask(stream)

    def watch_room(self, room: str, watched: bool) -> None:
        """There are no rooms here."""

    def link_changed(self, event: LinkEvent) -> None:
        _note(event)


class Takes:
    """See `relay.link.hooks.SubscriberHooks`: subscribes to all that is offered, and hands on its packets."""

    def __init__(self, take: Callable[[int, Sequence[bytes]], None]) -> None:
        self.subscribe: Callable[[str, int, Iterable[int]], None] = lambda *_: None
        self.unsubscribe: Callable[[str], None] = lambda _: None
        self._take = take
        self._taken: set[str] = set()

    def admit(self, node: str, publication: m.Publication) -> str:
        return "" if _stream(publication.id) >= 0 else "a stream has a number"

    def catalog_changed(self, node: str, publications: dict[str, m.Publication]) -> None:
        for gone in self._taken - publications.keys():
            self._taken.discard(gone)
            self.unsubscribe(gone)
        for fresh in publications.keys() - self._taken:
            self._taken.add(fresh)
            self.subscribe(fresh, publications[fresh].epoch, (0,))

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None:
        """What flows shows by its packets."""

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None:
        """Likewise."""

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        self._take(_stream(publication), packets)

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        """There are no rooms here."""

    def link_changed(self, event: LinkEvent) -> None:
        _note(event)

    def goodbye(self, node: str, reason: str, instead: str) -> None:
        """Who says so also ends the link."""


def _publication(stream: int, codec: VideoCodec) -> m.Publication:
    codecs = (m.Codec(number=_ANY_PAYLOAD_TYPE, codec=codec, clock_hz=CLOCK_HZ),)
    return m.Publication(id=str(stream), epoch=_EPOCH, room="program", kind="video", codecs=codecs, layers=(m.Layer(),))


def _stream(publication: str) -> int:
    """Return the number that a publication's id is; -1 when it is none."""
    return int(publication) if publication.isascii() and publication.isdigit() and len(publication) < 16 else -1


def _note(event: LinkEvent) -> None:
    if isinstance(event, PathChanged):
        log.debug("worker's link", path=event.path, up=event.up, reason=event.reason)
    else:
        log.warning("worker's link moved", state=event.state, reason=event.reason, carrying=event.carrying)

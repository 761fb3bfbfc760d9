"""The origin's end of all links of a node: who subscribes to what, and the packets and events they get.

A link outlives the loss of its metadata channel by `silence_ms`: a subscriber that comes back with the link's id finds
its subscriptions.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence

import structlog
from pydantic import TypeAdapter

from relay.clock import now_us
from relay.errors import NotFound, PeerError
from relay.ids import HybridClock
from relay.link import messages as m
from relay.link.hooks import LayerSource, LinkMoved, OriginHooks, PathChanged
from relay.link.media_path import Binding
from relay.link.metadata import ASKED, MetadataChannel
from relay.link.path import PathName
from relay.link.quic.connection import Connection
from relay.link.quic.endpoint import Endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.served_link import ServedLink
from relay.link.served_rooms import ServedRooms
from relay.link.served_taps import ServedTaps
from relay.link.tasks import LinkTasks
from relay.plane.contract import Kind
from relay.ports import RoomEvent
from relay.settings import BreakerSettings, LinkFlowSettings

CATALOG_BATCH = 64  # publications in one message
MAX_LINKS = 1024
log = structlog.get_logger(__name__)
_CATALOG: TypeAdapter[list[m.Publication]] = TypeAdapter(list[m.Publication])


def wall_us() -> int:
    """Return the wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class LinkServer:
    """Call `start` on the running loop, `feed` with what the plane taps, and `close` at the end."""

    def __init__(
        self,
        endpoint: Endpoint,
        node: str,
        hooks: OriginHooks,
        clock: HybridClock,
        settings: LinkFlowSettings | None = None,
        breaker: BreakerSettings | None = None,
    ) -> None:
        self.node = node
        self.links: dict[str, ServedLink] = {}
        self.draining = False
        self.refused = 0
        self._endpoint = endpoint
        self._hooks = hooks
        self._clock = clock
        self._settings = settings or LinkFlowSettings()
        self._breaker = breaker or BreakerSettings()
        self._publications: dict[str, m.Publication] = {}
        self._version = 1
        self._taps = ServedTaps(hooks, clock)
        self._rooms = ServedRooms(hooks, self._settings.event_history)
        self._instead = ""
        self.instance = secrets.token_hex(8)
        self._tasks = LinkTasks()

    def start(self) -> None:
        """Take connections from now on."""
        self._endpoint.on_connection = self._connected
        self._tasks.spawn(self._tick())

    async def close(self, reason: str = "the node stops") -> None:
        """End all links. The endpoint stays open: it is the caller's."""
        self._endpoint.on_connection = lambda connection: connection.close(reason)
        await self._tasks.cancel()
        for link in tuple(self.links.values()):
            self._end(link, reason)

    def drain(self, instead: str = "") -> None:
        """Tell all subscribers to go to another origin; take no new subscriptions. Media flows on until `close`."""
        self.draining, self._instead = True, instead
        for link in self.links.values():
            link.say(m.Goodbye(reason="draining", instead=instead))

    # --- what the node offers ---------------------------------------------------------------------------------------

    def set_catalog(self, publications: Iterable[m.Publication]) -> None:
        """Offer exactly these publications from now on.

        A later epoch of what was offered without a break is that of a lease that the store had forgotten: what flows
        goes on flowing. An earlier one ends the subscriptions.
        """
        fresh = {publication.id: publication for publication in publications}
        removed = tuple(key for key in self._publications if key not in fresh)
        changed = tuple(entry for key, entry in fresh.items() if self._publications.get(key) != entry)
        for key in removed + tuple(entry.id for entry in changed if self._moved_on(entry)):
            self._taps.drop(key)
        if not removed and not changed:
            return
        self._publications = fresh
        base, self._version = self._version, self._version + 1
        for link in self.links.values():
            self._send_catalog(link, base, changed, removed)

    def _moved_on(self, publication: m.Publication) -> bool:
        known = self._publications.get(publication.id)
        return known is not None and known.epoch > publication.epoch

    def _send_catalog(
        self, link: ServedLink, base: int | None, changed: Sequence[m.Publication], removed: tuple[str, ...] = ()
    ) -> None:
        for at in range(0, max(1, len(changed)), CATALOG_BATCH):
            batch = tuple(self._taps.anchored(entry) for entry in changed[at : at + CATALOG_BATCH])
            link.say(m.Catalog(version=self._version, base=base, publications=batch, removed=removed))
            base, removed = self._version, ()

    def change_source(self, flow: int, source: LayerSource) -> None:
        """The publisher of a tapped layer came back on another session, with other header extension ids."""
        self._taps.change_source(flow, source)

    def feed(self, packets: Iterable[tuple[int, bytes]]) -> None:
        """Send tapped packets, each with the flow number that `OriginHooks.tap` was given. One batch, one flush."""
        now = now_us()
        for link in self._taps.feed(packets, now, wall_us()):
            link.flush(now)

    def room_events(self, room: str, events: Sequence[RoomEvent]) -> None:
        """Send a room's events to who watches it. Ignored when nobody does."""
        for event in events:
            self._clock.observe(event.sync_id)
        self._rooms.say(room, events)

    # --- by hand ----------------------------------------------------------------------------------------------------

    def link(self, link: str) -> ServedLink:
        """Find a link, for `state`, `force_open` and `reset`. Raises NotFound."""
        found = self.links.get(link)
        if found is None:
            raise NotFound(f"no link {link}")
        return found

    # --- connections ------------------------------------------------------------------------------------------------

    def _connected(self, connection: Connection) -> None:
        serve = self._serve_channel if connection.alpn == H3_ALPN else self._serve_path
        self._tasks.spawn(serve(connection))

    async def _serve_channel(self, connection: Connection) -> None:
        # early data may be a replay: nothing of it counts before the handshake is done
        try:
            await connection.wait_ready()
        except PeerError as error:
            log.info("link not ready", remote=connection.remote, reason=str(error))
            return
        channel = MetadataChannel(
            connection, self._settings, now_us(), catalog=self._catalog_json, newest_sync_id=lambda: self._clock.last
        )
        deadline = asyncio.get_running_loop().call_later(
            self._settings.call_timeout_ms / 1000, lambda: channel.close("no hello in time")
        )

        def ended(reason: str) -> None:
            deadline.cancel()
            if reason != ASKED:
                self._refuse("metadata channel not taken", connection.peer, reason)

        channel.on_closed = ended

        def first(message: m.Message) -> None:
            deadline.cancel()
            self._hello(channel, message)

        channel.on_message = first

    async def _serve_path(self, connection: Connection) -> None:
        try:
            await connection.wait_ready()
        except PeerError as error:
            log.info("path not ready", remote=connection.remote, reason=str(error))
            return

        def refused(reason: str) -> None:
            self._refuse("media path not taken", connection.peer, reason)

        Binding(connection, self._bind, self._settings.call_timeout_ms / 1000, refused)

    def _refuse(self, what: str, peer: str, reason: str) -> None:
        """Of a peer whose certificate is good: worth a line."""
        self.refused += 1
        log.warning(what, peer=peer, reason=reason)

    def _catalog_json(self) -> bytes:
        return _CATALOG.dump_json([self._taps.anchored(entry) for entry in self._publications.values()])

    def _hello(self, channel: MetadataChannel, hello: m.Message) -> None:
        peer = channel.connection.peer
        if not isinstance(hello, m.Hello):
            channel.close(f"the channel began with a {hello.type} message")
            return
        known = self.links.get(hello.link)
        reason = ""
        if hello.node != peer:
            reason = f"{peer} says that it is {hello.node}"
        elif known is not None and known.peer != peer:
            reason = "this link is another node's"
        elif known is None and len(self.links) >= MAX_LINKS:
            reason = "too many links"
        if reason:
            channel.close(reason)
            return
        link = known or ServedLink(
            hello.link, peer, self._settings, self._breaker, self._moved, self._taps.request_keyframe
        )
        self.links[link.link] = link
        if link.channel is not None:
            link.channel.on_closed = lambda reason: None
            link.channel.close("replaced by a new channel")
        link.channel, link.alone_since = channel, 0
        channel.on_message = lambda message: self._message(link, message)
        channel.on_closed = lambda reason: self._channel_lost(link, channel, reason)
        self._hooks.link_changed(PathChanged(link.link, peer, "metadata", True))
        link.say(m.Hello(node=self.node, link=link.link, capabilities=("parity", "absent"), instance=self.instance))
        self._send_catalog(link, None, tuple(self._publications.values()))
        if self.draining:
            link.say(m.Goodbye(reason="draining", instead=self._instead))

    def _channel_lost(self, link: ServedLink, channel: MetadataChannel, reason: str) -> None:
        if link.channel is channel:
            link.channel, link.alone_since = None, now_us()
            self._hooks.link_changed(PathChanged(link.link, link.peer, "metadata", False, reason))

    def _bind(self, binding: Binding, bind: m.Bind) -> None:
        connection = binding.connection
        link = self.links.get(bind.link)
        if link is None or link.peer != connection.peer:
            binding.refuse("no such link")
        elif bind.generation <= link.generations.get(bind.path, -1):
            binding.refuse("a newer connection of this path is known")
        else:
            binding.accept()
            connection.on_closed = lambda reason: self._path_lost(link, bind.path, connection, reason)
            link.attach(bind.path, connection, bind.generation)
            self._hooks.link_changed(PathChanged(link.link, link.peer, bind.path, True))

    def _path_lost(self, link: ServedLink, name: PathName, connection: object, reason: str) -> None:
        path = link.paths.get(name)
        if path is not None and path.connection is connection:
            link.detach(name, reason)
            self._hooks.link_changed(PathChanged(link.link, link.peer, name, False, reason))

    # --- messages ---------------------------------------------------------------------------------------------------

    def _message(self, link: ServedLink, message: m.Message) -> None:
        match message:
            case m.Subscribe():
                self._subscribe(link, message)
            case m.Demand():
                for (publication, layer), flow in link.flows.items():
                    if publication == message.publication:
                        link.sender.pause_flow(flow, layer not in message.layers)
            case m.KeyframeRequest():
                if (message.publication, message.layer) in link.flows:
                    self._hooks.request_keyframe(message.publication, message.layer)
            case m.WatchRoom():
                self._rooms.watch(link, message)
            case m.UnwatchRoom():
                self._rooms.unwatch(link, message.room)
            case m.Refused():
                log.warning("claim refused", peer=link.peer, publication=message.publication, code=message.code)
                self.refused += 1
            case m.Goodbye():
                self._end(link, "the subscriber leaves")
            case _:
                if link.channel is not None:
                    link.channel.close(f"a subscriber does not send {message.type} messages")

    def _subscribe(self, link: ServedLink, wish: m.Subscribe) -> None:
        known = self._publications.get(wish.publication)
        present = {layer for key, layer in link.flows if key == wish.publication}
        layers = len(known.layers) if known else 0
        fresh = [layer for layer in dict.fromkeys(wish.layers) if layer not in present and layer < layers]
        total = len(link.flows) - len(present.difference(wish.layers)) + len(fresh)
        code, detail = "", ""
        if known is None:
            code, detail = "NOT_FOUND", "no such publication here"
        elif known.epoch != wish.epoch:
            code, detail = "FENCED", f"epoch {known.epoch} holds here"
        elif total > self._settings.max_flows:
            code, detail = "LIMIT", f"more than {self._settings.max_flows} flows on one link"
        elif self.draining and fresh:
            code, detail = "DRAINING", self._instead
        if code or known is None:
            link.say(
                m.Refused(
                    request=wish.request, publication=wish.publication, epoch=wish.epoch, code=code, detail=detail
                )
            )
            return
        for layer in present:
            if layer not in wish.layers:
                self._taps.leave(link, wish.publication, layer)
        joined = [layer for layer in fresh if self._taps.join(link, known.id, layer)]
        found = tuple(
            m.FlowOf(layer=layer, flow=flow)
            for (key, layer), flow in sorted(link.flows.items())
            if key == wish.publication
        )
        link.say(m.Subscribed(request=wish.request, publication=known.id, epoch=known.epoch, flows=found))
        if known.kind == Kind.VIDEO.value:
            for layer in joined:
                self._hooks.request_keyframe(known.id, layer)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _moved(self, link: ServedLink, move: m.LinkState) -> None:
        self._hooks.link_changed(
            LinkMoved(
                link.link, link.peer, move.code, move.state, move.previous, move.reason, move.sync_id, move.carrying
            )
        )

    def _end(self, link: ServedLink, reason: str) -> None:
        if self.links.pop(link.link, None) is None:
            return
        self._taps.leave_all(link)
        self._rooms.leave(link)
        link.close(reason)
        self._hooks.link_changed(PathChanged(link.link, link.peer, "metadata", False, reason))

    async def _tick(self) -> None:
        pause = self._settings.tick_ms / 1000
        while True:
            await asyncio.sleep(pause)
            now = now_us()
            for link in tuple(self.links.values()):
                link.tick(now)
                if link.alone_since and now - link.alone_since > self._settings.silence_ms * 1000:
                    self._end(link, "the subscriber is gone")

"""The subscriber's end of one link: dials all three connections, keeps them, and hands on what comes.

What is wanted is kept here and said again whenever the channel comes back; packets in between are asked for like any
that are missing. The backup is connected all the time. Whatever is lost is dialled again with back-off, with 0-RTT when
a session ticket is there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

from relay.clock import now_us
from relay.errors import PeerError
from relay.ids import HybridClock
from relay.link import messages as m
from relay.link import roq
from relay.link.hooks import PathChanged, SubscriberHooks
from relay.link.media_path import Inlet
from relay.link.metadata import ASKED, MetadataChannel
from relay.link.path import PathName, PathReport
from relay.link.paths import PATHS, other
from relay.link.quic.connection import Connection
from relay.link.quic.endpoint import Endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.receiver import LinkReceiver, StreamStarted
from relay.link.subscriptions import Subscriptions
from relay.link.tasks import LinkTasks
from relay.link.transport import Remote
from relay.settings import LinkFlowSettings

STALLED_US = 500_000  # without an acknowledgement, when there is another way to the origin
STALLED_MOST_US = 2_000_000
STALLED_PTOS = 3
STALLED_TURNS = 10
ANEW = "the origin has begun anew"
ASK_S, ASK_AGAIN_S = 1.0, 0.5  # one that takes longer tells nothing: who came back since is asked sooner by another
KEYFRAME_US = 100_000  # the origin's plane coalesces, too; this only spares it the messages of a burst
ConnectionName = Literal["metadata", "primary", "backup"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where one connection of a link goes, and the local socket that it leaves from."""

    endpoint: Endpoint
    remote: Remote


class LinkClient:
    """One per origin node. Call `start` on the running loop, say what is wanted at any time, and `close` at the end."""

    def __init__(
        self,
        node: str,
        origin: str,
        routes: Mapping[ConnectionName, Route],
        hooks: SubscriberHooks,
        clock: HybridClock,
        settings: LinkFlowSettings | None = None,
    ) -> None:
        self.node = node
        self.origin = origin
        self.link = secrets.token_hex(16)
        self.dials = dict.fromkeys(("metadata", *PATHS), 0)
        self.early_dials = 0
        self.last_error: dict[str, str] = {}
        self.breaker_state = "closed"
        self.carrying: tuple[PathName, ...] = ("primary",)
        self._routes = routes
        self._hooks = hooks
        self._settings = settings or LinkFlowSettings()
        self.receiver = LinkReceiver(self._settings)
        self._wants = Subscriptions(origin, self.receiver, hooks, clock, self._settings, self._say)
        self._channel: MetadataChannel | None = None
        self._greeted = asyncio.Event()
        self._instance = ""
        self._channel_route: ConnectionName = "metadata"
        self._stalls = 0  # turns in a row
        self._silent = 0  # likewise, of all connections
        self._asking = False
        self._paths: dict[PathName, Connection] = {}
        self._generation = 0
        self._keyframes: dict[tuple[str, int], int] = {}
        self._media_at = 0
        self._tasks = LinkTasks()
        self._dice = Random(secrets.randbits(64))
        self._clock = clock

    def start(self) -> None:
        """Dial, and go on dialling."""
        self._tasks.spawn(self._keep_channel())
        for name in PATHS:
            self._tasks.spawn(self._keep_path(name))
        self._tasks.spawn(self._tick())

    async def close(self, reason: str = "the link is not needed any more") -> None:
        """Say goodbye and end the link. The endpoints stay open: they are the caller's."""
        self._say(m.Goodbye(reason=reason))
        await asyncio.sleep(0)  # one turn of the loop sends it
        await self._tasks.cancel()
        for connection in tuple(self._paths.values()):
            connection.close(reason)
        if self._channel is not None:
            self._channel.close(reason)

    # --- what is wanted ---------------------------------------------------------------------------------------------

    @property
    def catalog(self) -> dict[str, m.Publication]:
        """What the origin offers and may offer, by publication id."""
        return dict(self._wants.catalog)

    def offer(self, publication: str) -> m.Publication | None:
        """One entry of `catalog`."""
        return self._wants.catalog.get(publication)

    @property
    def connected(self) -> tuple[str, ...]:
        """The connections that are there now."""
        channel = ("metadata",) if self._channel is not None and self._greeted.is_set() else ()
        return (*channel, *(name for name in PATHS if name in self._paths))

    @property
    def heard_at(self) -> int:
        """When the origin last said anything, on whichever connection; monotonic microseconds, 0 for never."""
        return max(self._media_at, self._channel.heard_at if self._channel is not None else 0)

    def subscribe(self, publication: str, epoch: int, layers: Iterable[int]) -> None:
        """Want exactly these layers of a publication, from the origin that holds it in this epoch."""
        self._wants.subscribe(publication, epoch, tuple(layers))

    def unsubscribe(self, publication: str) -> None:
        """Want nothing of a publication any more. No error when nothing was wanted."""
        self._wants.unsubscribe(publication)

    def demand(self, publication: str, layers: Iterable[int]) -> None:
        """Of the subscribed layers let only these flow; the others pause and keep their flows."""
        self._wants.demand(publication, tuple(layers))

    def request_keyframe(self, publication: str, layer: int) -> None:
        """Ask for a keyframe of a subscribed layer; requests in quick succession are one."""
        now = now_us()
        key = (publication, layer)
        if now - self._keyframes.get(key, -KEYFRAME_US) >= KEYFRAME_US:
            self._keyframes[key] = now
            self._say(m.KeyframeRequest(publication=publication, layer=layer))

    def watch_room(self, room: str, after: int | None = None) -> None:
        """Want a room's events: those after a sync id, or from now on."""
        self._wants.watch_room(room, after)

    def unwatch_room(self, room: str) -> None:
        """Want a room's events no more."""
        self._wants.unwatch_room(room)

    def recheck(self) -> None:
        """The directory changed: ask `SubscriberHooks.admit` again about all that the origin offers."""
        self._wants.recheck()

    def state(self) -> dict[str, Any]:
        """Describe the link, JSON-ready."""
        counts = asdict(self.receiver.totals()) | {"unknown_flow": self.receiver.unknown_flow}
        return {
            "link": self.link,
            "peer": self.origin,
            "role": "subscriber",
            "breaker": self.breaker_state,
            "carrying": list(self.carrying),
            "connected": list(self.connected),
            "dials": dict(self.dials),
            "early_dials": self.early_dials,
            "last_error": dict(self.last_error),
            "flows": len(self.receiver.flow_numbers),
            "bytes": counts.pop("bytes"),
            "longest_gap_us": counts.pop("longest_gap_us"),
            "counts": counts,
        }

    # --- connections ------------------------------------------------------------------------------------------------

    async def _keep_channel(self) -> None:
        failures = 0
        while True:
            began = now_us()
            reason = ""
            try:
                reason = await self._hold_channel()
            except (PeerError, TimeoutError) as error:
                reason = str(error) or "no answer in time"
            failures = 0 if self._held_long(began) else failures + 1
            self.last_error["metadata"] = reason
            # events and requests must not wait for a path that media has left
            self._channel_route = "backup" if self._channel_route == "metadata" else "metadata"
            await self._back_off(failures)

    async def _hold_channel(self) -> str:
        """Dial the channel and return when and why it was lost."""
        connection = await self._dial("metadata", H3_ALPN)
        channel = MetadataChannel(connection, self._settings, now_us(), newest_sync_id=lambda: self._clock.last)
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.on_closed = lambda reason: None if lost.done() else lost.set_result(reason)

        def first(message: m.Message) -> None:
            if not isinstance(message, m.Hello) or message.node != self.origin:
                channel.close(f"{self.origin} began with {message.type} of {getattr(message, 'node', 'nobody')}")
                return
            channel.on_message = self._message
            self._channel = channel
            self._greet(message.instance)
            self._hooks.link_changed(PathChanged(self.link, self.origin, "metadata", True))
            self._wants.channel_opened()
            if not greeted.done():
                greeted.set_result(None)

        channel.on_message = first
        try:
            channel.open()
            channel.send(m.Hello(node=self.node, link=self.link, capabilities=("parity", "absent")))
            first_of: set[asyncio.Future[Any]] = {lost, greeted}
            await asyncio.wait(
                first_of, timeout=self._settings.call_timeout_ms / 1000, return_when=asyncio.FIRST_COMPLETED
            )
            if not lost.done() and not greeted.done():
                channel.close("no hello in time")
            return await lost
        finally:
            channel.close("the channel is given up")
            if self._channel is channel:
                self._channel = None
                reason = lost.result() if lost.done() and not lost.cancelled() else ""
                self._hooks.link_changed(PathChanged(self.link, self.origin, "metadata", False, reason))

    def _greet(self, instance: str) -> None:
        """The origin has answered. Paths to an earlier process of it would stay until they time out, as nobody gives
        a path up because it is silent."""
        if self._instance not in ("", instance):
            for connection in tuple(self._paths.values()):
                connection.close(ANEW)
        self._instance = instance
        self._greeted.set()

    async def _keep_path(self, name: PathName) -> None:
        failures = 0
        while True:
            await self._greeted.wait()
            began = now_us()
            try:
                reason = await self._hold_path(name)
            except (PeerError, TimeoutError) as error:
                reason = str(error) or "no answer in time"
            failures = 0 if self._held_long(began) else failures + 1
            self.last_error[name] = reason
            await self._back_off(failures)

    async def _hold_path(self, name: PathName) -> str:
        """Dial a path, tie it to the link, and return when and why it was lost."""
        connection = await self._dial(name, roq.ALPN)
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        inlet = Inlet(connection, lambda datagrams: self._arrive(name, datagrams))

        def ended(reason: str) -> None:
            inlet.lost(reason)
            if not lost.done():
                lost.set_result(reason)

        connection.on_closed = ended
        if connection.closed:
            return "closed at once"
        try:
            self._generation += 1
            await inlet.bind(self.link, name, self._generation, self._settings.call_timeout_ms / 1000)
            self._paths[name] = connection
            self.receiver.path_opened(name)
            self._hooks.link_changed(PathChanged(self.link, self.origin, name, True))
            return await lost
        finally:
            connection.close("the path is given up")
            if self._paths.get(name) is connection:
                del self._paths[name]
                reason = lost.result() if lost.done() and not lost.cancelled() else ""
                self._hooks.link_changed(PathChanged(self.link, self.origin, name, False, reason))

    async def _dial(self, name: ConnectionName, alpn: str) -> Connection:
        route = self._routes[self._channel_route if name == "metadata" else name]
        self.dials[name] += 1
        connection = await route.endpoint.connect(route.remote, alpn, self.origin, path=name)
        self.early_dials += connection.early
        return connection

    def _held_long(self, began: int) -> bool:
        return now_us() - began > self._settings.redial_max_ms * 1000

    async def _back_off(self, failures: int) -> None:
        least, most = self._settings.redial_min_ms, self._settings.redial_max_ms
        wait = min(most, least << min(failures, 16))
        await asyncio.sleep(wait * (0.5 + self._dice.random() / 2) / 1000)

    # --- what comes -------------------------------------------------------------------------------------------------

    def _arrive(self, name: PathName, datagrams: list[bytes]) -> None:
        self._media_at = now = now_us()
        receive = self.receiver.receive
        for datagram in datagrams:
            receive(name, datagram, now)
        self._deliver(now)

    def _deliver(self, now: int) -> None:
        for event in self.receiver.events():
            if isinstance(event, StreamStarted):
                self._wants.started(event)
        self._wants.deliver(self.receiver.arrived(), now)
        for name, datagram in self.receiver.transmit():
            connection = self._paths.get(name) or self._paths.get(other(name))
            if connection is not None:
                connection.send_datagram(datagram)

    def _message(self, message: m.Message) -> None:
        match message:
            case m.Catalog() | m.Subscribed() | m.Refused() | m.RoomEvents():
                if not self._wants.message(message, now_us()) and self._channel is not None:
                    self._channel.close("a catalog's change does not fit the catalog")
                self._deliver(now_us())
            case m.LinkState():
                self.breaker_state, self.carrying = message.state, message.carrying
                self.receiver.both_carry = len(message.carrying) > 1
                self._hooks.link_changed(self._wants.moved(self.link, message))
            case m.Goodbye():
                self._hooks.goodbye(self.origin, message.reason, message.instead)
            case _:
                if self._channel is not None:
                    self._channel.close(f"an origin does not send {message.type} messages")

    def _say(self, message: m.Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    async def _tick(self) -> None:
        pause = self._settings.tick_ms / 1000
        while True:
            await asyncio.sleep(pause)
            now = now_us()
            answered = False
            for name, connection in self._paths.items():
                report = connection.report(now)
                answered = answered or not _is_stalled(report)
                for sample in report.rtt_us:
                    self.receiver.note_rtt(name, sample)
            self.receiver.handle_timeout(now)
            self._deliver(now)
            if self._channel is not None:
                self._channel.tick(now)
                stalled = _is_stalled(self._channel.connection.report(now))
                self._look_after_channel(self._channel, stalled and answered)
                self._look_after_link(stalled and not answered)

    def _look_after_channel(self, channel: MetadataChannel, alone: bool) -> None:
        """Leave a channel that is not answered while a path is (`alone`): it is dialled again on the other route.

        It has to be seen to stand for some turns: a process that slept reads its sockets before it blames a path.
        """
        self._stalls = self._stalls + 1 if alone else 0
        if self._stalls > STALLED_TURNS:
            self._stalls = 0
            channel.close("no answer on the metadata channel")

    def _look_after_link(self, silent: bool) -> None:
        """When nothing is answered (`silent`), ask on a new connection: either the network takes nothing, or the origin
        is another process than before, which knows none of the old ones: they would have to run into their time-outs.
        """
        self._silent = self._silent + 1 if silent else 0
        if self._silent > STALLED_TURNS and not self._asking:
            self._asking = True
            self._tasks.spawn(self._ask_anew())

    async def _ask_anew(self) -> None:
        route = self._routes[self._channel_route]
        try:
            connection = await route.endpoint.connect(route.remote, H3_ALPN, self.origin, early=False, timeout_s=ASK_S)
        except (PeerError, TimeoutError):
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            connection.close(ASKED)
            if self._silent and self._channel is not None:
                self._greeted.clear()  # paths are of no use before the link is known there
                for each in (self._channel.connection, *self._paths.values()):
                    each.close(ANEW)
        self._asking = False


def _is_stalled(report: PathReport) -> bool:
    if report.closed or report.oldest_unacked is None:
        return report.closed
    patience = max(STALLED_US, min(STALLED_PTOS * report.pto_us, STALLED_MOST_US))
    return report.now - report.oldest_unacked > patience

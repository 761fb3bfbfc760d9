"""The body of a link process: the ends of all links of a node, between the plane's two rings.

Packets of local publications come by the tap ring, those of other nodes go by the inject ring; everything else is said
over the control socket. The process ends when that ends, and with the relay. Its clock gives out nothing: it observes
the frames that pass, and the relay's; the relay's observes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Sequence
from typing import assert_never

import structlog
import uvloop

from relay.errors import NotFound, PeerError, SettingsError
from relay.ids import HybridClock
from relay.link.dial import LinkClient
from relay.link.quic import identity_of
from relay.links import messages as m
from relay.links.ends import LocalEnds
from relay.links.sides import OriginSide, SubscriberSide, pulses
from relay.log import configure_logging
from relay.plane.shared_ring import RingPacket, SharedRing
from relay.process.control import Wire
from relay.process.stream import GONE, ControlStream
from relay.process.worker import die_with

PULSE_S = 0.2
END_S = 2.0
ROUND = 64
"""Packets that are taken from the tap ring at a time: one batch for the server, one flush of each path."""
log = structlog.get_logger(__name__)


class Body:
    """One link process. `run` it."""

    def __init__(self, control: int, taps: Sequence[int], injects: Sequence[int]) -> None:
        self._taps = SharedRing.attach(taps).reader()
        self._injects = SharedRing.attach(injects).writer()
        self._over = asyncio.Event()
        self._control = ControlStream(socket.socket(fileno=control), Wire(*m.ORDERS), self._hear, self._end)
        self._tell = self._control.send
        self._origin = OriginSide(self._tell)
        self._backlog: list[m.Order] = []
        self._begin: asyncio.Future[m.Begin] = asyncio.get_running_loop().create_future()
        self._ends: LocalEnds | None = None
        self._clock = HybridClock()
        self._links: dict[int, tuple[LinkClient, SubscriberSide]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._reading = False
        self.unknown_packets = 0

    async def run(self) -> None:
        """Serve until the relay is gone."""
        over = asyncio.create_task(self._over.wait())
        first: set[asyncio.Future[object]] = {over, self._begin}  # type: ignore[arg-type]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self._begin.done():
            try:
                await self._open(self._begin.result())
            except SettingsError as error:
                self._tell(m.Failed(str(error)))
            else:
                pulse = asyncio.create_task(self._pulse())
                await over
                pulse.cancel()
        over.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._close(), END_S)

    async def _open(self, begin: m.Begin) -> None:
        configure_logging(begin.log, node=begin.node, process="links")
        self._clock.observe(begin.sync_id)
        identity = identity_of(begin.link)
        if identity is None:
            raise SettingsError("link.certificate is not set")
        ends = LocalEnds(begin.link, identity, begin.node, self._clock, self._origin)
        await ends.open()
        self._ends = ends
        loop = asyncio.get_running_loop()
        loop.add_reader(self._taps.fileno(), self._readable)
        loop.call_soon(self._readable)  # the first look asks to be woken
        self._tell(m.Ready())
        backlog, self._backlog = self._backlog, []
        for order in backlog:
            self._carry_out(ends, order)

    async def _close(self) -> None:
        if self._ends is None:
            return
        asyncio.get_running_loop().remove_reader(self._taps.fileno())
        for number in tuple(self._links):
            self._hang_up(number)
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._ends.close()

    def _end(self, why: str) -> None:
        if why != GONE:
            log.error("link process ends", reason=why)
        self._over.set()

    async def _pulse(self) -> None:
        while True:
            dialled = [(number, link.heard_at, link.state()) for number, (link, _) in self._links.items()]
            for pulse in pulses(self._clock.last, self._ends.served() if self._ends is not None else [], dialled):
                self._tell(pulse)
            await asyncio.sleep(PULSE_S)

    # --- packets ----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        self._reading = False
        try:
            batch = self._taps.read(ROUND)
        except PeerError as error:
            self._end(str(error))
            return
        if batch and self._ends is not None:
            self._ends.server.feed(self._flows(batch))
            self._taps.release()
            if not self._reading:
                self._reading = True
                asyncio.get_running_loop().call_soon(self._readable)
        elif self._taps.ring.gone:
            self._end("the relay's plane is gone")

    def _flows(self, batch: Sequence[RingPacket]) -> list[tuple[int, bytes]]:
        flow_of = self._origin.flow_of
        if any(packet.stream not in flow_of for packet in batch):
            self._control.pump()  # the answer to the tap was said before its first packet
        found = [(flow_of[packet.stream], bytes(packet.data)) for packet in batch if packet.stream in flow_of]
        self.unknown_packets += len(batch) - len(found)
        return found

    # --- orders -----------------------------------------------------------------------------------------------------

    def _hear(self, order: m.Order) -> None:
        if isinstance(order, m.Begin):
            if not self._begin.done():
                self._begin.set_result(order)
        elif self._ends is None:
            self._backlog.append(order)
        else:
            self._carry_out(self._ends, order)

    def _carry_out(self, ends: LocalEnds, order: m.Order) -> None:
        match order:
            case m.Observe(sync_id):
                self._clock.observe(sync_id)
            case m.SetCatalog():
                self._set_catalog(ends, order)
            case m.Tapped(flow, stream):
                self._origin.tapped(flow, stream)
            case m.TimesOf(readings):
                self._origin.times_of(readings)
            case m.SayEvents(room, events):
                ends.server.room_events(room, events)
            case m.Drain():
                ends.drain()
            case m.Command():
                self._command(ends, order)
            case m.Dial():
                self._dial(ends, order)
            case m.HangUp(number):
                self._hang_up(number)
            case m.WatchRoom() | m.Subscribe() | m.AskKeyframe() | m.Fence():
                if order.number in self._links:
                    _ask(*self._links[order.number], order)
            case _:
                raise PeerError(f"a second {type(order).__name__}")

    def _set_catalog(self, ends: LocalEnds, change: m.SetCatalog) -> None:
        catalog = self._origin.catalog
        for key in change.removed:
            catalog.pop(key, None)
        catalog.update((entry.id, entry) for entry in change.changed)
        if change.done:
            ends.server.set_catalog(catalog.values())

    def _command(self, ends: LocalEnds, command: m.Command) -> None:
        try:
            self._tell(m.Answered(command.request, ends.act(command.link, command.action)))
        except NotFound as error:
            self._tell(m.Answered(command.request, {}, str(error)))

    def _dial(self, ends: LocalEnds, dial: m.Dial) -> None:
        side = SubscriberSide(dial.number, self._tell, self._injects)
        client = ends.dial(dial.node, dial.addresses, side)
        self._links[dial.number] = client, side
        client.start()

    def _hang_up(self, number: int) -> None:
        client, side = self._links.pop(number)
        side.streams = {}
        task = asyncio.get_running_loop().create_task(client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _ask(client: LinkClient, side: SubscriberSide, order: m.WatchRoom | m.Subscribe | m.AskKeyframe | m.Fence) -> None:
    match order:
        case m.WatchRoom(_, room, wanted, after):
            if wanted:
                client.watch_room(room, after)
            else:
                client.unwatch_room(room)
        case m.Subscribe(_, publication, epoch, layers, streams):
            side.inject_as(publication, layers, streams)
            if layers:
                client.subscribe(publication, epoch, layers)
            else:
                client.unsubscribe(publication)
        case m.AskKeyframe(_, publication, layer):
            client.request_keyframe(publication, layer)
        case m.Fence(_, publication, epoch, reason):
            side.fences.pop((publication, epoch), None)
            if reason:
                side.fences[publication, epoch] = reason
            client.recheck()
        case _:
            assert_never(order)


async def _run(descriptors: Sequence[int]) -> None:
    *rings, control = descriptors
    await Body(control, rings[:3], rings[3:]).run()


def main(words: Sequence[str]) -> None:
    """Run it: the descriptors of both rings and of the control socket, then the relay's process id."""
    *descriptors, parent = (int(word) for word in words)
    die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the relay says when: it has sessions to drain
    uvloop.run(_run(descriptors))

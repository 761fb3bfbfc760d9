"""One connection of an endpoint: drives `Quic`, and is a `relay.link.transport.Connection`.

The endpoint calls `receive` for each datagram and `settle` once per batch, timer and loop tick: events go out, then one
transmit takes whatever the callbacks left to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable
from typing import Any

import structlog
from aioquic.quic import events
from aioquic.tls import SessionTicket

from relay.errors import UsageError
from relay.link.path import PathReport
from relay.link.quic.adapter import Quic, Wire
from relay.link.quic.ending import is_refusal, reason_of
from relay.link.quic.host import Host, Limits
from relay.link.quic.identity import node_name
from relay.link.quic.inbox import Inbox
from relay.link.quic.mtu import BASE, BLACK_HOLE, MtuSearch
from relay.link.quic.outbox import Outbox
from relay.link.transport import DatagramCounts, HandshakeFailed, IdentityRefused, Remote

_TICK_S = 0.001  # a timer later than this again would spin
log = structlog.get_logger(__name__)


def _ignore(*_: Any) -> None:
    """The callback until one is set."""


class Connection:
    """See `relay.link.transport.Connection`."""

    def __init__(self, host: Host, quic: Quic, limits: Limits, *, peer: str, is_client: bool) -> None:
        self.peer = peer
        self.alpn = ""
        self.early = False
        self.counts = DatagramCounts()
        self.on_acked: Callable[[list[object]], None] = _ignore
        self.on_lost: Callable[[list[object]], None] = _ignore
        self.on_closed: Callable[[str], None] = _ignore
        self.on_max_datagram: Callable[[int], None] = _ignore
        self.on_reset: Callable[[int, int], None] = _ignore
        self.on_ticket: Callable[[SessionTicket], None] = _ignore
        self.quic = quic
        self.is_client = is_client
        self.is_ready = False
        self.until = datetime.datetime.max.replace(tzinfo=datetime.UTC)  # the end of the peer's certificate
        self._host = host
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self.counts)
        self._announced = False
        self._closed = False
        self._outbox = Outbox(quic, limits, self.counts)
        self._mtu = MtuSearch(limits.max_packet)
        self._last_max = 0
        self._pinged_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline: asyncio.TimerHandle | None = self._loop.call_later(limits.handshake_s, self._overdue)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ready.add_done_callback(lambda done: done.exception())  # nobody has to wait for it

    # --- the interface -------------------------------------------------------------------------------------------

    @property
    def on_datagrams(self) -> Callable[[list[bytes]], None] | None:
        return self._inbox.on_datagrams

    @on_datagrams.setter
    def on_datagrams(self, value: Callable[[list[bytes]], None]) -> None:
        self._inbox.on_datagrams = value
        self._read_again()

    @property
    def on_stream(self) -> Callable[[int, bytes, bool], None] | None:
        return self._inbox.on_stream

    @on_stream.setter
    def on_stream(self, value: Callable[[int, bytes, bool], None]) -> None:
        self._inbox.on_stream = value
        self._read_again()

    @property
    def on_event(self) -> Callable[[events.QuicEvent], None] | None:
        """Takes aioquic's stream events instead of `on_stream`: for `aioquic.h3` only."""
        return self._inbox.on_event

    @on_event.setter
    def on_event(self, value: Callable[[events.QuicEvent], None]) -> None:
        self._inbox.on_event = value
        self._read_again()

    def _read_again(self) -> None:
        if self._inbox.waits:
            self._host.want_transmit(self)

    @property
    def max_datagram(self) -> int:
        return 0 if self._closed else self.quic.max_datagram

    @property
    def remote(self) -> Remote:
        address = self.quic.get_peer_address()
        return (str(address[0]), int(address[1])) if address else ("", 0)

    @property
    def window(self) -> int:
        return self.quic.window

    @property
    def closed(self) -> bool:
        return self._closed

    def send_datagram(self, data: bytes, token: object = None) -> bool:
        if self._closed or not self._outbox.put(data, token, self._last_max or self.max_datagram, time.monotonic()):
            return False
        self._host.want_transmit(self)
        return True

    def flush_datagrams(self) -> int:
        count, dropped = self._outbox.flush()
        self._drop(dropped)
        return count

    def open_stream(self, *, unidirectional: bool = False) -> int:
        stream = self.quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.send_stream(stream, b"")  # takes the number
        return stream

    def send_stream(self, stream: int, data: bytes, ended: bool = False) -> None:
        if self._closed:
            return
        try:
            self.quic.send_stream_data(stream, data, ended)
        except (ValueError, AssertionError) as error:
            raise UsageError(f"stream {stream} cannot be written: {error}") from None
        self._host.want_transmit(self)

    def reset_stream(self, stream: int, code: int) -> None:
        if not self._closed:
            self.quic.reset_stream(stream, code)
            self._host.want_transmit(self)

    def open_window(self, size: int) -> None:
        self.quic.open_window(size)

    def ping(self) -> None:
        if not self._closed:
            self.quic.send_ping(0)
            self._host.want_transmit(self)

    def report(self, now: int) -> PathReport:
        sent, acked, lost, timeout = self.quic.counters()
        oldest = None if self._closed else self.quic.oldest_unacked()
        return PathReport(
            now=now,
            rtt_us=tuple(self.quic.take_rtts()),
            sent=sent,
            acked=acked,
            lost=lost,
            oldest_unacked=None if oldest is None else int(oldest * 1e6),
            pto_us=int(timeout * 1e6),
            closed=self._closed,
        )

    def close(self, reason: str = "") -> None:
        if not self._closed:
            if self.is_ready:
                self._transmit(time.monotonic())  # what was given before goes out before, once
            self._say_goodbye(0, reason)
            self._end(reason or "closed by this node")

    async def wait_ready(self) -> None:
        await asyncio.shield(self._ready)

    def transmit_soon(self) -> None:
        """Send what was given to `quic` directly."""
        self._host.want_transmit(self)

    # --- what the endpoint calls ---------------------------------------------------------------------------------

    def receive(self, data: bytes, address: Wire, now: float) -> None:
        """Take a datagram; `settle` has to follow."""
        try:
            self.quic.receive_datagram(data, address, now)
        except Exception as error:
            self._break(error)

    def settle(self, now: float) -> None:
        """Hand out what happened, send what is to be sent, and set the timer."""
        if self._closed:
            return
        try:
            self._dispatch()
            if self._closed:
                return
            self._look_after_path(now)
            self._transmit(now)
        except Exception as error:
            self._break(error)
            return
        if (ending := self.quic.ending) is not None:
            self._end(reason_of(self.quic, ending, self.peer))
        else:
            self._arm(now)

    def _break(self, error: Exception) -> None:
        """Of a callback or of QUIC itself: a bug, which costs this connection only, and shows in the log."""
        self._loop.call_exception_handler({"message": "a link's connection failed", "exception": error})
        if not self._closed:
            with contextlib.suppress(Exception):
                self._say_goodbye(1, "internal error")
            self._end("internal error")

    def _say_goodbye(self, code: int, reason: str) -> None:
        """Tell the peer, and have the endpoint say it again while the peer has not heard (RFC 9000 section 10.2.1)."""
        self.quic.close(error_code=code, reason_phrase=reason)
        last = self.quic.datagrams_to_send(time.monotonic())
        self._host.send(last)
        self._host.linger(self, last)

    # --- inside --------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        quic = self.quic
        while (event := quic.next_event()) is not None:
            self._handle(event)
        if not self._announced and not self.is_client and self._may_announce():
            self._announce()
        if quic.confirmed and not self.is_ready and quic.ending is None:
            self._become_ready()
        if not self._announced:
            return
        if quic.arrived or self._inbox.waits:
            self._inbox.reread()
            arrived, quic.arrived = quic.arrived, []
            self._inbox.deliver(arrived)
        if acked := quic.take_acked():
            self.on_acked(acked)
        if lost := quic.take_lost():
            self.on_lost(lost)

    def _handle(self, event: events.QuicEvent) -> None:
        match event:
            case events.StreamDataReceived():
                if not self._inbox.piece(event):
                    self.quic.close(error_code=1, reason_phrase="nobody reads these streams")
            case events.StreamReset(error_code=code, stream_id=stream):
                self.on_reset(stream, code)
                if self._inbox.on_event is not None:
                    self._inbox.on_event(event)
            case events.StopSendingReceived(error_code=code, stream_id=stream):
                self.on_reset(stream, code)
            case events.ConnectionIdIssued(connection_id=number):
                self._host.route(number, self)
            case events.ConnectionIdRetired(connection_id=number):
                self._host.unroute(number)
            case _:
                pass

    def _may_announce(self) -> bool:
        """A server tells of a connection when its peer is known: proved by certificate, or by a ticket at 0-RTT."""
        return self.quic.ending is None and (self.quic.confirmed or (self.quic.resumed and self.quic.early_accepted))

    def _announce(self) -> None:
        if not self.quic.resumed:
            self.take_identity()
        self.alpn = self.quic.alpn or ""
        self.early = not self.quic.confirmed
        self.dial_done()
        self._host.announced(self)

    def take_identity(self) -> None:
        certificate = self.quic.peer_certificate
        if certificate is None:  # cannot be: the check refused it
            raise UsageError("a connection was confirmed without a certificate")
        self.peer = node_name(certificate)
        self.until = certificate.not_valid_after_utc

    def dial_done(self) -> None:
        """From here on callbacks may run."""
        self._announced = True
        self._last_max = self.max_datagram

    def _become_ready(self) -> None:
        self.is_ready, self.early = True, False
        self.alpn = self.quic.alpn or ""
        if self.is_client and not self.quic.resumed:
            self.take_identity()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._announced = True
        self._tell_size()
        self._host.ready(self)
        if not self._ready.done():
            self._ready.set_result(None)

    def _look_after_path(self, now: float) -> None:
        quic = self.quic
        for size, passed in quic.probe_outcomes:
            if passed and self._mtu.passed(size):
                quic.resize_packets(size)
                self._tell_size()
            elif not passed:
                self._mtu.lost(size)
        quic.probe_outcomes.clear()
        if not self.is_ready:
            return
        if quic.large_lost >= BLACK_HOLE and quic.packet_size > BASE and self._mtu.black_hole(now):
            quic.resize_packets(BASE)
            self._tell_size()
        if now - self._pinged_at >= self._limits.keepalive_s:
            self._pinged_at = now
            quic.send_ping(0)

    def _tell_size(self) -> None:
        """Drop what is too long now: it would block the queue."""
        size = self.quic.max_datagram
        if size == self._last_max:
            return
        self._last_max = size
        self._drop(self._outbox.shorten(size))
        if self._announced:
            self.on_max_datagram(size)

    def _transmit(self, now: float) -> None:
        quic = self.quic
        if quic.queue:
            self._drop(self._outbox.expire(now))
        datagrams = quic.datagrams_to_send(now)
        self._outbox.account()
        if self.is_ready and (size := self._mtu.next_probe(now)) is not None and quic.ending is None:
            datagrams = datagrams + quic.probe(size, now)
        if datagrams:
            self._host.send(datagrams)

    def _drop(self, tokens: list[object]) -> None:
        if tokens:
            self.on_lost(tokens)

    def _arm(self, now: float) -> None:
        """Set the timer for the earliest need. One that is set earlier stays and finds nothing to do."""
        at = self.quic.get_timer()
        if self.is_ready:
            at = min(at or now + 60, self._pinged_at + self._limits.keepalive_s)
        if at is None:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(at - now, 0), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = time.monotonic()
        at = self.quic.get_timer()
        if at is not None and now + _TICK_S >= at:
            now = max(now, at)
            try:
                self.quic.handle_timer(now)
            except Exception as error:
                self._break(error)
        self.settle(now)

    def _overdue(self) -> None:
        self._deadline = None
        if not self.is_ready:
            self._say_goodbye(0, "handshake overdue")
            self._end(f"no handshake within {self._limits.handshake_s:g} s")

    def _end(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None
        refused = is_refusal(self.quic)
        if not self._ready.done():
            self._ready.set_exception(IdentityRefused(reason) if refused else HandshakeFailed(reason))
        self._host.ended(self, reason, refused=refused)
        if self._announced:
            self._drop([token for token in self.quic.abandoned() if token is not None])
            self.on_closed(reason)

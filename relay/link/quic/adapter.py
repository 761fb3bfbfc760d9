"""aioquic 1.7.2 as we need it: the one place where its private names are touched (`tests/link/test_quic_adapter.py`).

What is changed, and why it cannot be had from its public face:
- TLS asks every client for a certificate, unless the session is resumed (aioquic's own flag breaks resumption), and
  hands each certificate to our check in the middle of the handshake;
- DATAGRAM frames carry a token, which comes back when the packet is acknowledged or lost;
- packets, losses and RTT samples are counted; MTU probes are sent and packets resized; the window can be opened;
- a server sends NEW_TOKEN with HANDSHAKE_DONE; what a client sent early is sent again after a Retry;
- how a connection ends is known at once instead of three timeouts later.
Times are seconds of the monotonic clock, as in aioquic.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.congestion.base import K_GRANULARITY
from aioquic.quic.connection import (
    END_STATES,
    QuicConnection,
    QuicConnectionError,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicFrameType, QuicHeader, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import K_TIME_THRESHOLD, QuicPacketRecovery, QuicPacketSpace
from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.link import varint
from relay.link.quic import short
from relay.link.quic.short import Queued
from relay.link.quic.window import MediaWindow
from relay.link.transport import IdentityRefused

VERSION = "1.7.2"
logging.getLogger("quic").setLevel(logging.ERROR)  # its warnings are strangers' mistakes; ours say the same with names
Wire = tuple[Any, ...]  # a socket address, as the socket gives it
Check = Callable[[x509.Certificate | None, Sequence[x509.Certificate]], None]
SHORT_OVERHEAD = 1 + 2 + 16  # bytes around the payload of a 1-RTT packet without its connection id: flags, number, tag
LONG_OVERHEAD = 11 + 16  # the same of a 0-RTT packet, without its two connection ids
BURST = 64  # packets that may leave at once: a keyframe
MAX_SAMPLES = 4096  # RTT samples kept for the next report
MAX_ACK_RANGES = 64  # as in aioquic: what is older is not acknowledged
_ACKED = QuicDeliveryState.ACKED


class CertificateRequired(tls.Alert):
    """RFC 8446 section 4.4.2.4."""

    description = tls.AlertDescription.certificate_required


class _Context(tls.Context):
    """TLS with our check. An object becomes one by its `__class__`, because aioquic makes it itself."""

    check: Check
    refused: str | None

    @property
    def _request_client_certificate(self) -> bool:
        return not self._is_client and not self._session_resumed

    @_request_client_certificate.setter
    def _request_client_certificate(self, value: bool) -> None:
        pass

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        super()._set_peer_certificate(certificate)
        self._approve(tls.AlertBadCertificate)

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        super()._server_handle_certificate(input_buf)
        if self._peer_certificate is None:
            self._approve(CertificateRequired)

    def _approve(self, alert: type[tls.Alert]) -> None:
        try:
            self.check(self._peer_certificate, self._peer_certificate_chain)
        except IdentityRefused as error:
            self.refused = str(error)
            raise alert(str(error)) from None


class _Flight:
    """A sent packet of DATAGRAM frames only: the few fields in which `QuicSentPacket`s of that kind differ."""

    __slots__ = ("packet_number", "sent_bytes", "sent_time", "tokens")
    epoch = tls.Epoch.ONE_RTT
    packet_type = QuicPacketType.ONE_RTT
    in_flight = is_ack_eliciting = True
    is_crypto_packet = False

    def __init__(self, number: int, size: int, now: float, tokens: list[object]) -> None:
        self.packet_number = number
        self.sent_bytes = size
        self.sent_time = now
        self.tokens = tokens

    @property
    def delivery_handlers(self) -> tuple[Any, ...]:
        """For aioquic's own loops; ours take `tokens`."""
        return ()


class _Recovery(QuicPacketRecovery):
    """Loss recovery that counts, and whose cost per acknowledgement depends on what is newly acknowledged.

    Loss is told by time alone (RFC 9002 section 6.1.2): jitter reorders media by far more than three packets, and
    taking that for loss would trip the breaker; waiting for it costs an eighth of a round trip.
    """

    sent = 0
    acked = 0
    lost = 0
    rtts: list[int]
    acked_tokens: list[object]
    lost_tokens: list[object]
    large_lost = 0  # packets above the smallest size lost in a row, with none acknowledged after them
    large_acked = -1  # the newest such packet that was acknowledged
    packet_limit = 0  # larger packets are MTU probes, which are not counted

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        super().on_packet_sent(packet=packet, space=space)
        if packet.is_ack_eliciting and space.is_application_data and packet.sent_bytes <= self.packet_limit:
            self.sent += 1

    def on_flight_sent(self, packets: list[_Flight], size: int, now: float, space: QuicPacketSpace) -> None:
        """The same for datagrams sent together, `size` bytes in all, after the handshake."""
        sent: dict[int, Any] = space.sent_packets
        for packet in packets:
            sent[packet.packet_number] = packet
        space.ack_eliciting_in_flight += len(packets)
        self.sent += len(packets)
        self._time_of_last_sent_ack_eliciting_packet = now
        cast(MediaWindow, self._cc).sent(size)

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """As in aioquic, without listing all packets in flight for each ACK."""
        self.acknowledge(list(ack_rangeset), ack_delay, now, space)

    def acknowledge(self, ranges: list[range], ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """Take an ACK frame; `ranges` ascend."""
        sent: dict[int, Any] = space.sent_packets
        largest = ranges[-1].stop - 1
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        newest: Any = None
        eliciting = 0
        size = 0
        counted = space.is_application_data
        for span in ranges:
            for number in _held(sent, span):
                newest = packet = sent.pop(number)
                if packet.in_flight:
                    size += packet.sent_bytes
                if packet.is_ack_eliciting:
                    eliciting += 1
                    self.acked += counted and packet.sent_bytes <= self.packet_limit
                    if packet.sent_bytes > SMALLEST_MAX_DATAGRAM_SIZE:
                        self.large_lost, self.large_acked = 0, number
                if type(packet) is _Flight:
                    self.acked_tokens += packet.tokens
                else:
                    for handler, args in packet.delivery_handlers:
                        handler(_ACKED, *args)
        if newest is None:
            return
        space.ack_eliciting_in_flight -= eliciting
        if size:
            cast(MediaWindow, self._cc).acked(size)
        if newest.packet_number == largest and eliciting:
            self._measure(now - newest.sent_time, min(ack_delay, self.max_ack_delay), now)
        self._detect_loss(now=now, space=space)
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def _measure(self, raw: float, ack_delay: float, now: float) -> None:
        """RFC 9002 section 5."""
        latest = self._rtt_latest = max(raw, 0.0001)  # aioquic's floor of 1 ms would hide what a rack's path is
        self._rtt_min = min(self._rtt_min, latest)
        if latest > self._rtt_min + ack_delay:
            latest = self._rtt_latest = latest - ack_delay
        if self._rtt_initialized:
            self._rtt_variance += (abs(self._rtt_smoothed - latest) - self._rtt_variance) / 4
            self._rtt_smoothed += (latest - self._rtt_smoothed) / 8
        else:
            self._rtt_initialized = True
            self._rtt_first_sample_time = now
            self._rtt_smoothed, self._rtt_variance = latest, latest / 2
        if len(self.rtts) < MAX_SAMPLES:  # nobody reads them: keep the first
            self.rtts.append(int(latest * 1e6))
        self._cc.on_rtt_measurement(now=now, rtt=raw)
        self.pace()

    def pace(self) -> None:
        """Set the pacer to the window, with bursts of a large frame: what comes at once should leave at once."""
        smoothed = self._rtt_smoothed or self._rtt_initial
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=smoothed)
        self._pacer.bucket_max = max(self._pacer.bucket_max, BURST * (self._pacer.packet_time or 0.0))

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        space.loss_time = None
        if not space.sent_packets:
            return
        rtt = max(self._rtt_latest, self._rtt_smoothed) if self._rtt_initialized else self._rtt_initial
        delay = max(K_TIME_THRESHOLD * rtt, K_GRANULARITY)
        lost = []
        for number, packet in space.sent_packets.items():
            if number > space.largest_acked_packet:
                break
            sent_time = packet.sent_time or 0.0
            if sent_time > now - delay:
                space.loss_time = sent_time + delay
                break
            lost.append(packet)
        if lost:
            persistent = self._in_persistent_congestion(packets=lost)
            self._on_packets_lost(now=now, packets=lost, persistent_congestion=persistent, space=space)

    def _on_packets_lost(self, *, packets: Any, space: QuicPacketSpace, **rest: Any) -> None:
        packets = list(packets)
        if not packets:
            return
        for packet in packets if space.is_application_data else ():
            if packet.is_ack_eliciting and packet.sent_bytes <= self.packet_limit:
                self.lost += 1
                large = packet.sent_bytes > SMALLEST_MAX_DATAGRAM_SIZE
                self.large_lost += large and packet.packet_number > self.large_acked
            if type(packet) is _Flight:
                self.lost_tokens += packet.tokens
        super()._on_packets_lost(packets=packets, space=space, **rest)


def _held(sent: dict[int, QuicSentPacket], span: range) -> list[int]:
    """The packet numbers of `sent` within `span`; `sent` is in ascending order, with few gaps."""
    if not sent:
        return []
    start = max(span.start, next(iter(sent)))
    if span.stop - start > 4 * len(sent):  # a peer may acknowledge any range
        return [number for number in sent if start <= number < span.stop]
    return [number for number in range(start, span.stop) if number in sent]


class Quic(QuicConnection):
    """One connection without I/O. Datagrams that arrived, and tokens, are collected for the driver to take."""

    _loss: _Recovery

    def __init__(self, *, check: Check, lasting_token: bytes = b"", **arguments: Any) -> None:
        super().__init__(**arguments)
        self._check = check
        self._lasting_token = lasting_token
        self.refused: str | None = None
        self.arrived: list[bytes] = []
        self.frames_sent = 0
        self.bytes_taken = 0  # of datagrams that left the queue in packets
        self.probe_outcomes: list[tuple[int, bool]] = []
        self._datagrams_pending: deque[Queued] = deque()  # type: ignore[assignment]  # they carry tokens here
        self._receive_keys: short.Keys | None = None
        self._send_keys: short.Keys | None = None
        self._heard_at = 0.0
        self._loss.__class__ = _Recovery
        self._loss.rtts, self._loss.acked_tokens, self._loss.lost_tokens = [], [], []
        self._loss.packet_limit = self._max_datagram_size

    # --- what the driver asks ------------------------------------------------------------------------------------

    @property
    def queue(self) -> deque[Queued]:
        """Datagrams that wait to be sent."""
        return self._datagrams_pending

    @property
    def confirmed(self) -> bool:
        """Both ends have finished the handshake (RFC 9001 section 4.1.2)."""
        return self._handshake_confirmed

    @property
    def resumed(self) -> bool:
        return self.tls.session_resumed

    @property
    def early_accepted(self) -> bool:
        return self.tls.early_data_accepted

    @property
    def alpn(self) -> str | None:
        return self.tls.alpn_negotiated

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        return self.tls._peer_certificate

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Why the connection is closing, drained or over."""
        return self._close_event

    @property
    def packet_size(self) -> int:
        return self._max_datagram_size

    @property
    def window(self) -> int:
        return self._loss.congestion_window

    @property
    def max_datagram(self) -> int:
        """Payload of the largest DATAGRAM frame that fits in a packet now and that the peer takes."""
        allowed = self._remote_max_datagram_frame_size
        if not allowed:
            return 0
        overhead = SHORT_OVERHEAD + len(self._peer_cid.cid)
        if not self._handshake_complete:
            overhead = LONG_OVERHEAD + len(self._peer_cid.cid) + len(self.host_cid)
        room = min(self._max_datagram_size - overhead, allowed) - 1
        return max(0, room - size_uint_var(room))

    def oldest_unacked(self) -> float | None:
        """When the oldest ack-eliciting packet still in flight was sent."""
        for space in reversed(self._loss.spaces):
            for packet in space.sent_packets.values():
                if packet.is_ack_eliciting:
                    return packet.sent_time
        return None

    def counters(self) -> tuple[int, int, int, float]:
        """Packets sent, acknowledged, lost; the probe timeout in seconds."""
        return self._loss.sent, self._loss.acked, self._loss.lost, self._loss.get_probe_timeout()

    def take_acked(self) -> list[object]:
        """Tokens of datagrams in packets that were acknowledged since the last call."""
        taken = self._loss.acked_tokens
        if taken:
            self._loss.acked_tokens = []
        return taken

    def take_lost(self) -> list[object]:
        """The same of packets that were declared lost."""
        taken = self._loss.lost_tokens
        if taken:
            self._loss.lost_tokens = []
        return taken

    def take_rtts(self) -> list[int]:
        """RTT samples in microseconds since the last call."""
        taken, self._loss.rtts = self._loss.rtts, []
        return taken

    @property
    def large_lost(self) -> int:
        """Packets above 1200 bytes lost in a row, none acknowledged in between."""
        return self._loss.large_lost

    # --- what the driver does ------------------------------------------------------------------------------------

    def queue_datagram(self, data: bytes, token: object, now: float) -> None:
        """Queue a datagram of at most `max_datagram` bytes: a longer one would block the queue."""
        self._datagrams_pending.append((data, token, now))

    def open_window(self, size: int) -> None:
        if isinstance(self._loss._cc, MediaWindow):
            self._loss._cc.open(size)
            self._loss.pace()

    def resize_packets(self, size: int) -> None:
        """Make packets of up to `size` bytes from now on."""
        self._max_datagram_size = self._loss.packet_limit = size
        self._loss.large_lost = 0
        self._loss._pacer._max_datagram_size = size
        if isinstance(self._loss._cc, MediaWindow):
            self._loss._cc.packet = size

    def probe(self, size: int, now: float) -> list[tuple[bytes, Wire]]:
        """Make a packet of `size` bytes; `probe_outcomes` tells whether it got through (RFC 8899)."""
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version or 1,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        frame = builder.start_frame(QuicFrameType.PING, handler=self._on_probe_delivery, handler_args=(size,))
        frame.push_bytes(bytes(builder.remaining_buffer_space))  # PADDING frames are zeros
        return self._flush_builder(
            builder=builder, network_path=self._network_paths[0], peer_cid=self._peer_cid.cid, now=now
        )

    # --- the short way of 1-RTT packets --------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Wire, now: float) -> None:
        if not (self._handshake_confirmed and data[0] < 0x80 and self._receive_short(data, addr, now)):
            super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Wire]]:
        if not self._handshake_confirmed or self._close_pending or self._state in END_STATES:
            return super().datagrams_to_send(now)
        self._pacing_at = None
        sent = self._send_short(now) if self._datagrams_pending else []
        if self._has_other_frames(now):  # without datagrams: a probe after a timeout has to be small to get through
            held, self._datagrams_pending = self._datagrams_pending, deque()
            waiting = self._pacing_at
            sent += super().datagrams_to_send(now)
            self._datagrams_pending, self._pacing_at = held, self._pacing_at or waiting
        return sent

    def _has_other_frames(self, now: float) -> bool:
        """Whether the general way has anything to write: acknowledgements, pings, streams, connection ids, …"""
        space = self._spaces[tls.Epoch.ONE_RTT]
        path = self._network_paths[0]
        return bool(
            (space.ack_at is not None and space.ack_at <= now)
            or self._ping_pending
            or self._probe_pending
            or self._streams
            or not path.is_validated
            or path.remote_challenges
            or self._handshake_done_pending
            or self._retire_connection_ids
            or len(self._network_paths) > 1
            or not all(number.was_sent for number in self._host_cids)
            or not self._crypto_streams[tls.Epoch.ONE_RTT].sender.buffer_is_empty
            or self._local_max_data.used * 2 > self._local_max_data.value
            or self._local_max_data.value != self._local_max_data.sent
        )

    def _keys(self, context: CryptoContext, known: short.Keys | None) -> short.Keys:
        """The keys of a direction, made anew when a key update has changed them."""
        assert context.aead is not None
        assert context.hp is not None
        seal = context.aead._aead
        if known is not None and known.seal is seal:
            return known
        return short.Keys(cast(AESGCM, seal), context.aead._iv, context.hp._encryptor, context.key_phase)

    def _receive_short(self, data: bytes, addr: Wire, now: float) -> bool:
        """Take a packet on the path in use. False, with nothing changed, when it needs the general way."""
        path = self._network_paths[0]
        size = len(self.host_cid)
        if addr != path.addr or not path.is_validated or data[1 : 1 + size] != self.host_cid:
            return False
        if self._state in END_STATES or self._close_pending:
            return False
        keys = self._receive_keys = self._keys(self._cryptos[tls.Epoch.ONE_RTT].recv, self._receive_keys)
        space = self._spaces[tls.Epoch.ONE_RTT]
        opened = short.read(keys, data, size, space.expected_packet_number)
        if opened is None:
            return False
        number, plain = opened.number, opened.plain
        if plain is None or number in space.received_packets:
            return True
        eliciting = self._read_frames(plain, path, now)
        if eliciting is None:
            return True  # closing
        if number >= space.expected_packet_number:
            space.expected_packet_number = number + 1
            self._spin_bit = opened.spin != self._is_client
        if now != self._heard_at:
            self._heard_at = now
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet, space.largest_received_time = number, now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay
        return True

    def _read_frames(self, plain: bytes, path: QuicNetworkPath, now: float) -> bool | None:
        """Handle a payload; frames other than a link's daily ones go to aioquic. None when that ends the connection."""
        at, end, eliciting = 0, len(plain), False
        try:
            while at < end:
                kind = plain[at]
                if kind == short.DATAGRAM_WITH_LENGTH:
                    length, start = varint.decode(plain, at + 1)
                    at = start + length
                    if at > end:
                        break
                    self.arrived.append(plain[start:at])
                    eliciting = True
                elif kind == short.ACK:
                    ranges, delay, at = short.read_ack(plain, at + 1)
                    delay_s = (delay << self._remote_ack_delay_exponent) / 1e6
                    self._loss.acknowledge(ranges, delay_s, now, self._spaces[tls.Epoch.ONE_RTT])
                elif kind == short.PING:
                    at, eliciting = at + 1, True
                else:
                    break
        except varint.Malformed:
            pass  # aioquic says what is wrong with it
        if at == end and end:
            return eliciting
        context = QuicReceiveContext(tls.Epoch.ONE_RTT, self.host_cid, path, None, now, None)
        try:
            more, _ = self._payload_received(context, plain[min(at, end) :] if at < end else plain)
        except QuicConnectionError as error:
            self.close(error.error_code, error.frame_type, error.reason_phrase)
            return None
        return None if self._state in END_STATES else eliciting or more

    def _send_short(self, now: float) -> list[tuple[bytes, Wire]]:
        """Write queued datagrams into packets of their own, as far as window and pacing let them."""
        pair = self._cryptos[tls.Epoch.ONE_RTT]
        path, pacer, space = self._network_paths[0], self._loss._pacer, self._spaces[tls.Epoch.ONE_RTT]
        if pair._update_key_requested or not path.is_validated:
            return []
        keys = self._send_keys = self._keys(pair.send, self._send_keys)
        cid, number = self._peer_cid.cid, self._packet_number
        overhead = SHORT_OVERHEAD + len(cid)
        window = self._loss.congestion_window - self._loss.bytes_in_flight
        step = pacer.packet_time or 0.0
        pacer.update_bucket(now=now)
        out: list[tuple[bytes, Wire]] = []
        flights: list[_Flight] = []
        queue = self._datagrams_pending
        total = 0
        while queue and (not step or pacer.bucket_time > 0):
            room = min(self._max_datagram_size, window - total) - overhead
            plain, tokens, frames, taken = short.pack(queue, room)
            if not frames:
                break
            data = short.write(keys, cid, self._spin_bit, number, plain)
            out.append((data, path.addr))
            flights.append(_Flight(number, len(data), now, tokens))
            self.frames_sent += frames
            self.bytes_taken += taken
            total += len(data)
            number += 1
            pacer.bucket_time = max(0.0, pacer.bucket_time - step)
        else:
            if queue:
                self._pacing_at = now + step
        if flights:
            self._packet_number = number
            path.bytes_sent += total
            self._loss.on_flight_sent(flights, total, now, space)
            if not self._ack_eliciting_sent_since_receipt:
                self._close_at = now + self._idle_timeout()
                self._ack_eliciting_sent_since_receipt = True
        return out

    # --- what aioquic calls --------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.__class__ = _Context
        assert isinstance(self.tls, _Context)
        self.tls.check, self.tls.refused = self._examine, None

    def _examine(self, leaf: x509.Certificate | None, chain: Sequence[x509.Certificate]) -> None:
        try:
            self._check(leaf, chain)
        except IdentityRefused as error:
            self.refused = str(error)
            raise

    def _receive_retry_packet(self, header: QuicHeader, packet_without_tag: bytes, now: float) -> None:
        before = self._spaces.get(tls.Epoch.ONE_RTT)
        tries = self._retry_count
        super()._receive_retry_packet(header=header, packet_without_tag=packet_without_tag, now=now)
        if before is not None and self._retry_count > tries:
            for packet in before.sent_packets.values():
                for handler, args in packet.delivery_handlers:
                    handler(QuicDeliveryState.LOST, *args)

    def _write_datagram_frame(self, builder: QuicPacketBuilder, data: Any, frame_type: QuicFrameType) -> bool:
        payload, token, _ = data
        length = len(payload)
        frame = builder.start_frame(frame_type, 1 + size_uint_var(length) + length)
        frame.push_uint_var(length)
        frame.push_bytes(payload)
        self.frames_sent += 1
        self.bytes_taken += length
        if token is not None:
            packet = builder._packet
            assert packet is not None
            packet.delivery_handlers.append((self._on_datagram_delivery, (token,)))
        return True

    def _on_datagram_delivery(self, delivery: QuicDeliveryState, token: object) -> None:
        (self._loss.acked_tokens if delivery is _ACKED else self._loss.lost_tokens).append(token)

    def _on_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        self.probe_outcomes.append((size, delivery is _ACKED))

    def _write_handshake_done_frame(self, builder: QuicPacketBuilder) -> None:
        super()._write_handshake_done_frame(builder)
        if token := self._lasting_token:
            frame = builder.start_frame(QuicFrameType.NEW_TOKEN, 1 + size_uint_var(len(token)) + len(token))
            frame.push_uint_var(len(token))
            frame.push_bytes(token)
            self._lasting_token = b""

    def _handle_datagram_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_datagram_frame(context, frame_type, buf)
        self.arrived.append(self._events.pop().data)  # type: ignore[attr-defined]

    def abandoned(self) -> list[object]:
        """Tokens that no acknowledgement will ever answer: in flight and queued, for a connection that ended."""
        for space in self._spaces.values():
            packets: list[Any] = list(space.sent_packets.values())
            for packet in packets:
                if isinstance(packet, _Flight):
                    self._loss.lost_tokens += packet.tokens
                for handler, args in packet.delivery_handlers:
                    if handler == self._on_datagram_delivery:
                        self._loss.lost_tokens += args
            space.sent_packets.clear()
        self._loss.lost_tokens += [token for _, token, _ in self.queue]
        self.queue.clear()
        return self.take_lost()


def configure(
    *, client: bool, alpns: list[str], certificate: x509.Certificate, key: Any, **more: Any
) -> QuicConfiguration:
    """Settings common to both ends: one version, one cipher, our certificate, no check by aioquic."""
    return QuicConfiguration(
        alpn_protocols=alpns,
        is_client=client,
        certificate=certificate,
        private_key=key,
        cipher_suites=[tls.CipherSuite.AES_128_GCM_SHA256],
        supported_versions=[1],
        verify_mode=0,  # ssl.CERT_NONE: the check is ours
        max_datagram_frame_size=65_535,
        **more,
    )


Event = QuicEvent

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
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicFrameType, QuicHeader, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from cryptography import x509

from relay.link.quic.window import MediaWindow
from relay.link.transport import IdentityRefused

VERSION = "1.7.2"
logging.getLogger("quic").setLevel(logging.ERROR)  # its warnings are strangers' mistakes; ours say the same with names
Wire = tuple[Any, ...]  # a socket address, as the socket gives it
Check = Callable[[x509.Certificate | None, Sequence[x509.Certificate]], None]
Queued = tuple[bytes, object, float]  # payload, token, when it was queued
SHORT_OVERHEAD = 1 + 2 + 16  # bytes around the payload of a 1-RTT packet without its connection id: flags, number, tag
LONG_OVERHEAD = 11 + 16  # the same of a 0-RTT packet, without its two connection ids
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


class _Recovery(QuicPacketRecovery):
    """Loss recovery that counts, and whose cost per acknowledgement depends on what is newly acknowledged."""

    sent = 0
    acked = 0
    lost = 0
    rtts: list[int]
    large_lost = 0  # packets above the smallest size lost in a row, with none acknowledged after them
    large_acked = -1  # the newest such packet that was acknowledged
    packet_limit = 0  # larger packets are MTU probes, which are not counted

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        super().on_packet_sent(packet=packet, space=space)
        if packet.is_ack_eliciting and space.is_application_data and packet.sent_bytes <= self.packet_limit:
            self.sent += 1

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """As in aioquic, without listing all packets in flight for each ACK."""
        sent = space.sent_packets
        largest = ack_rangeset.bounds().stop - 1
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        newest: QuicSentPacket | None = None
        eliciting = False
        counted = space.is_application_data
        for span in ack_rangeset:
            for number in _held(sent, span):
                newest = packet = sent.pop(number)
                if packet.is_ack_eliciting:
                    eliciting = True
                    space.ack_eliciting_in_flight -= 1
                    self.acked += counted and packet.sent_bytes <= self.packet_limit
                    if packet.sent_bytes > SMALLEST_MAX_DATAGRAM_SIZE:
                        self.large_lost, self.large_acked = 0, number
                if packet.in_flight:
                    self._cc.on_packet_acked(packet=packet, now=now)
                for handler, args in packet.delivery_handlers:
                    handler(_ACKED, *args)
        if newest is None:
            return
        if newest.packet_number == largest and eliciting:
            self._measure(now - (newest.sent_time or now), min(ack_delay, self.max_ack_delay), now)
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
        if len(self.rtts) < 4096:  # nobody reads them: keep the first
            self.rtts.append(int(latest * 1e6))
        self._cc.on_rtt_measurement(now=now, rtt=raw)
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)

    def _on_packets_lost(self, *, packets: Any, space: QuicPacketSpace, **rest: Any) -> None:
        packets = list(packets)
        if packets:
            if space.is_application_data:
                for packet in packets:
                    if packet.is_ack_eliciting and packet.sent_bytes <= self.packet_limit:
                        self.lost += 1
                        large = packet.sent_bytes > SMALLEST_MAX_DATAGRAM_SIZE
                        self.large_lost += large and packet.packet_number > self.large_acked
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
        self.acked_tokens: list[object] = []
        self.lost_tokens: list[object] = []
        self.frames_sent = 0
        self.probe_outcomes: list[tuple[int, bool]] = []
        self._datagrams_pending: deque[Queued] = deque()  # type: ignore[assignment]  # they carry tokens here
        self._open_packet: QuicSentPacket | None = None
        self._open_tokens: list[object] = []
        self._loss.__class__ = _Recovery
        self._loss.rtts = []
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
            smoothed = self._loss._rtt_smoothed or self._configuration.initial_rtt
            self._loss._pacer.update_rate(congestion_window=self.window, smoothed_rtt=smoothed)

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
        packet = builder._packet
        assert packet is not None
        if packet is not self._open_packet:
            self._open_packet, self._open_tokens = packet, []
            packet.delivery_handlers.append((self._on_datagrams_delivery, (self._open_tokens,)))
        self._open_tokens.append(token)
        return True

    def _on_datagrams_delivery(self, delivery: QuicDeliveryState, tokens: list[object]) -> None:
        (self.acked_tokens if delivery is _ACKED else self.lost_tokens).extend(tokens)

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
            for packet in space.sent_packets.values():
                for handler, args in packet.delivery_handlers:
                    if handler == self._on_datagrams_delivery:
                        self.lost_tokens.extend(args[0])
            space.sent_packets.clear()
        self.lost_tokens.extend(token for _, token, _ in self.queue)
        self.queue.clear()
        taken, self.lost_tokens = self.lost_tokens, []
        return taken


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

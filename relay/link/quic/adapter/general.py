"""A connection with tokens on its datagrams, our identity check, and the counts and handles that a link needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicFrameType, QuicHeader, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from cryptography import x509

from relay.link.quic.adapter.recovery import REGRETS, Flight, Recovery
from relay.link.quic.adapter.tls import Check, CheckedContext
from relay.link.quic.short import Queued
from relay.link.quic.window import MediaWindow
from relay.link.transport import IdentityRefused

Wire = tuple[Any, ...]  # a socket address, as the socket gives it
SHORT_OVERHEAD = 1 + 2 + 16  # bytes around the payload of a 1-RTT packet without its connection id: flags, number, tag
LONG_OVERHEAD = 11 + 16  # the same of a 0-RTT packet, without its two connection ids
REORDERED = 4096  # packets that may overtake one that still counts; aioquic's 128 are 60 ms of 2,000 packets/s
_ACKED = QuicDeliveryState.ACKED


class General(QuicConnection):
    """One connection without I/O. Datagrams that arrived, and tokens, are collected for the driver to take."""

    _loss: Recovery

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
        self._loss.__class__ = Recovery
        self._loss.rtts, self._loss.acked_tokens, self._loss.lost_tokens = [], [], []
        self._loss.given_up = deque(maxlen=REGRETS)
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

    # --- what aioquic calls --------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.__class__ = CheckedContext
        assert isinstance(self.tls, CheckedContext)
        self.tls.check = self._examine
        self._spaces[tls.Epoch.ONE_RTT].received_packets._size = REORDERED

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
                if isinstance(packet, Flight):
                    self._loss.lost_tokens += packet.tokens
                for handler, args in packet.delivery_handlers:
                    if handler == self._on_datagram_delivery:
                        self._loss.lost_tokens += args
            space.sent_packets.clear()
        self._loss.lost_tokens += [token for _, token, _ in self.queue]
        self.queue.clear()
        return self.take_lost()

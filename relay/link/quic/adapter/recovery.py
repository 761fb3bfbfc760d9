"""Loss recovery (RFC 9002) as a link needs it."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.congestion.base import K_GRANULARITY
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import K_TIME_THRESHOLD, QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import Epoch

from relay.link.quic.window import MediaWindow

BURST = 64  # packets that may leave at once: a keyframe
MAX_SAMPLES = 4096  # RTT samples kept for the next report
SLOWEST_FADES = 0.999  # per acknowledgement: half in some 700
REGRETS = 64  # packets that are looked for after they were declared lost
_ACKED = QuicDeliveryState.ACKED


class Flight:
    """A sent packet of DATAGRAM frames only: the few fields in which `QuicSentPacket`s of that kind differ."""

    __slots__ = ("packet_number", "sent_bytes", "sent_time", "tokens")
    epoch = Epoch.ONE_RTT
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


class Recovery(QuicPacketRecovery):
    """Loss recovery that counts, and whose cost per acknowledgement depends on what is newly acknowledged.

    Loss is told by time alone (RFC 9002 section 6.1.2): jitter reorders media by far more than three packets, and
    taking that for loss would trip the breaker. RTT samples are of the fastest packets only, so what counts is how long
    the slowest took that were acknowledged lately, even after they had been given up; two round trips at most.
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
    spurious = 0  # packets declared lost and acknowledged later
    slowest = 0.0  # seconds from sending to acknowledgement, of late
    given_up: deque[tuple[int, float]]  # number and send time of the packets last declared lost

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        super().on_packet_sent(packet=packet, space=space)
        if packet.is_ack_eliciting and space.is_application_data and packet.sent_bytes <= self.packet_limit:
            self.sent += 1

    def on_flight_sent(self, packets: list[Flight], size: int, now: float, space: QuicPacketSpace) -> None:
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
        oldest_sent = now
        eliciting = 0
        size = 0
        counted = space.is_application_data
        for span in ranges:
            for number in _held(sent, span):
                newest = packet = sent.pop(number)
                if packet.sent_time < oldest_sent:
                    oldest_sent = packet.sent_time
                if packet.in_flight:
                    size += packet.sent_bytes
                if packet.is_ack_eliciting:
                    eliciting += 1
                    self.acked += counted and packet.sent_bytes <= self.packet_limit
                    if packet.sent_bytes > SMALLEST_MAX_DATAGRAM_SIZE:
                        self.large_lost, self.large_acked = 0, number
                if type(packet) is Flight:
                    self.acked_tokens += packet.tokens
                else:
                    for handler, args in packet.delivery_handlers:
                        handler(_ACKED, *args)
        if counted and self.given_up:
            oldest_sent = min(oldest_sent, self._regret(ranges, now))
        self.slowest = max(now - oldest_sent, self.slowest * SLOWEST_FADES)
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

    def _regret(self, ranges: list[range], now: float) -> float:
        """Find what was declared lost and is acknowledged now. Returns when the first such packet was sent."""
        earliest = now
        for item in [item for item in self.given_up if any(item[0] in span for span in reversed(ranges))]:
            self.given_up.remove(item)
            self.spurious += 1
            earliest = min(earliest, item[1])
        return earliest

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
        slowest = min(self.slowest, 2 * rtt + self.max_ack_delay)
        delay = max(K_TIME_THRESHOLD * max(rtt, slowest), K_GRANULARITY)
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
            if type(packet) is Flight:
                self.lost_tokens += packet.tokens
            self.given_up.append((packet.packet_number, packet.sent_time))
        super()._on_packets_lost(packets=packets, space=space, **rest)


def _held(sent: dict[int, QuicSentPacket], span: range) -> list[int]:
    """The packet numbers of `sent` within `span`; `sent` is in ascending order, with few gaps."""
    if not sent:
        return []
    start = max(span.start, next(iter(sent)))
    if span.stop - start > 4 * len(sent):  # a peer may acknowledge any range
        return [number for number in sent if start <= number < span.stop]
    return [number for number in range(start, span.stop) if number in sent]

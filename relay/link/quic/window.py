"""Congestion control for media between nodes: a window that reacts to heavy loss only.

Reno halves for every loss: at 2 % bursty loss and 40 ms it leaves 2 Mbit/s, and a link would starve on a path that its
viewers would not notice. Media cannot slow down; its publishers' encoders and the breaker are the answer to a bad path.
So the window grows while it is used, shrinks by a third in a round trip that lost more than a tenth, and keeps its size
when idle, because a warm standby has to carry everything at once. Probes larger than the path's packets do not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

NAME = "media"
LOSS_LIMIT = 0.10  # of a round trip's bytes; above the breaker's 8 %, which moves the media away first
SHRINK = 0.7
LEAST_PACKETS = 10  # the initial window of RFC 9002 section 7.2
JUDGED_PACKETS = 20  # fewer say nothing about a tenth
LARGEST = 32 << 20  # bytes; packet numbers of two bytes tell 32,768 packets in flight apart
PERIOD_S = 0.05  # least time that is looked at as a whole


class MediaWindow(QuicCongestionControl):
    """See the module. Times are seconds."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.packet = max_datagram_size
        self._rtt = 0.1
        self._round_began = 0.0
        self._acked = 0
        self._lost = 0
        self._peak = 0  # bytes in flight at most, in this period
        self._peak_before = 0
        self._peak_since = 0.0

    def open(self, size: int) -> None:
        """Let at least `size` bytes be in flight."""
        self.congestion_window = max(self.congestion_window, min(size, LARGEST))

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        self.sent(packet.sent_bytes)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self.acked(packet.sent_bytes)

    def sent(self, size: int) -> None:
        """So many bytes were sent."""
        self.bytes_in_flight += size
        self._peak = max(self._peak, self.bytes_in_flight)

    def acked(self, size: int) -> None:
        """So many bytes were acknowledged."""
        used = max(self._peak, self._peak_before) * 2 > self.congestion_window  # RFC 9002 section 7.8
        self.bytes_in_flight -= size
        self._acked += size
        if used and self.congestion_window < LARGEST:
            slow_start = self.ssthresh is None or self.congestion_window < self.ssthresh
            self.congestion_window += size if slow_start else self.packet * size // self.congestion_window

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            if packet.sent_bytes <= self.packet:
                self._lost += packet.sent_bytes
        if now - self._round_began < self._rtt or self._acked + self._lost < JUDGED_PACKETS * self.packet:
            return
        if self._lost > LOSS_LIMIT * (self._acked + self._lost):
            self.congestion_window = max(int(self.congestion_window * SHRINK), LEAST_PACKETS * self.packet)
            self.ssthresh = self.congestion_window
        self._begin_round(now)

    def on_persistent_congestion(self) -> None:
        self.congestion_window = LEAST_PACKETS * self.packet

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self._rtt = rtt
        period = max(rtt, PERIOD_S)
        if now - self._peak_since >= period:
            self._peak_since, self._peak_before, self._peak = now, self._peak, self.bytes_in_flight
        if now - self._round_began >= period and not self._lost:
            self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._round_began = now
        self._acked = self._lost = 0


register_congestion_control(NAME, MediaWindow)

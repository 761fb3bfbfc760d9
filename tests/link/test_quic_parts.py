"""The parts without I/O: the congestion window and the search for the path's packet size, in virtual time."""

from __future__ import annotations

from random import Random

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.link.quic.mtu import AGAIN_S, BASE, NEAR, TRIES, MtuSearch
from relay.link.quic.window import LARGEST, LEAST_PACKETS, SHRINK, MediaWindow

SIZE = 1200
FLOOR = LEAST_PACKETS * SIZE


def packet(size: int = SIZE) -> QuicSentPacket:
    made = QuicSentPacket(Epoch.ONE_RTT, True, True, False, 0, QuicPacketType.ONE_RTT)
    made.sent_bytes = size
    return made


class Path:
    """A round trip after the other through a window: it sends what it may, `share` of it is lost."""

    def __init__(self, seed: int = 1) -> None:
        self.window = MediaWindow(max_datagram_size=SIZE)
        self.now = 1.0
        self._random = Random(seed)

    def round(self, share: float, wanted: int = 1 << 30) -> None:
        count = min(self.window.congestion_window // SIZE, wanted)
        packets = [packet() for _ in range(count)]
        for each in packets:
            self.window.on_packet_sent(packet=each)
        self.now += 0.05
        for each in packets:
            if self._random.random() < share:
                self.window.on_packets_lost(now=self.now, packets=[each])
            else:
                self.window.on_packet_acked(now=self.now, packet=each)
        self.window.on_rtt_measurement(now=self.now, rtt=0.05)

    def rounds(self, count: int, share: float, wanted: int = 1 << 30) -> int:
        for _ in range(count):
            self.round(share, wanted)
        assert self.window.bytes_in_flight == 0
        return self.window.congestion_window


def test_a_used_window_grows_and_has_an_end() -> None:
    path = Path()
    assert path.window.congestion_window == FLOOR
    assert path.rounds(6, 0.0) > 8 * FLOOR
    path.window.open(1 << 40)
    assert path.window.congestion_window == LARGEST
    path.window.open(1)
    assert path.window.congestion_window == LARGEST


def test_an_unused_window_stays() -> None:
    path = Path()
    path.window.open(500_000)
    assert path.rounds(100, 0.0, wanted=5) == 500_000


def test_two_percent_of_loss_does_not_starve_media() -> None:
    path = Path()
    path.window.open(300_000)
    assert min(path.rounds(1, 0.02, wanted=250) for _ in range(200)) >= 300_000


def test_heavy_loss_shrinks_step_by_step_to_a_floor() -> None:
    path = Path()
    path.window.open(1_000_000)
    before = path.window.congestion_window
    path.round(0.3)
    assert before * SHRINK * 0.99 <= path.window.congestion_window < before
    assert path.rounds(60, 0.3) <= 4 * FLOOR
    path.window.on_persistent_congestion()
    assert path.window.congestion_window == FLOOR


def test_lost_probes_and_expired_packets_are_no_congestion() -> None:
    path = Path()
    path.window.open(200_000)
    for _ in range(100):
        for size in (1452, SIZE):
            path.window.on_packet_sent(packet=packet(size))
        path.window.on_packets_lost(now=path.now, packets=[packet(1452)])
        path.window.on_packets_expired(packets=[packet()])
        path.now += 1
    assert path.window.congestion_window == 200_000
    assert path.window.bytes_in_flight == 0


def search(ceiling: int, real: int, now: float = 0.0) -> tuple[MtuSearch, int]:
    """Run a search on a path that carries `real`. Returns it and the number of probes."""
    found = MtuSearch(ceiling)
    probes = 0
    while (size := found.next_probe(now)) is not None:
        assert found.next_probe(now) is None  # one at a time
        probes += 1
        if size <= real:
            found.passed(size)
        else:
            found.lost(size)
    return found, probes


def test_the_ceiling_takes_one_probe() -> None:
    assert search(8952, 9000)[1] == 1
    assert search(BASE, 9000)[1] == 0


@settings(max_examples=200)
@given(st.integers(BASE, 65_000), st.integers(BASE, 65_000))
def test_any_path_is_found_nearly_and_never_exceeded(ceiling: int, real: int) -> None:
    found, probes = search(ceiling, real)
    assert BASE <= found.size <= min(ceiling, real)
    assert min(ceiling, real) - found.size <= NEAR
    assert probes <= TRIES * 14


def test_a_lost_probe_is_tried_again_before_it_counts() -> None:
    found = MtuSearch(1452)
    for _ in range(TRIES - 1):
        assert found.next_probe(0.0) == 1452
        found.lost(1452)
    assert found.next_probe(0.0) == 1452
    assert found.passed(1452)
    assert found.size == 1452


def test_a_black_hole_falls_back_and_is_tried_again_later() -> None:
    found, _ = search(1452, 1452)
    assert found.black_hole(10.0)
    assert found.size == BASE
    assert found.next_probe(10.0 + AGAIN_S - 1) is None
    assert found.next_probe(10.0 + AGAIN_S) == 1452
    assert not found.black_hole(20.0)

"""The estimator against a seeded bottleneck in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference import rtcp
from relay.plane.reference.estimate import (
    HISTORY,
    MIN_BITRATE,
    PROBE_PACKETS,
    PROBE_US,
    AckedRate,
    BandwidthEstimator,
    Probe,
)
from relay.plane.reference.transport_cc import REFERENCE_WRAP_US, Feedback, Recorder, parse_feedback

SECOND = 1_000_000
SIZE = 1200


class Path:
    """A bottleneck with a drop-tail queue of 300 ms, 20 ms each way, random loss and jitter. One viewer behind it.

    The sender always has as much to send as the estimate allows, and `wanted` more for probes.
    """

    def __init__(
        self, capacity: int, *, loss: float = 0.0, jitter_us: int = 0, wanted: int = 6_000_000, first_seq: int = 65_000
    ) -> None:
        self.random = random.Random(7)
        self.capacity, self.loss, self.jitter_us, self.wanted = capacity, loss, jitter_us, wanted
        self.estimator = BandwidthEstimator()
        self.now = 5_000 * SECOND
        self.seq = first_seq
        self.recorder = Recorder()
        self.free_at = self.now
        self.arrivals: list[tuple[int, int]] = []  # (time, seq)
        self.reports: list[tuple[int, bytes]] = []  # (time at the sender, feedback)
        self.next_feedback = self.now
        self.send_credit = 0
        self.last_out = 0
        self.train = self.train_rate = 0

    def send(self) -> None:
        self.estimator.on_sent(self.seq & 0xFFFF, SIZE, self.now)
        self.free_at = max(self.free_at, self.now)
        if self.free_at - self.now < 300_000:
            self.free_at += SIZE * 8 * SECOND // self.capacity
            if self.random.random() >= self.loss:
                jitter = self.random.randint(0, 2 * self.jitter_us) if self.jitter_us else 0
                self.last_out = max(self.last_out, self.free_at + 20_000 + jitter)
                self.arrivals.append((self.last_out, self.seq & 0xFFFF))
        self.seq += 1

    def step(self) -> None:
        """One millisecond."""
        self.now += 1_000
        self.deliver()
        target = self.estimator.probe_wanted(self.wanted, self.now)
        if target and not self.train:
            self.estimator.on_probe_started(target, self.now)
            self.train = max(PROBE_PACKETS + 1, target * PROBE_US // SECOND // 8 // SIZE + 1)
            self.train_rate = target
        rate = self.train_rate if self.train else self.estimator.bitrate
        self.send_credit += rate * 1_000 // SECOND
        while self.send_credit >= SIZE * 8:
            self.send_credit -= SIZE * 8
            self.send()
            if self.train:
                self.train -= 1
                if not self.train:
                    self.estimator.on_probe_ended()
                    self.send_credit = 0

    def deliver(self) -> None:
        while self.arrivals and self.arrivals[0][0] <= self.now:
            at, seq = self.arrivals.pop(0)
            self.recorder.record(seq, at + 777_000_000)
        if self.now >= self.next_feedback:
            self.next_feedback = self.now + 50_000
            self.reports += [(self.now + 20_000, packet) for packet in self.recorder.feedback(self.now, 1, 2)]
        while self.reports and self.reports[0][0] <= self.now:
            read = rtcp.parse(self.reports.pop(0)[1]).packets[0]
            assert isinstance(read, rtcp.TransportFeedback)
            feedback = parse_feedback(read.fci)
            assert feedback is not None
            self.estimator.on_feedback(feedback, self.now)

    def run(self, seconds: float) -> list[int]:
        """The estimate every 100 ms."""
        trace = []
        for tick in range(int(seconds * 1000)):
            self.step()
            if tick % 100 == 99:
                trace.append(self.estimator.bitrate)
        return trace


def mean(trace: list[int]) -> float:
    return sum(trace) / len(trace)


@pytest.mark.parametrize("capacity", [300_000, 1_000_000, 3_000_000])
def test_converges_to_the_capacity(capacity: int) -> None:
    path = Path(capacity)
    path.estimator.on_rtt(40_000)
    path.run(10)
    trace = path.run(10)
    assert 0.70 * capacity <= mean(trace) <= 1.05 * capacity
    assert min(trace) >= 0.5 * capacity


@pytest.mark.parametrize("wanted", [0, 6_000_000])
def test_follows_a_capacity_that_halves_within_two_seconds(wanted: int) -> None:
    path = Path(2_000_000)
    path.run(10)
    path.wanted = wanted
    path.capacity = 1_000_000
    trace = path.run(2)
    assert trace[-1] <= 1_050_000
    assert mean(path.run(8)) >= 700_000


def test_recovers_with_probes_when_the_capacity_returns() -> None:
    path = Path(2_000_000)
    path.run(8)
    path.capacity = 500_000
    path.run(6)
    assert path.estimator.bitrate < 600_000
    path.capacity = 2_000_000
    trace = path.run(12)
    assert max(trace) > 1_400_000
    assert mean(trace[-30:]) > 1_300_000


def test_two_percent_of_random_loss_does_not_collapse_it() -> None:
    path = Path(2_000_000, loss=0.02)
    path.run(10)
    assert mean(path.run(10)) >= 1_200_000


def test_twenty_milliseconds_of_jitter_do_not_collapse_it() -> None:
    path = Path(2_000_000, jitter_us=20_000)
    path.run(10)
    assert mean(path.run(15)) >= 1_000_000


def test_heavy_loss_lowers_it() -> None:
    path = Path(2_000_000)
    path.run(8)
    before = path.estimator.bitrate
    path.loss = 0.25
    path.run(4)
    assert path.estimator.bitrate < before * 0.7
    assert path.estimator.bitrate >= MIN_BITRATE


def test_a_probe_lifts_the_estimate_in_one_round_trip() -> None:
    path = Path(5_000_000)
    path.run(0.4)
    assert path.estimator.bitrate >= 1_500_000
    assert path.estimator.probe_result >= 1_500_000


def drive(estimator: BandwidthEstimator, seq: int, now: int, count: int = 50, reference: int = 0) -> Feedback:
    """Send `count` packets 5 ms apart from `now`; the feedback that says all of them arrived 30 ms later."""
    for index in range(count):
        estimator.on_sent((seq + index) & 0xFFFF, SIZE, now + 5_000 * index)
    packets: list[tuple[int, int | None]] = [((seq + i) & 0xFFFF, 30_000 + 5_000 * i) for i in range(count)]
    return Feedback(0, reference, packets)


def state(estimator: BandwidthEstimator) -> tuple[int, int, int]:
    return estimator.bitrate, estimator.loss_permil, estimator.probe_result


def test_duplicated_feedback_changes_nothing() -> None:
    estimator = BandwidthEstimator()
    feedback = drive(estimator, 65_520, SECOND)
    estimator.on_feedback(feedback, SECOND + 300_000)
    before = state(estimator)
    for again in range(20):
        estimator.on_feedback(feedback, SECOND + 300_000 + again * 100_000)
    assert state(estimator) == before


def test_feedback_about_unknown_packets_is_ignored() -> None:
    estimator = BandwidthEstimator()
    drive(estimator, 0, SECOND)
    before = state(estimator)
    estimator.on_feedback(Feedback(0, 0, [(seq, None) for seq in range(1000, 3000)]), 2 * SECOND)
    estimator.on_feedback(Feedback(1, 0, [(65_535, 5), (HISTORY, 10)]), 2 * SECOND)
    assert state(estimator) == before


def test_a_packet_reported_lost_and_then_received_was_only_late() -> None:
    estimator = BandwidthEstimator()
    good = drive(estimator, 0, SECOND)
    estimator.on_feedback(Feedback(0, 0, [(seq, None) for seq in range(15)]), SECOND + 10_000)
    estimator.on_feedback(good, SECOND + 300_000)
    assert estimator.loss_permil == 0
    assert estimator.bitrate >= 600_000


def test_feedback_that_goes_backwards_and_wraps_keeps_a_sane_estimate() -> None:
    estimator = BandwidthEstimator()
    now, seq = SECOND, 0
    reference = REFERENCE_WRAP_US - 2 * 256_000
    for turn in range(40):
        jump = -3_584_000 if turn == 20 else 0
        feedback = drive(estimator, seq, now, reference=(reference + turn * 256_000 + jump) % REFERENCE_WRAP_US)
        seq, now = seq + 50, now + 250_000
        estimator.on_feedback(feedback, now)
    assert 600_000 <= estimator.bitrate <= 3_000_000


def test_the_estimate_is_kept_over_an_idle_minute() -> None:
    path = Path(1_000_000)
    path.run(6)
    before = path.estimator.bitrate
    path.now += 60 * SECOND
    path.next_feedback = path.now
    path.arrivals.clear()
    assert min(path.run(3)) >= before * 0.7


def test_growth_stops_at_half_again_what_is_used() -> None:
    estimator = BandwidthEstimator()
    now, seq = SECOND, 0
    for turn in range(200):  # 50 packets in 250 ms: 1.92 Mbit/s
        estimator.on_feedback(drive(estimator, seq, now, reference=turn * 250_000), now + 280_000)
        seq, now = seq + 50, now + 250_000
    assert 1_920_000 < estimator.bitrate <= 3_000_000


def test_without_transport_cc_remb_is_the_estimate_and_reports_limit_it() -> None:
    estimator = BandwidthEstimator()
    estimator.on_remb(2_000_000, SECOND)
    assert estimator.bitrate == 2_000_000
    estimator.on_receiver_report(64, 2 * SECOND)
    assert estimator.bitrate == 1_750_000
    estimator.on_remb(100, 3 * SECOND)
    assert estimator.bitrate == MIN_BITRATE


def test_receiver_reports_alone_let_it_grow_with_what_is_sent() -> None:
    estimator = BandwidthEstimator()
    for second in range(1, 11):
        for index in range(60):
            estimator.on_sent((second * 60 + index) & 0xFFFF, SIZE, second * SECOND)
        estimator.on_receiver_report(0, second * SECOND)
    assert 700_000 < estimator.bitrate <= 60 * SIZE * 8 * 3 // 2 + 10_000


def test_remb_is_a_ceiling_beside_transport_cc() -> None:
    path = Path(2_000_000)
    path.run(5)
    path.estimator.on_remb(400_000, path.now)
    assert path.estimator.bitrate == 400_000
    path.run(6)
    assert path.estimator.bitrate > 800_000  # a REMB that is not repeated expires


def test_the_ceiling_can_be_changed() -> None:
    estimator = BandwidthEstimator(max_bps=500_000)
    estimator.set_max(300_000)
    assert estimator.bitrate == 300_000


def test_a_clumped_or_short_train_proves_nothing() -> None:
    probe = Probe(10, 2_000_000, 0)
    for index in range(6):
        probe.add(10 + index, index * 4_800, index * 100, SIZE)
    probe.last = 15
    assert probe.result() == 0
    short = Probe(10, 2_000_000, 0)
    short.add(10, 0, 0, SIZE)
    short.last = 15
    assert short.result() == 0


def test_a_saturated_train_says_the_rate_of_the_bottleneck() -> None:
    probe = Probe(65_533, 4_000_000, 0)
    for index in range(8):
        probe.add((65_533 + index) & 0xFFFF, index * 2_400, index * 9_600, SIZE)
    probe.last = (65_533 + 7) & 0xFFFF
    assert probe.result() == 1_000_000 * 95 // 100


def test_no_second_probe_while_one_is_open_and_a_lost_one_expires() -> None:
    estimator = BandwidthEstimator()
    assert estimator.probe_wanted(5_000_000, SECOND) == 0  # nothing was sent yet
    estimator.on_sent(0, SIZE, SECOND)
    assert estimator.probe_wanted(5_000_000, SECOND) == 1_800_000
    estimator.on_probe_started(1_800_000, SECOND)
    assert estimator.probe_wanted(5_000_000, SECOND + 100_000) == 0
    assert estimator.probe_wanted(5_000_000, SECOND + 2_100_000) > 0
    assert estimator.probe_wanted(600_000, SECOND + 2_100_000) == 0


def test_acked_rate_over_a_window() -> None:
    rate = AckedRate()
    for index in range(200):
        rate.add(-3_000_000 + index * 10_000, 1250)
    assert rate.bitrate() == pytest.approx(1_000_000, rel=0.03)
    rate.add(60 * SECOND, 1250)
    assert rate.bitrate() < 100_000


FEEDBACK = st.lists(
    st.tuples(st.integers(0, 3000), st.none() | st.integers(-(1 << 40), 1 << 40)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FEEDBACK, st.integers(0, REFERENCE_WRAP_US - 1), st.integers(0, 3_000_000)), max_size=15))
def test_no_feedback_breaks_it(story: list[tuple[list[tuple[int, int | None]], int, int]]) -> None:
    estimator = BandwidthEstimator()
    now = 0
    for packets, reference, pause in story:
        for seq in range(0, 3000, 3):
            estimator.on_sent(seq, SIZE, now)
        if estimator.probe_wanted(3_000_000, now):
            estimator.on_probe_started(2_000_000, now)
            estimator.on_probe_ended()
        now += pause
        estimator.on_feedback(Feedback(0, reference, packets), now)
        assert MIN_BITRATE <= estimator.bitrate <= 30_000_000

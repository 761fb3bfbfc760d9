"""Sender reports in virtual time: what they say of when frames were captured, and reports that cannot be believed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.reference.rtcp import ntp_from_wall_us
from relay.stage.sender_clock import LATE_TIMES, LATE_US, STALE_US, Anchor, Refusal, Report, SenderClock, Stream

SECOND = 1_000_000
THEIRS = 1_600_000_000 * SECOND
"""What the sender's wall clock shows at our 0."""
PICTURE, SOUND = (1, 0), (2, 0)
HZ = {PICTURE: 90_000, SOUND: 48_000, (1, 1): 90_000, (1, 2): 90_000}


class Sender:
    """A sender, whose streams take different times to come here, and the clock that hears it."""

    def __init__(self) -> None:
        self.clock = SenderClock()
        self.now = 5 * SECOND
        self.stepped = 0
        self.moved = dict.fromkeys(HZ, 0)
        self.ssrc = {stream: 100 + number for number, stream in enumerate(HZ)}
        self.first = {stream: 2**32 - 3_000_000 + 17 * number for number, stream in enumerate(HZ)}

    def timestamp(self, stream: Stream, at: int) -> int:
        return (self.first[stream] + self.moved[stream] + at * HZ[stream] // SECOND) % (1 << 32)

    def wall(self, at: int) -> int:
        return THEIRS + at + self.stepped

    def report(self, stream: Stream, *, off: int = 0, ticks: int = 0, takes: int = 20_000) -> Refusal | None:
        """Send one now. `off`: its NTP time is wrong by so many µs; `ticks`: its RTP timestamp; it takes `takes` µs."""
        at, arrival = self.now, self.now + takes
        timestamp = (self.timestamp(stream, at) + ticks) % (1 << 32)
        report = Report(self.ssrc[stream], timestamp, ntp_from_wall_us(self.wall(at) + off), arrival)
        frame = self.timestamp(stream, at - 30_000), arrival - 30_000
        return self.clock.report(stream, HZ[stream], report, frame)

    def run(self, seconds: int, *streams: Stream) -> list[Refusal]:
        told = []
        for _ in range(seconds):
            for stream in streams or (PICTURE, SOUND):
                self.now += SECOND // 2
                if (why := self.report(stream)) is not None:
                    told.append(why)
        return told

    def captured(self, stream: Stream) -> int | None:
        """Our time at which the sender says to have captured what he captures now."""
        anchor = self.clock.anchor(stream)
        if anchor is None:
            return None
        assert anchor.ssrc == self.ssrc[stream]
        ticks = (self.timestamp(stream, self.now) - anchor.timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
        return anchor.captured + ticks * SECOND // HZ[stream] - THEIRS - self.now

    def agree(self) -> bool:
        """Both streams have the same time for the same moment."""
        picture, sound = self.captured(PICTURE), self.captured(SOUND)
        return picture is not None and sound is not None and abs(picture - sound) < 1000


def test_what_was_captured_together_has_one_time_from_the_first_reports_on() -> None:
    sender = Sender()
    assert sender.captured(PICTURE) is None
    assert sender.report(PICTURE) is None
    assert (sender.captured(PICTURE), sender.captured(SOUND)) == (pytest.approx(0, abs=20), None)
    sender.now += 3 * SECOND
    assert sender.report(SOUND) is None
    assert sender.agree()
    assert sender.run(120) == []  # over a turn of both timestamps
    assert sender.agree()
    assert sender.captured(PICTURE) == pytest.approx(0, abs=50)
    assert sender.clock.refused == 0


def test_a_report_that_is_seen_again_changes_nothing_and_one_that_is_repeated_neither() -> None:
    """Who polls sees a report again; aiortc sends it again while its track pauses, and later it would look too old."""
    sender = Sender()
    sender.run(3)
    at = sender.now
    for late in range(0, 40 * SECOND, SECOND):
        report = Report(101, sender.timestamp(SOUND, at), ntp_from_wall_us(sender.wall(at)), at + late)
        assert sender.clock.report(SOUND, 48_000, report, (sender.timestamp(SOUND, at), at)) is None
    assert sender.agree()
    assert sender.clock.refused == 0


def test_who_tells_when_he_sent_is_believed_to_have_captured_as_early_as_he_ever_said() -> None:
    sender, dice = Sender(), random.Random(4)
    for _ in range(60):
        sender.now += SECOND
        assert sender.report(PICTURE, off=4_000 + int(dice.expovariate(1 / 8_000)) % 40_000) is None
        assert sender.report(SOUND, off=1_000) is None
    assert sender.captured(PICTURE) == pytest.approx(4_000, abs=4_000)


def test_clocks_that_drift_apart_as_crystals_do_are_followed() -> None:
    sender = Sender()
    for second in range(300):
        sender.now += SECOND
        assert sender.report(PICTURE, off=second * 100) is None  # 100 ppm
    assert sender.captured(PICTURE) == pytest.approx(299 * 100, abs=1500)


@pytest.mark.parametrize("step", [3600 * SECOND, -3600 * SECOND, 300_000, -2 * SECOND])
def test_a_step_of_the_senders_clock_moves_nothing(step: int) -> None:
    sender = Sender()
    sender.run(5)
    before = sender.captured(PICTURE)
    sender.stepped = step
    told = sender.run(5)
    assert set(told) == {"off the line"}
    assert sender.clock.refused <= (2 * (LATE_TIMES - 1) if 0 < step < LATE_US else 1)
    assert sender.agree()
    assert sender.captured(PICTURE) == pytest.approx(before, abs=100)


def test_a_step_of_the_clock_of_a_sender_with_one_stream_moves_nothing() -> None:
    sender = Sender()
    sender.run(5, PICTURE)
    sender.stepped = -77 * SECOND
    sender.run(3, PICTURE)
    assert sender.captured(PICTURE) == pytest.approx(0, abs=100)
    sender.run(2)
    assert sender.agree(), "a stream that comes later is told by the same clock"


def test_timestamps_that_leap_are_one_streams_own_and_it_is_placed_anew() -> None:
    sender = Sender()
    sender.run(5)
    sender.moved[PICTURE] = 45_000  # half a second of pictures was left out
    told = sender.run(4)
    assert told == ["off the line"]
    assert sender.agree()
    assert sender.captured(SOUND) == pytest.approx(0, abs=50)


def test_a_damaged_report_is_counted_and_costs_nothing_else() -> None:
    sender = Sender()
    sender.run(5)
    for off, ticks, why in ((SECOND, 0, "off the line"), (0, 40 * 90_000, "timestamp"), (-(10**12), 0, "off the line")):
        assert sender.report(PICTURE, off=off, ticks=ticks) == why
        assert sender.agree()
        assert sender.run(2) == []
    assert sender.clock.refused == 3
    assert sender.agree()


def test_nothing_is_believed_of_a_stream_whose_reports_are_of_no_moment_of_it() -> None:
    sender = Sender()
    told = [sender.report(PICTURE, ticks=2**31 - number * 99_999) for number in range(9)]
    assert told == ["timestamp", *[None] * 8]
    assert sender.clock.anchor(PICTURE) is None


def test_a_sender_whose_clock_says_zero_has_none() -> None:
    sender = Sender()
    assert sender.clock.report(PICTURE, 90_000, Report(100, 7, 0, 50), (7, 50)) is None
    assert sender.clock.anchor(PICTURE) is None
    assert sender.clock.refused == 0


@pytest.mark.parametrize("pace", [0.09, -0.09, 0.3])
def test_a_stream_that_cannot_keep_its_own_pace_is_left_to_arrival(pace: float) -> None:
    """44.1 kHz that say to be 48: no line can be laid through that. The other stream keeps its own."""
    sender = Sender()
    sender.run(3)
    for second in range(30):
        sender.now += SECOND
        sender.report(PICTURE, ticks=round(second * pace * 90_000) % (1 << 32))
        sender.report(SOUND)
    assert sender.clock.anchor(PICTURE) is None
    assert sender.captured(SOUND) == pytest.approx(0, abs=100)


def test_a_clock_that_is_stepped_all_the_time_is_none_until_it_stands() -> None:
    sender, told = Sender(), list[Refusal]()
    sender.run(3)
    for _ in range(6):
        sender.stepped += 5 * SECOND
        told += sender.run(4)
    assert "clock unsteady" in told
    assert sender.clock.anchor(PICTURE) is None
    sender.run(61)
    assert sender.agree()


def test_a_stream_that_is_refused_for_long_is_not_known() -> None:
    sender = Sender()
    sender.run(3)
    start = sender.now
    for number in range(20):
        assert (sender.clock.anchor(PICTURE) is not None) == (sender.now - start < STALE_US)
        sender.now += SECOND
        sender.report(PICTURE, off=(2 * number + 1) * SECOND)
    sender.run(1)
    assert sender.agree()


@pytest.mark.parametrize("seed", range(8))
def test_a_starved_sender_that_tells_when_it_sent_is_late_but_has_one_clock(seed: int) -> None:
    """As aiortc on a machine without CPU to spare: up to half a second, the first reports as the others."""
    sender, dice = Sender(), random.Random(seed)
    for second in range(60):
        for stream in (PICTURE, SOUND):
            sender.now += SECOND // 2
            late = dice.randrange(20_000) if dice.random() < 0.6 else dice.randrange(500_000)
            sender.report(stream, off=late)
        if second >= 12:
            picture, sound = sender.captured(PICTURE), sender.captured(SOUND)
            assert picture is not None
            assert sound is not None
            assert abs(picture - sound) <= 60_000


def test_another_ssrc_begins_anew() -> None:
    sender = Sender()
    sender.run(5)
    sender.ssrc[PICTURE], sender.first[PICTURE] = 999, 12_345
    sender.run(1)
    assert sender.agree()
    anchor = sender.clock.anchor(PICTURE)
    assert anchor is not None
    assert anchor.ssrc == 999


def test_layers_of_simulcast_have_lines_of_their_own_on_one_clock() -> None:
    sender = Sender()
    sender.run(5, PICTURE, (1, 1), (1, 2), SOUND)
    times = [sender.captured(stream) for stream in HZ]
    assert all(each == pytest.approx(0, abs=50) for each in times)
    sender.clock.forget(1)
    assert [sender.clock.anchor(stream) is None for stream in HZ] == [True, False, True, True]


def test_an_anchor_is_near_another_of_its_stream_and_line() -> None:
    one = Anchor(7, 90_000, 10 * SECOND)
    assert Anchor(7, 180_000, 11 * SECOND + 500).is_near(one, 90_000, 1000)
    assert not Anchor(7, 180_000, 11 * SECOND + 2000).is_near(one, 90_000, 1000)
    assert not Anchor(8, 180_000, 11 * SECOND).is_near(one, 90_000, 1000)
    assert not one.is_near(None, 90_000, 1000)
    hours = 2 * 3600
    assert not Anchor(7, hours * 90_000, hours * SECOND).is_near(Anchor(7, 0, 0), 90_000, 1000)


def test_a_clock_has_a_rate() -> None:
    with pytest.raises(UsageError):
        SenderClock().report(PICTURE, 0, Report(1, 2, 3, 4), (1, 2))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([PICTURE, SOUND]),
            st.integers(0, 3),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**64 - 1),
            st.integers(0, 10**7),
            st.booleans(),
        ),
        max_size=80,
    )
)
def test_any_reports_are_survived_and_leave_a_clock_that_can_be_put_right(
    told: list[tuple[Stream, int, int, int, int, bool]],
) -> None:
    sender = Sender()
    for stream, ssrc, timestamp, ntp, step, near in told:
        sender.now += step
        frame = timestamp if near else 0, sender.now
        sender.clock.report(stream, HZ[stream], Report(ssrc, timestamp, ntp, sender.now), frame)
    sender.run(90)
    assert sender.agree()

"""What one path's reports say about it, and the loss windows behind it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.simulation.model_path import MS, SECOND
from relay.link.loss import BUCKET_US, LossWindows, Window
from relay.link.path import SCORE_CLOSED, SCORE_SILENT, Level, PathMonitor, PathReport, Verdict
from relay.settings import BreakerSettings
from tests.link.stories import Line


def monitored(*reports: PathReport) -> PathMonitor:
    monitor = PathMonitor(BreakerSettings())
    for report in reports:
        assert monitor.report(report)
    return monitor


def steady(loss: int, packets: int, line: Line | None = None) -> PathMonitor:
    """Return a monitor of a path at 1000 packets/s that lost so many of each 50."""
    line = line or Line()
    times = range(10 * SECOND, 10 * SECOND + packets * MS, 50 * MS)
    return monitored(*(line.report(now, rtt=(20,), acked=50 - loss, lost=loss) for now in times))


def test_unknown_is_neither_good_nor_usable() -> None:
    monitor = monitored()
    verdict = monitor.judge(0)
    assert (verdict.level, verdict.reason, verdict.score) == (Level.BAD, "unknown", SCORE_CLOSED)
    assert not monitor.usable
    assert monitor.next_change(0) is None


def test_loss_verdicts_and_figures() -> None:
    end = 12 * SECOND
    assert steady(4, 2000).judge(end).level is Level.GOOD  # exactly 8 %
    bad = steady(5, 2000).judge(end)
    assert (bad.level, bad.reason, bad.lost, bad.settled) == (Level.BAD, "loss", 200, 2000)
    assert bad.score == 1250  # 10 % of 8 %
    short = steady(5, 1000).judge(end)
    assert (short.level, short.reason) == (Level.SUSPICIOUS, "loss")
    assert steady(5, 950).judge(end).level is Level.GOOD


def test_the_two_short_windows_have_to_agree() -> None:
    """A burst that fills one of them is no doubt; a loss that stays is."""
    line = Line()
    monitor = steady(0, 3000, line)
    for now in range(13 * SECOND, 14 * SECOND, 50 * MS):
        monitor.report(line.report(now, lost=5, acked=45))
        doubted = monitor.judge(now).level is Level.SUSPICIOUS
        assert doubted is (now >= 13_900 * MS)  # of 500 lost 50, and of the 500 before 45


def thinly(lost_of_13: list[int], packets: int) -> Verdict:
    """Return the verdict on a path at 260 packets/s that loses so many of each 13, in turn."""
    line = Line()
    monitor = monitored()
    for turn in range(packets // 13 + 1):
        now, lost = turn * 50 * MS, lost_of_13[turn % len(lost_of_13)]
        monitor.report(line.report(now, rtt=(20,), acked=13 - lost, lost=lost))
    return monitor.judge(now)


def test_spread_losses_are_believed_sooner() -> None:
    doubtful, bad = thinly([2, 1, 1], 500), thinly([2, 1, 1], 1000)  # 10 %
    assert (doubtful.level, doubtful.reason) == (Level.SUSPICIOUS, "loss")
    assert (bad.level, bad.reason) == (Level.BAD, "loss")
    assert 1000 <= bad.settled <= 1013
    assert bad.score > 1000
    assert thinly([1], 1900).level is Level.GOOD  # 7.7 %


def test_what_one_burst_loses_counts_as_three() -> None:
    """A tenth lost, thirteen in a row each time: nothing to go by before 2000 packets tell."""
    bursts = [13] + [0] * 9
    assert thinly(bursts, 900).level is Level.GOOD
    assert thinly(bursts, 1900).level is Level.SUSPICIOUS  # 500 and 500 more, both above
    assert thinly(bursts, 2100).level is Level.BAD


def test_a_packet_that_was_overtaken_is_taken_back() -> None:
    line = Line()
    monitor = steady(10, 1900, line)
    monitor.report(line.report(12 * SECOND, lost=-380, acked=430))
    verdict = monitor.judge(12 * SECOND)
    assert (verdict.level, verdict.lost) == (Level.GOOD, 0)
    assert monitor.tally.lost == 0


@pytest.mark.parametrize(
    ("pto_ms", "overdue_ms"), [(1, 60), (27, 60), (40, 80), (99, 198), (150, 200), (216, 216), (400, 250), (9000, 250)]
)
def test_when_an_acknowledgement_is_overdue(pto_ms: int, overdue_ms: int) -> None:
    """max(60 ms, 2 × PTO), 200 ms at the latest; never before the PTO, but within what a good round trip may take."""
    sent = 5 * SECOND
    monitor = monitored(PathReport(sent, (), 10, 5, 0, sent, pto_ms * MS))
    assert monitor.judge(sent).level is Level.GOOD
    due = monitor.next_change(sent)
    assert due == sent + overdue_ms * MS
    assert monitor.judge(due - 1).level is Level.GOOD
    doubt = monitor.judge(due)
    assert (doubt.level, doubt.reason, doubt.silence_us) == (Level.SUSPICIOUS, "silence", overdue_ms * MS)
    assert monitor.next_change(due) == due + 180 * MS
    bad = monitor.judge(due + 180 * MS)
    assert (bad.level, bad.score) == (Level.BAD, SCORE_SILENT)
    assert monitor.next_change(due + 180 * MS) is None


def test_any_acknowledgement_ends_the_silence() -> None:
    """Answers that come, however late, are the round trip's matter."""
    monitor = monitored(PathReport(0, (), 10, 5, 0, 0, 27 * MS))
    assert monitor.judge(200 * MS).level is Level.SUSPICIOUS
    monitor.report(PathReport(370 * MS, (), 10, 6, 0, 100 * MS, 27 * MS))
    assert monitor.judge(380 * MS).level is Level.SUSPICIOUS  # still overdue, but anew
    assert monitor.judge(559 * MS).level is Level.SUSPICIOUS
    assert monitor.judge(560 * MS).level is Level.BAD


def test_closed_is_bad_until_a_new_connection() -> None:
    monitor = monitored(PathReport(0, (), 10, 5, 0, 0, 27 * MS), PathReport(1, (), 10, 5, 0, 0, 27 * MS, True))
    assert monitor.judge(1).score == SCORE_CLOSED
    assert not monitor.report(PathReport(2, (), 10, 5, 0, 0, 27 * MS))
    assert monitor.report(PathReport(3, (), 1, 1, 0, None, 27 * MS), generation=1)
    assert monitor.judge(3).level is Level.GOOD
    assert not monitor.report(PathReport(4, (), 11, 5, 0, 0, 27 * MS), generation=0)
    assert monitor.ignored == 2


@pytest.mark.parametrize("late", [{"now": 4}, {"sent": 9}, {"acked": 4}])
def test_late_reports_are_counted_and_change_nothing(late: dict[str, int]) -> None:
    monitor = monitored(PathReport(5, (), 10, 5, 0, 0, 27 * MS))
    fields = {"now": 6, "sent": 10, "acked": 5} | late
    assert not monitor.report(PathReport(rtt_us=(1,) * 9, lost=0, oldest_unacked=None, pto_us=1, **fields))
    assert monitor.ignored == 1
    assert monitor.judge(6).rtt_us is None


def test_score_orders_bad_paths() -> None:
    def scored(**rest: object) -> Verdict:
        fields: dict[str, object] = {"rtt_us": (), "sent": 10, "acked": 5, "lost": 0, "oldest_unacked": None}
        monitor = monitored(PathReport(now=SECOND, pto_us=27 * MS, **(fields | rest)))  # type: ignore[arg-type]
        monitor.judge(SECOND)
        return monitor.judge(2 * SECOND)

    order = [
        scored(rtt_us=(20 * MS,) * 3),
        scored(rtt_us=(300 * MS,) * 3),
        scored(rtt_us=(900 * MS, 2 * SECOND, SECOND)),
        scored(oldest_unacked=0),
        scored(closed=True),
    ]
    assert [verdict.score for verdict in order] == [100, 1500, 4500, SCORE_SILENT, SCORE_CLOSED]


def test_forgetting_leaves_out_what_was_in_flight() -> None:
    line = Line()
    line.sent = 100
    monitor = monitored(line.report(0))
    monitor.forget(SECOND)
    line.oldest = 0
    monitor.report(line.report(2 * SECOND, acked=0))
    line.sent -= 40
    monitor.report(line.report(2 * SECOND, lost=40))
    assert (monitor.tally.settled, monitor.tally.lost) == (0, 0)
    line.oldest = 3 * SECOND
    line.sent -= 60
    monitor.report(line.report(3 * SECOND, lost=60, acked=5))
    monitor.report(line.report(3 * SECOND, lost=1, acked=2))
    assert (monitor.tally.settled, monitor.tally.lost) == (8, 1)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 80), st.integers(-5, 30)), max_size=80),
    st.integers(1, 300),
    st.integers(50, 30_000),
)
def test_windows_are_the_fewest_newest_buckets(steps: list[tuple[int, int, int]], packets: int, age_ms: int) -> None:
    """Against counting backwards through all that was ever added."""
    windows = LossWindows(packets * 3, packets * 2, packets, 4, age_ms * MS)
    now, rows = 0, []
    for gap, settled, lost in steps:
        now += gap
        windows.add(now, settled, lost)
        if settled or lost:
            rows.append((now // BUCKET_US * BUCKET_US, settled, lost))
        young = [row for row in rows if row[0] + BUCKET_US + age_ms * MS > now]
        end = young[-1][0] + BUCKET_US if young else 0
        assert windows.long(now) == counted(young, end, packets * 3, SECOND)
        assert windows.middle(now) == counted(young, end, packets * 2, SECOND)
        near = counted(young, end, packets, SECOND // 4)
        assert windows.near(now) == near
        assert (windows.before(now) is None) or near is not None


def counted(rows: list[tuple[int, int, int]], end: int, packets: int, span: int) -> Window | None:
    for start in sorted({row[0] for row in rows}, reverse=True):
        taken = [row for row in rows if row[0] >= start]
        settled, lost = sum(row[1] for row in taken), sum(row[2] for row in taken)
        if settled >= packets and end - start >= span:
            each = [sum(row[2] for row in taken if row[0] == start) for start in {row[0] for row in taken}]
            return Window(settled, max(0, lost), max(0, sum(min(4, lost) for lost in each)))
    return None


def test_windows_stay_small_for_ever() -> None:
    windows = LossWindows(2000, 1000, 500, 3, 30 * SECOND)
    for tick in range(20_000):
        windows.add(tick * 50 * MS, 25, 1)
    assert len(windows._starts) <= 30 * 20 + 1024 + 2
    assert windows.long(20_000 * 50 * MS) == Window(2000, 80, 80)

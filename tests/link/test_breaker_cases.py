"""The cases that a breaker between two paths must pass, each a short story in virtual time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import relay.link.breaker
import relay.link.loss
import relay.link.path
from drills.simulation.model_path import MS, SECOND
from relay.errors import SettingsError
from relay.link.breaker import Breaker, BreakerState
from relay.link.path import PathReport
from relay.settings import BreakerSettings, load_node_settings
from tests.link.stories import Story

CLOSED, SUSPECT, OPEN, HALF_OPEN = BreakerState


def test_1_exactly_the_limit_is_good() -> None:
    story = Story()
    for _ in range(100):
        story.wait(20 * MS)
        story.told("primary", rtt=(200,) * 10, acked=46, lost=4)
    verdict = story.breaker.verdict("primary")
    assert verdict.rtt_us == 200 * MS
    assert verdict.lost * 100 == 8 * verdict.settled
    assert verdict.settled >= 2000
    assert story.moves == []


def test_1_a_hair_above_the_limit_is_bad() -> None:
    slow, lossy = Story(), Story()
    slow.told("primary", rtt=(201, 201, 201), acked=3)
    for _ in range(50):
        lossy.wait(20 * MS)
        lossy.told("primary", rtt=(20,), acked=229, lost=20)
    assert slow.path() == lossy.path() == ["suspect", "open"]
    assert [move.reason for move in slow.moves + lossy.moves] == [
        "doubted: rtt", "tripped: rtt", "doubted: loss", "tripped: loss",
    ]  # fmt: skip


def test_2_two_bad_one_good_two_bad_do_not_trip() -> None:
    story = Story()
    for samples in [(300, 300), (20,), (300, 300), (20, 300), (300, 20)]:
        story.wait(20 * MS)
        story.told("primary", rtt=samples, acked=len(samples))
    assert story.moves == []
    story.told("primary", rtt=(300, 300, 300), acked=3)
    assert story.state is OPEN


def test_3_too_few_samples_say_nothing() -> None:
    story = Story()
    story.told("primary", rtt=(900, 900), acked=2, lost=900)
    story.wait(20 * MS)
    story.told("primary", acked=90, lost=900)
    assert story.breaker.verdict("primary").level == 0
    story.wait(20 * SECOND)
    assert story.moves == []


@pytest.mark.parametrize("offset", [0, 1, 49_999, 50_000])
@pytest.mark.parametrize(("burst", "packets", "after_ms"), [(1, 2000, 2_600), (3, 1000, 1_300)])
def test_4_buckets_roll_over(offset: int, burst: int, packets: int, after_ms: int) -> None:
    """12 % are found after as many packets wherever the buckets' borders lie; old good ones roll out of the window."""
    story = Story(BreakerSettings(spread_burst=burst), now=1_000 * SECOND + offset)
    story.flow("primary", 40 * SECOND, acked=10)
    begun = story.now
    story.flow("primary", 10 * SECOND, acked=22, lost=3, every=50 * MS)
    tripped = next(move.now for move in story.moves if move.state is OPEN) - begun
    assert after_ms * MS <= tripped <= (after_ms + 200) * MS  # 8 % of the window, at 60 a second, to the next bucket
    opened = next(move for move in story.moves if move.state is OPEN)
    assert packets <= opened.primary.settled < packets + 50


def test_5_evidence_expires_while_idle() -> None:
    story = Story()
    story.told("primary", rtt=(300, 300), acked=2)
    story.flow("primary", 1_900 * MS, rtt=20, acked=4, lost=1)  # 20 %, but of 475 packets
    story.told("primary", rtt=(300, 300), acked=2)
    assert story.moves == []
    story.wait(31 * SECOND)
    story.told("primary", rtt=(300,), acked=1)
    story.flow("primary", 3 * SECOND, acked=10)  # with the 475 before they were 5 % of 1975
    assert story.moves == []
    assert story.breaker.verdict("primary").lost == 0


def test_6_sparse_samples_count_as_long_as_they_are_fresh() -> None:
    fresh, stale = Story(), Story()
    for _ in range(3):
        fresh.wait(20 * SECOND)
        fresh.told("primary", rtt=(300,), acked=1)
        stale.wait(31 * SECOND)
        stale.told("primary", rtt=(300,), acked=1)
    assert fresh.state is OPEN
    assert stale.moves == []


def test_7_silence_is_bad() -> None:
    story = Story()
    story.flow("primary", SECOND)
    last = story.now
    story.lines["primary"].oldest = last
    story.told("primary")
    story.wait(SECOND)
    assert [(move.now - last, move.reason) for move in story.moves] == [
        (60 * MS, "doubted: silence"),
        (240 * MS, "tripped: silence"),
    ]


def test_7_nothing_in_flight_is_no_silence() -> None:
    story = Story()
    story.flow("primary", SECOND)
    story.wait(3600 * SECOND)
    assert story.moves == []


def test_7_our_own_sleep_is_not_the_path_s_silence() -> None:
    """Nobody looked for two seconds: that is doubt until the socket is read, not a verdict."""
    story = Story()
    story.lines["primary"].oldest = story.now
    story.told("primary")
    story.now += 2 * SECOND
    story.breaker.handle_timeout(story.now)
    assert story.state is SUSPECT
    story.lines["primary"].oldest = None
    story.wait(20 * MS)
    story.told("primary", acked=10)
    story.wait(3 * SECOND)
    story.moves += story.breaker.events()
    assert story.path() == ["suspect", "closed"]


def test_8_the_wall_clock_cannot_matter() -> None:
    """The machines import no clock; a start anywhere on the monotonic one gives the same moves."""
    for module in (relay.link.breaker, relay.link.path, relay.link.loss):
        tree = ast.parse(Path(module.__file__ or "").read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        outside = {name for name in names if not name.startswith("relay.")}
        assert outside <= {"__future__", "collections", "collections.abc", "dataclasses", "enum", "typing"}
    moves = []
    for start in (0, 3600 * SECOND, 10**9 * SECOND):
        story = Story(now=start)
        story.trip()
        story.wait(60 * SECOND)
        moves.append([(move.now - start, move.state, move.reason) for move in story.moves])
    assert moves[0] == moves[1] == moves[2]


def test_9_half_open_grants_a_bounded_number_of_probes() -> None:
    """Twenty callers at once, each with more packets than there are permits."""
    story = Story(BreakerSettings(probe_share=1.0, probes_in_flight=20))
    assert not story.breaker.take_probe()
    story.half_open()
    assert story.state is HALF_OPEN
    assert story.breaker.probe_share == 1.0
    assert sum(story.breaker.take_probe() for _ in range(20 * 50)) == 20
    story.told("primary", acked=4, lost=1)
    assert sum(story.breaker.take_probe() for _ in range(20 * 50)) == 5
    story.breaker.return_probe()
    assert [story.breaker.take_probe() for _ in range(2)] == [True, False]


def test_9_the_share_is_dealt_out_evenly() -> None:
    story = Story(BreakerSettings(probe_share=0.1, probes_in_flight=1000))
    story.half_open()
    granted = [number for number in range(1000) if story.breaker.take_probe()]
    assert granted == list(range(9, 1000, 10))


def test_10_enough_good_ones_close() -> None:
    story = Story()
    story.half_open()
    story.flow("primary", SECOND, acked=4, every=50 * MS)
    assert story.state is HALF_OPEN
    story.flow("primary", SECOND, acked=4, every=50 * MS)
    assert story.path() == ["suspect", "open", "half-open", "closed"]
    assert story.breaker.carrying == ("primary",)


@pytest.mark.parametrize("kind", ["rtt", "loss", "silence", "closed"])
def test_10_one_bad_one_reopens(kind: str) -> None:
    story = Story()
    story.half_open()
    story.flow("primary", 500 * MS, acked=4, every=50 * MS)
    story.lines["primary"].oldest = story.now if kind == "silence" else None
    story.wait(20 * MS)
    match kind:
        case "rtt":
            story.told("primary", rtt=(20, 201, 20), acked=3)
        case "loss":
            story.told("primary", acked=50, lost=10)
        case "closed":
            story.told("primary", closed=True)
        case _:
            story.told("primary")
            story.wait(SECOND)
    assert story.moves[-1].reason == f"probe_failed: {kind}"
    assert story.moves[-1].hold_us == 10 * SECOND


def test_11_half_open_without_a_decision_times_out() -> None:
    story = Story()
    story.half_open()
    tried = story.now
    story.wait(29 * SECOND)
    assert story.state is HALF_OPEN
    story.wait(1 * SECOND)
    assert (story.moves[-1].reason, story.moves[-1].now - tried) == ("probe_failed: timeout", 30 * SECOND)
    assert story.moves[-1].hold_us == 5 * SECOND  # nothing bad was seen


def test_12_flapping_lengthens_the_hold_up_to_a_cap_and_quiet_shortens_it() -> None:
    story = Story()
    holds = []
    for _ in range(8):
        story.trip()
        holds.append(story.breaker.hold_us // SECOND)
        story.wait(story.breaker.hold_us)
        story.flow("primary", 2 * SECOND, acked=10)
        story.wait(61 * SECOND)
        story.told("primary", rtt=(20,), acked=1)
        assert story.state is CLOSED
    assert holds == [5, 10, 20, 40, 80, 120, 120, 120]
    story.wait(2 * 300 * SECOND)
    story.told("primary", rtt=(20,), acked=1)
    story.trip()
    assert story.breaker.hold_us == 120 * SECOND  # 5 s doubled seven times, halved twice, is still above the cap
    story.breaker.reset(story.now)
    assert story.breaker.hold_us == 5 * SECOND


def test_13_backup_also_bad_both_carry_until_one_is_better() -> None:
    story = Story()
    story.told("backup", rtt=(310, 310, 310), acked=3)
    story.told("primary", rtt=(300, 300, 300), acked=3)
    assert story.state is SUSPECT  # alike
    assert story.breaker.carrying == ("primary", "backup")
    story.wait(20 * MS)
    story.told("primary", rtt=(600, 600, 600), acked=3)
    assert story.state is OPEN  # the backup is bad, and much better
    story.wait(20 * MS)
    story.told("primary", rtt=(320, 320, 320), acked=3)
    assert story.state is SUSPECT  # alike again
    assert story.moves[-1].reason == "backup_failed: rtt"
    story.told("backup", closed=True)
    story.wait(20 * MS)
    story.told("primary", rtt=(900, 900, 900), acked=3)
    assert "primary" in story.breaker.carrying  # slow is better than gone


def test_13_without_a_backup_nothing_moves_to_it() -> None:
    breaker = Breaker(BreakerSettings())
    breaker.report("primary", PathReport(1 * SECOND, (300 * MS,) * 3, 3, 3, 0, None, 27 * MS))
    assert breaker.carrying == ("primary", "backup")
    breaker.force_open(2 * SECOND)
    breaker.handle_timeout(2 * SECOND)
    assert "primary" in breaker.carrying


def test_14_late_results_of_the_old_path_are_ignored() -> None:
    story = Story()
    old = story.lines["primary"]
    old.sent += 1000  # in flight when the connection ended
    story.told("primary", closed=True)
    assert story.state is OPEN
    late = old.report(story.now + 8 * SECOND, rtt=(900, 900, 900), lost=1000)
    story.lines["primary"] = type(old)()
    story.lines["primary"].generation = 1
    story.wait(1 * SECOND)
    story.told("primary", rtt=(20,), acked=1)
    story.wait(5 * SECOND)
    assert story.state is HALF_OPEN
    story.flow("primary", 500 * MS, acked=4)
    story.breaker.report("primary", late, 0)
    story.flow("primary", 500 * MS, acked=4)
    assert story.state is CLOSED
    assert story.breaker.ignored == {"primary": 1, "backup": 0}


def test_14_what_was_in_flight_before_the_trial_does_not_count_in_it() -> None:
    """Healed: the first answered probe makes QUIC declare lost what vanished in the hole, and old answers are slow."""
    story = Story()
    line = story.lines["primary"]
    line.sent, line.oldest = line.sent + 500, story.now
    story.told("primary")
    story.wait(240 * MS + 5 * SECOND)
    assert story.state is HALF_OPEN
    story.wait(100 * MS)
    line.acked, line.lost, line.sent, line.oldest = line.acked + 30, line.lost + 480, line.sent + 10, None
    story.told("primary", rtt=(5200, 20))
    story.flow("primary", 3 * SECOND, acked=1)
    assert story.path() == ["suspect", "open", "half-open", "closed"]


def test_14_reports_out_of_order_are_ignored() -> None:
    story = Story()
    late = story.lines["primary"].report(story.now, rtt=(900, 900, 900))
    story.flow("primary", SECOND)
    story.breaker.report("primary", late)
    assert story.breaker.events() == []
    assert story.breaker.ignored["primary"] == 1


def test_15_force_open_holds_until_reset() -> None:
    story = Story()
    story.breaker.force_open(story.now)
    story.breaker.force_open(story.now)
    story.flow("primary", 10 * SECOND)
    story.wait(3600 * SECOND)
    story.moves += story.breaker.events()
    assert story.path() == ["open"]
    assert story.breaker.forced
    story.breaker.reset(story.now)
    story.breaker.reset(story.now)
    story.moves += story.breaker.events()
    assert [move.reason for move in story.moves] == ["forced", "reset"]
    assert story.breaker.carrying == ("primary",)


def test_15_forced_still_never_neither() -> None:
    story = Story()
    story.breaker.force_open(story.now)
    story.told("backup", closed=True)
    assert story.breaker.carrying == ("primary", "backup")
    assert not story.breaker.forced


def test_15_reset_forgets_what_was_held_against_the_primary() -> None:
    story = Story()
    story.trip()
    story.breaker.reset(story.now)
    story.wait(10 * SECOND)
    story.moves += story.breaker.events()
    assert story.path() == ["suspect", "open", "closed"]


def test_16_one_event_per_transition_with_figures() -> None:
    story = Story()
    story.half_open()
    story.flow("primary", 3 * SECOND, acked=10)
    assert [(m.previous.value, m.state.value, m.reason) for m in story.moves] == [
        ("closed", "suspect", "doubted: rtt"),
        ("suspect", "open", "tripped: rtt"),
        ("open", "half-open", "hold_over"),
        ("half-open", "closed", "probe_passed"),
    ]
    opened = story.moves[1]
    assert (opened.primary.rtt_us, opened.primary.reason, opened.backup.level) == (300 * MS, "rtt", 0)
    assert opened.hold_us == 5 * SECOND


def test_16_events_that_nobody_collects_are_bounded_and_counted() -> None:
    breaker = Breaker(BreakerSettings())
    for turn in range(300):
        breaker.force_open(turn)
        breaker.reset(turn)
    assert len(breaker.events()) == 256
    assert breaker.dropped_events == 600 - 256
    assert breaker.events() == []


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("rtt_limit_ms", 0, "link.breaker.rtt_limit_ms"),
        ("rtt_limit_ms", "200", "link.breaker.rtt_limit_ms"),
        ("loss_percent", 0, "link.breaker.loss_percent"),
        ("loss_percent", 100, "link.breaker.loss_percent"),
        ("loss_percent", float("nan"), "link.breaker.loss_percent"),
        ("probe_share", 1.5, "link.breaker.probe_share"),
        ("hold_s", 0, "link.breaker.hold_s"),
        ("switches_per_minute", 1, "link.breaker.switches_per_minute"),
        ("loss_packets", 999, "loss_packets"),
        ("spread_packets", 2001, "spread_packets"),
        ("spread_packets", 499, "spread_packets"),
        ("spread_burst", 0, "link.breaker.spread_burst"),
        ("silence_min_ms", 201, "silence_min_ms"),
        ("hold_s", 121.0, "hold_s"),
        ("rtt_limit", 200, "did you mean link.breaker.rtt_limit_ms?"),
    ],
)
def test_17_bad_configuration_is_refused_by_name(tmp_path: Path, key: str, value: object, named: str) -> None:
    path = tmp_path / "relay.toml"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    path.write_text(f"[link.breaker]\n{key} = {text}\n")
    with pytest.raises(SettingsError, match=named.replace("?", r"\?")):
        load_node_settings(path, {}, {"auth.keys": {"studio": "s" * 32}})

"""Both machines joined: whatever the paths do, each packet is handed on at most once, and with repair exactly once."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from drills.simulation.carrying_path import CarryingPath
from drills.simulation.model_path import MS, SECOND, Direction, black_hole
from relay.link.path import PathName
from relay.link.sender_events import FramesSkipped, KeyframeWanted, MediaMoved, ParityChanged
from relay.settings import BreakerSettings, LinkFlowSettings
from tests.link.joined import AUDIO, VIDEO, Link, good

PRIMARY: tuple[PathName, ...] = ("primary",)
BOTH: tuple[PathName, ...] = ("primary", "backup")
BACKUP: tuple[PathName, ...] = ("backup",)

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # seeds do not shrink to anything simpler

# delay and jitter in ms, share lost, seed of the dice
ways = st.tuples(
    st.integers(1, 60), st.integers(0, 30), st.sampled_from((0.0, 0.02, 0.1, 0.2)), st.integers(0, 1 << 16)
)
Way = tuple[int, int, float, int]
# a packet has enough time: what is left to chance is only what the paths do
PATIENT = LinkFlowSettings(
    history_ms=20_000, resend_age_ms=20_000, nack_deadline_ms=20_000, nack_tries=64, repair_bps=1_000_000_000
)


def way(given_: Way) -> Direction:
    delay, jitter, loss, seed = given_
    return good(delay, jitter, seed, loss)


def paths_of(forth: Way, back: Way, forth2: Way, back2: Way) -> dict[PathName, CarryingPath]:
    dice = random.Random(7)
    return {
        "primary": CarryingPath(way(forth), way(back), lambda: dice.random() < 0.05),
        "backup": CarryingPath(way(forth2), way(back2), lambda: dice.random() < 0.05),
    }


def finish(link: Link) -> None:
    """Publish no more, and let repair have the time that it may take."""
    link.publishing = False
    for _ in range(18):
        link.run(link.now + SECOND)
        if not link.lost():
            break
    assert link.lost() == 0
    assert link.duplicates() == 0


def quiet_paths(delay_ms: float = 5) -> dict[PathName, CarryingPath]:
    return {"primary": CarryingPath(good(delay_ms), good(delay_ms)), "backup": CarryingPath(good(8), good(8))}


@settings(max_examples=40, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(
    ways,
    ways,
    ways,
    ways,
    st.lists(st.tuples(st.integers(50, 1500), st.sampled_from((PRIMARY, BOTH, BACKUP))), max_size=6),
)
def test_lossy_paths_and_switches_lose_and_double_nothing(
    forth: Way,
    back: Way,
    forth2: Way,
    back2: Way,
    script: list[tuple[int, tuple[PathName, ...]]],
) -> None:
    link = Link(paths_of(forth, back, forth2, back2), seed=len(script), settings=PATIENT)
    link.add_flow(AUDIO, 1)
    for name in BOTH:
        link.sender.note_rtt(name, 20 * MS)
        link.receiver.note_rtt(name, 100 * MS)
    for at, carrying in sorted(script, key=lambda step: step[0]):
        link.run(at * MS)
        link.sender.steer(carrying, link.now)
    link.run(1600 * MS)
    finish(link)
    for number in (VIDEO, AUDIO):
        assert link.receiver.counts(number).packets == link.sender.counts(number).packets


@settings(max_examples=25, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(ways, ways, st.integers(200, 900), st.booleans(), st.integers(0, 99))
def test_a_black_hole_under_the_real_breaker_loses_nothing(
    forth: Way, back: Way, at: int, one_way: bool, seed: int
) -> None:
    paths = {"primary": CarryingPath(good(10), good(10)), "backup": CarryingPath(way(forth), way(back))}
    link = Link(paths, seed=seed, settings=PATIENT, breaker=BreakerSettings())
    link.run(at * MS)
    paths["primary"].forth.lost = black_hole
    if not one_way:
        paths["primary"].back.lost = black_hole
    link.run(2 * SECOND)
    finish(link)
    assert any(move.state.value == "open" for move in link.moves)


def test_a_black_hole_is_bridged_from_history() -> None:
    link = Link(quiet_paths(), breaker=BreakerSettings(), packets_per_frame=16)
    link.run(SECOND)
    link.paths["primary"].forth.lost = black_hole
    link.run(3 * SECOND)
    moved = [event for event in link.events if isinstance(event, MediaMoved)]
    assert moved[0].after == BOTH
    assert moved[0].resent > 0
    assert moved[0].sync_id in link.sync_ids.values()
    assert link.moves[0].now - SECOND < 600 * MS
    link.publishing = False
    link.run(4 * SECOND)
    assert (link.lost(), link.duplicates()) == (0, 0)
    assert link.longest_gap() < 400 * MS


def test_both_paths_down_lose_only_what_is_too_old() -> None:
    link = Link(quiet_paths(), breaker=BreakerSettings())
    link.run(500 * MS)
    for path in link.paths.values():
        path.forth.lost = black_hole
    link.run(3 * SECOND)
    for path in link.paths.values():
        path.forth.lost = lambda: False
    link.run(6 * SECOND)
    link.publishing = False
    link.run(9 * SECOND)
    counts = link.receiver.counts(VIDEO)
    assert link.duplicates() == 0
    # the machines' settings give a packet resend_age_ms; what fell out of it is all that may be missing
    outage_packets = (2500 - link.settings.resend_age_ms) // 33 * 4
    assert link.lost() <= outage_packets + 4 * 8
    assert counts.lost + counts.absent >= link.lost() - 8


@pytest.mark.parametrize("loss", [0.02, 0.12])
def test_loss_brings_parity_which_repairs_without_asking(loss: float) -> None:
    link = Link(
        {"primary": CarryingPath(good(40, seed=1, loss=loss), good(40)), "backup": CarryingPath(good(), good())},
        packets_per_frame=12,
    )
    link.run(4 * SECOND)
    link.publishing = False
    link.run(6 * SECOND)
    assert any(isinstance(event, ParityChanged) and event.group for event in link.events)
    counts = link.receiver.counts(VIDEO)
    assert counts.rebuilt > 0
    assert (link.lost(), link.duplicates()) == (0, 0)


def test_no_loss_no_parity_no_repair() -> None:
    link = Link(quiet_paths())
    link.run(2 * SECOND)
    counts = link.sender.counts(VIDEO)
    assert (counts.parity, counts.repeated, counts.resent) == (0, 0, 0)
    assert counts.copies == pytest.approx(counts.packets * link.settings.warm_share, abs=2)
    assert link.receiver.counts(VIDEO).nacks == 0


def test_a_slow_path_skips_to_the_next_keyframe() -> None:
    link = Link(quiet_paths())
    link.run(200 * MS)
    link.room["primary"] = 0
    link.run(500 * MS)
    skipped = [event for event in link.events if isinstance(event, FramesSkipped)]
    assert skipped
    assert KeyframeWanted(VIDEO) in link.events
    link.room["primary"] = 1000
    before = link.sender.counts(VIDEO).skipped
    link.run(600 * MS)
    assert link.sender.counts(VIDEO).skipped > before  # deltas are of no use
    link.run(2400 * MS)  # frame 60 is the next key frame
    stopped = link.sender.counts(VIDEO).skipped
    link.run(3 * SECOND)
    assert link.sender.counts(VIDEO).skipped == stopped
    assert link.duplicates() == 0
    assert link.receiver.counts(VIDEO).absent == link.lost() > 0


def test_a_process_that_was_late_skips_nothing() -> None:
    """Its packets come all at once, more than the path takes in a turn: they wait for the next turns."""
    link = Link(quiet_paths())
    link.run(200 * MS)
    link.now += 900 * MS
    for _ in range(27):
        for publisher in link.publishers:
            for packet in publisher.frame():
                link.publish(publisher, packet)
    link.room["primary"] = 12  # a turn's; 108 packets wait
    link.run(link.now + 300 * MS)
    link.publishing = False
    link.run(link.now + SECOND)
    assert not [event for event in link.events if isinstance(event, FramesSkipped)]
    assert (link.lost(), link.duplicates()) == (0, 0)


def test_what_a_dying_path_skipped_goes_again_on_the_other() -> None:
    link = Link(quiet_paths())
    link.run(200 * MS)
    link.room["primary"] = 0
    link.run(600 * MS)
    assert link.sender.counts(VIDEO).skipped
    link.sender.steer(BACKUP, link.now)
    link.run(SECOND)
    link.publishing = False
    link.run(2 * SECOND)
    assert (link.lost(), link.duplicates()) == (0, 0)


def test_repair_stays_within_its_budget() -> None:
    tight = LinkFlowSettings(repair_bps=8000, parity="off")
    link = Link(
        {"primary": CarryingPath(good(10, seed=3, loss=0.3), good(10)), "backup": CarryingPath(good(), good())},
        settings=tight,
        packets_per_frame=10,
    )
    link.run(3 * SECOND)
    counts = link.sender.counts(VIDEO)
    assert counts.over_budget > 0
    assert counts.repeated < 60
    assert link.duplicates() == 0


def test_a_lost_connection_that_comes_back_gets_what_was_open() -> None:
    link = Link(quiet_paths())
    link.run(500 * MS)
    link.sender.path_closed("primary")
    link.run(800 * MS)
    link.sender.path_opened("primary", link.now)
    link.run(1200 * MS)
    link.publishing = False
    link.run(3 * SECOND)
    assert (link.lost(), link.duplicates()) == (0, 0)

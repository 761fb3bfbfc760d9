"""The sender while both paths carry: each may have lost what the other brings, and either may bring nothing."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from drills.simulation.carrying_path import CarryingPath
from drills.simulation.model_path import MS, SECOND, black_hole
from relay.link.parity_control import MIN_PACKETS, WINDOW_US
from relay.link.path import PathName
from relay.plane.contract import Kind
from tests.link.joined import AUDIO, Link, good
from tests.link.test_sender import FLOW, Sender

BOTH: tuple[PathName, ...] = ("primary", "backup")


def test_what_waits_on_a_path_that_takes_nothing_goes_again_on_the_other() -> None:
    sender = Sender(warm_share=0)
    sender.machine.steer(BOTH, 0)
    sender.push(1)  # the primary is never asked for what it has
    ((_, token),) = sender.out("backup")
    sender.machine.lost("backup", [token], 20 * MS)
    assert sender.seqs("backup") == [1]
    sender.machine.nack(FLOW, [1], 40 * MS)
    assert sender.seqs("backup") == [1]
    sender.now = 2 * SECOND
    assert sender.machine.transmit("primary", 0, sender.now) == []
    assert sender.machine.outlets["primary"].again == deque()


def test_in_doubt_parity_goes_on_both_paths_for_what_neither_brought() -> None:
    sender = Sender(warm_share=0, parity_min_group=4)
    sender.machine.steer(BOTH, 0)
    seq = 0
    for turn in range(3):
        tokens = []
        for _ in range(MIN_PACKETS):
            seq += 1
            sender.push(seq)
            tokens.append(sender.out("backup")[0][1])
            sender.out("primary")
        both, neither = (tokens[::5], []) if turn == 0 else ([], tokens[::5])
        sender.machine.acked("primary", [token for token in tokens if token not in neither])
        sender.machine.lost("backup", both + neither, sender.now)
        sender.machine.handle_timeout(sender.now + turn * WINDOW_US)
        assert (sender.machine.totals().parity > 0) is (turn == 2), "only what no path brought counts"


def eighth(seed: int) -> Callable[[], bool]:
    dice = random.Random(seed)
    return lambda: dice.random() < 0.12


@pytest.mark.parametrize("delay_ms", [1, 5, 40])
@pytest.mark.parametrize("taken", [0, 1000], ids=["window full", "window open"])
def test_a_dead_primary_and_an_eighth_lost_on_the_backup_lose_nothing(taken: int, delay_ms: int) -> None:
    """`taken`: what the dead path's transport still takes; without acknowledgements its window fills."""
    link = Link({name: CarryingPath(good(delay_ms), good(delay_ms)) for name in BOTH})
    link.add_flow(AUDIO, 1, Kind.AUDIO)
    for name in BOTH:
        link.sender.note_rtt(name, 2 * delay_ms * MS)
        link.receiver.note_rtt(name, 2 * delay_ms * MS)
    link.run(SECOND)
    dead, lossy = link.paths["primary"], link.paths["backup"]
    dead.forth.lost = dead.back.lost = black_hole
    lossy.forth.lost, lossy.back.lost = eighth(1), eighth(2)
    link.sender.steer(BOTH, link.now)
    link.run(link.now + 60 * MS)
    link.room["primary"] = taken
    link.run(8 * SECOND)
    link.publishing = False
    link.run(11 * SECOND)
    totals = link.receiver.totals()
    assert (link.lost(), link.duplicates(), totals.lost) == (0, 0, 0)
    assert totals.rebuilt > totals.repaired, "most comes without being asked for"
    assert link.longest_gap() < 150 * MS + 2 * delay_ms * MS

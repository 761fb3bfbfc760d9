"""The checker of lease histories: a history as the store writes it passes, planted faults are found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drills.leases import Tenure, TwoOwners, check
from relay.cluster.leases import LeaseEntry


def entry(kind: str, node: str, epoch: int, at: int, until: int = 0, publication: str = "cam") -> LeaseEntry:
    return LeaseEntry(kind, publication, node, epoch, at, until or at + 2000)


STORY = [
    entry("acquired:free", "a", 1, 100),
    entry("acquired:free", "b", 2, 150, publication="mic"),
    entry("renewed", "a", 1, 700),
    entry("acquired:handed-over", "b", 3, 900),
    entry("renewed", "b", 3, 1500),
    entry("acquired:own", "b", 4, 1600),
    entry("acquired:expired", "c", 5, 3700),
    entry("released", "c", 5, 4000),
    entry("acquired:free", "a", 6, 4000),
]


def test_a_true_history_passes() -> None:
    assert [(each.node, each.begin, each.end) for each in check(STORY) if each.publication == "cam"] == [
        ("a", 100, 900),
        ("b", 900, 1600),
        ("b", 1600, 3600),
        ("c", 3700, 4000),
        ("a", 4000, 6000),
    ]
    assert check([]) == []
    assert check(STORY[:1]) == [Tenure("cam", "a", 1, 100, 2100)]


@pytest.mark.parametrize(
    ("at", "planted", "reason"),
    [
        (6, entry("acquired:expired", "c", 5, 3599), "while"),  # a moment before the lease had ended
        (6, entry("acquired:free", "c", 5, 2000), "while"),
        (3, entry("acquired:handed-over", "b", 1, 900), "epoch 1 after 1"),
        (4, entry("renewed", "a", 1, 1500), "somebody else"),  # the one who was cut off comes back
        (7, entry("released", "b", 4, 4000), "somebody else"),
        (0, entry("renewed", "a", 1, 100), "somebody else"),
    ],
)
def test_a_planted_fault_is_found(at: int, planted: LeaseEntry, reason: str) -> None:
    story = [*STORY]
    story[at] = replace(planted)
    with pytest.raises(TwoOwners, match=reason):
        check(story)

"""Which rule holds between two addresses."""

from __future__ import annotations

import pytest

from drills.fabric.impairment import BLACK_HOLE, CLEAR, Impairment
from drills.fabric.rules import ANY, FabricError, Rules

SLOW, LOSSY = Impairment(delay_us=1000), Impairment(loss=0.5)


@pytest.fixture
def rules() -> Rules:
    made = Rules()
    made.add_host("a", ["10.1.1.1", "10.1.2.1"])
    made.add_host("b", ["10.1.1.2", "10.1.2.2"])
    made.add_host("c", ["10.1.1.3"])
    return made


def test_the_last_that_fits_wins(rules: Rules) -> None:
    rules.impair(ANY, ANY, SLOW)
    rules.impair("a", "b", LOSSY)
    rules.impair("a/2", "b/2", BLACK_HOLE)
    assert rules.between("10.1.1.1", "10.1.1.2") == LOSSY
    assert rules.between("10.1.1.1", "10.1.2.2") == LOSSY
    assert rules.between("10.1.2.1", "10.1.2.2") == BLACK_HOLE
    assert rules.between("10.1.2.2", "10.1.2.1") == SLOW
    rules.impair(ANY, ANY, CLEAR)
    assert rules.between("10.1.2.1", "10.1.2.2") == CLEAR
    assert len(rules.rules) == 3


def test_both_ways_and_healing(rules: Rules) -> None:
    rules.impair("a", "b", LOSSY, both=True)
    rules.impair("c", ANY, BLACK_HOLE, both=True)
    assert rules.between("10.1.1.2", "10.1.2.1") == LOSSY
    assert rules.between("10.1.1.3", "10.1.1.1") == rules.between("10.1.1.1", "10.1.1.3") == BLACK_HOLE
    assert rules.heal("b", "a") == 2
    assert rules.heal("a", "b") == 0
    assert rules.between("10.1.1.1", "10.1.1.3") == BLACK_HOLE
    assert rules.heal() == 2
    assert rules.between("10.1.1.1", "10.1.1.3") == CLEAR


def test_rules_for_any_hold_for_who_comes_later_and_go_with_their_host(rules: Rules) -> None:
    rules.impair("c", ANY, BLACK_HOLE)
    rules.impair("a", "b", LOSSY)
    rules.add_host("d", ["10.1.1.4"])
    assert rules.between("10.1.1.3", "10.1.1.4") == BLACK_HOLE
    rules.remove_host("b")
    assert [rule.src for rule in rules.rules] == ["c"]
    assert rules.name_of("10.1.1.2") is None
    assert rules.as_json()["rules"] == [{"src": "c", "dst": "*", "impairment": {"black_hole": True}}]


@pytest.mark.parametrize("endpoint", ["", "x", "a/0", "a/3", "a/x", "a/", "a/²", "10.1.1.1", "A"])
def test_unknown_endpoints_are_refused(rules: Rules, endpoint: str) -> None:
    with pytest.raises(FabricError):
        rules.impair(endpoint, "b", LOSSY)
    with pytest.raises(FabricError):
        rules.heal("b", endpoint)
    assert rules.rules == []


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("a", ["10.9.9.9"]),
        ("d", ["10.1.1.1"]),
        ("d", []),
        ("*", ["10.9.9.9"]),
        ("a/1", ["10.9.9.9"]),
        ("9", ["1.1.1.1"]),
    ],
)
def test_bad_hosts_are_refused(rules: Rules, name: str, addresses: list[str]) -> None:
    with pytest.raises(FabricError):
        rules.add_host(name, addresses)
    assert sorted(rules.hosts) == ["a", "b", "c"]

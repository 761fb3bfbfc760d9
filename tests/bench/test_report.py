"""What a bench leaves behind: figures, tables and files of rule 15."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import report
from bench.burst import flush_sizes
from bench.latency import MAGIC, delays
from bench.native import spread
from bench.native_peers import PROFILE, Publisher, Rooms, key, number_of
from bench.report import figure, percentile, publish
from bench.stamps import Arrival
from relay.plane.reference.srtp import Srtp

FIELDS = ["figure", "value", "unit", "goal", "holds", "beside", "beside_value", "ratio", "runs", "command", "machine"]


@pytest.mark.parametrize(
    ("values", "goal", "holds"),
    [
        ([5.0, 1.0, 9.0], "<= 5", True),
        ([5.1], "<= 5", False),
        ([30_000.0], ">= 30000", True),
        ([29_999.0], ">= 30000", False),
        ([1.0], "", None),
    ],
)
def test_the_median_meets_its_goal_or_not(values: list[float], goal: str, holds: bool | None) -> None:
    assert figure("f", values, "ms", goal=goal).holds is holds


def test_the_ratio_is_to_the_peers_median() -> None:
    made = figure("f", [10, 30, 20], "ms", beside="peer", beside_values=[1, 4, 100])
    assert (made.value, made.beside_value, made.ratio, made.runs) == (20, 4, 5.0, 3)


def test_a_peer_that_measured_nothing_gives_no_ratio() -> None:
    assert figure("f", [1], "ms", beside="peer", beside_values=[0]).ratio is None


def test_a_goal_of_another_kind_is_an_error() -> None:
    with pytest.raises((KeyError, ValueError)):
        figure("f", [1], "ms", goal="about 5")


def test_published_json_has_the_fields_of_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    path = publish("some", [figure("a [b] c", [1.25], "ms", goal="<= 2"), figure("d", [3], "s")])
    rows = json.loads(path.read_text())
    assert path.name == "some.json"
    assert [list(row) for row in rows] == [FIELDS, FIELDS]
    assert rows[0]["figure"] == "a [b] c"
    assert (rows[0]["value"], rows[0]["holds"], rows[1]["holds"], rows[1]["beside_value"]) == (1.25, True, None, None)


def test_the_table_tells_figure_goal_and_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    publish("some", [figure("joins [p99]", [1.5], "ms", goal="<= 2", beside="stock", beside_values=[3])])
    told = capsys.readouterr().out
    for word in ("joins [p99]", "1.5", "<= 2", "yes", "stock", "0.5", str(tmp_path)):
        assert word in told.replace("\n", "")


def test_percentiles_are_nearest_ranks() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert percentile([7], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_a_flush_takes_what_came_within_its_window() -> None:
    packets = [Arrival(at, b"") for at in (0, 10, 999, 1000, 5000, 5999)]
    assert flush_sizes(packets, 1000) == [3, 1, 2]


def test_only_stamped_media_counts_as_delay() -> None:
    def packet(kind: int, tail: bytes) -> bytes:
        return bytes((0x80, kind)) + bytes(10) + tail

    stamped = MAGIC + (1_000_000).to_bytes(8, "big")
    arrivals = [
        Arrival(3_500_000, packet(96, stamped)),
        Arrival(9_000_000, packet(96, bytes(40))),  # a probe's padding
        Arrival(9_000_000, packet(200, stamped)),  # a sender report
        Arrival(9_000_000, packet(97, b"sealed wrongly")),
    ]
    assert delays(arrivals, lambda datagram: None if b"wrongly" in datagram else datagram) == [2.5]


def test_the_spread_is_between_medians() -> None:
    assert spread({10: [1.0, 9.0, 1.0], 100: [1.2]}) == pytest.approx(20)


@given(st.integers(1, 40), st.integers(1, 60), st.data())
def test_viewers_are_numbered_after_publishers_and_find_their_room(
    rooms: int, viewers: int, data: st.DataObject
) -> None:
    bed = Rooms(rooms, viewers)
    room, number = data.draw(st.integers(0, rooms - 1)), data.draw(st.integers(0, viewers - 1))
    assert rooms <= bed.viewer(room, number) < bed.sessions
    assert bed.room(bed.viewer(room, number)) == room


def test_only_whole_authentic_packets_have_a_number() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        publisher = Publisher(3, ours)
        [sealed] = publisher.seal(1, 77)
        opened = Srtp(PROFILE, key(3, incoming=False), key(3, incoming=True)).unprotect_rtp
        plain = opened(sealed)
        assert plain is not None
        assert number_of(plain) == 77
        assert number_of(plain[:200] + b"x" + plain[201:]) is None
        assert number_of(opened(sealed)) is None, "it came already"
        assert number_of(opened(publisher.seal(1, 78)[0][:-1])) is None

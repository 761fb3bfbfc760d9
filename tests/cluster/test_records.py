"""Records of nodes: whatever stands in the store, only what can be true is believed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cluster.placement import load_of
from relay.cluster.records import MOST_BYTES, Unbelievable, read_record, write_record
from relay.ports import NodeRecord

GOOD = NodeRecord("n1", "https://a:7443", "eu", "1", "PEM", 3, 4, False, 0.75, True, "https://a", ("a:1", "[::1]:2"))


def test_a_record_is_read_as_it_was_written() -> None:
    assert read_record(write_record(GOOD), "n1") == GOOD
    assert write_record(GOOD) == write_record(replace(GOOD))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"load": float("nan")}, "load is nan"),
        ({"load": float("inf")}, "load is inf"),
        ({"load": -0.01}, "load is -0.01"),
        ({"load": 1.01}, "load is 1.01"),
        ({"load": True}, "load"),
        ({"load": "0.5"}, "load"),
        ({"sessions": -1}, "-1 of 4 sessions"),
        ({"sessions": 10**30}, "sessions"),
        ({"max_sessions": 0}, "3 of 0 sessions"),
        ({"max_sessions": 10**9}, "sessions"),
        ({"id": ""}, "names itself ''"),
        ({"id": "n2"}, "names itself 'n2'"),
        ({"link": ["a"]}, "link addresses"),
        ({"link": ["a:0"]}, "link addresses"),
        ({"link": ["a:99999"]}, "link addresses"),
        ({"link": ["u@a:1"]}, "link addresses"),
        ({"link": ["a:1/x"]}, "link addresses"),
        ({"link": ["a:1"] * 9}, "link addresses"),
        ({"public_url": "javascript:x"}, "public_url"),
        ({"public_url": "https://a\r\nSet-Cookie: x"}, "public_url"),
        ({"public_url": "https://"}, "public_url"),
        ({"certificate": "x" * MOST_BYTES}, "more than"),
    ],
)
def test_what_cannot_be_is_not_believed(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Unbelievable, match=reason):
        read_record(json.dumps(asdict(GOOD) | changes), "n1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(asdict(GOOD))), JSON) | st.text())
def test_any_record_is_believable_or_refused(found: dict[str, object] | str) -> None:
    body = found if isinstance(found, str) else json.dumps(asdict(GOOD) | found)
    try:
        record = read_record(body)
    except Unbelievable:
        return
    assert 0 <= record.load <= 1
    assert record.sessions >= 0
    assert record.id


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e12))))
def test_a_load_is_always_believable(shares: list[tuple[float, float]]) -> None:
    load = load_of(shares)
    assert read_record(write_record(replace(GOOD, load=load))).load == load
    assert (load == 1) == any(limit > 0 and used / limit >= 1 for used, limit in shares)

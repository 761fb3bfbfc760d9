"""A PK's record by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import BadRequest, Conflict, CorruptDocument, Forbidden, RequestError
from relay.ids import sync_id_at
from relay.stage import pk as pks
from relay.stage import pk_room
from relay.stage.document import RoomState
from relay.stage.pk import Pk
from relay.stage.publications import session_away
from tests.stage.rooms import GUEST, new_room, publish

CLAIMS = {"red": 11, "blue": 12}


def invited(**more: Any) -> Pk:
    return pks.invite("p", "red", "blue", "rita", 100.0, **more)


def at(seconds: float) -> int:
    return sync_id_at(round(seconds * 1e6))


def test_both_rooms_learn_one_moment() -> None:
    pk = pks.start(invited(countdown_s=3, duration_s=60), "bea", 110.0, CLAIMS)
    assert (pk.starts_at, pk.ends_at) == (at(113), at(173))
    assert [side.claim for side in pk.sides] == [11, 12]
    assert pk.moves[-1].data["at"] == str(at(113))
    assert pks.due_at(pk) == pytest.approx(173)
    with pytest.raises(Conflict) as caught:
        pks.score(pk, "red", 1, "rita", 112.9)
    assert caught.value.code == "pk-not-running"
    pk = pks.score(pk, "red", 5, "rita", 113.0, at=at(112.5))
    assert pk.moves[-1].data == {
        "pk": "p", "by": "rita", "room": "red", "points": 5, "scores": {"red": 5, "blue": 0}, "at": str(at(112.5)),
    }  # fmt: skip
    assert pks.settle(pk, 172.9) is pk
    over = pks.settle(pk, 173.0)
    assert (over.state, over.reason, over.moves[-1].data["winner"]) == ("ended", "time", "red")
    assert pks.end(over, "ended") is over


def test_what_is_refused() -> None:
    with pytest.raises(Conflict):
        pks.invite("p", "red", "red", "rita", 0.0)
    for wrong in ({"duration_s": 9}, {"duration_s": 4000}, {"countdown_s": 1.9}, {"countdown_s": 31}):
        with pytest.raises(BadRequest):
            invited(**wrong)
    with pytest.raises(Forbidden):
        pks.check_answer(invited(), "red", 101.0)
    with pytest.raises(Conflict):
        pks.start(invited(), "bea", 160.0, CLAIMS)
    with pytest.raises(Conflict):
        pks.decline(pks.end(invited(), "expired"), "blue", "bea", 101.0)
    running = pks.start(invited(), "bea", 110.0, CLAIMS)
    for points in (0, 1_000_001, -1_000_001):
        with pytest.raises(BadRequest):
            pks.score(running, "red", points, "rita", 120.0)


def test_a_record_stays_small() -> None:
    pk = pks.start(invited(), "bea", 110.0, CLAIMS)
    for _ in range(100):
        pk = pks.score(pk, "blue", 1, "bea", 120.0)
    assert len(pk.moves) == pks.KEPT_MOVES
    assert pk.epoch == 102
    state = new_room()
    state = RoomState.from_json({**state.to_json(), "id": "red"})
    state, _ = pk_room.introduce(state, invited())
    state, events = pk_room.hear(state, pk)
    assert len(events) == pks.KEPT_MOVES
    assert state.pk.known["p"].moves == ()
    assert pk_room.hear(state, pk) == (state, [])
    assert pk_room.hear(state, invited()) == (state, []), "it never goes back"
    assert RoomState.from_json(state.to_json()) == state


def test_who_is_away_and_since_when() -> None:
    state = new_room()
    assert pk_room.away_since(state) == 0.0
    state, _ = publish(state, GUEST, 5.0)
    assert pk_room.away_since(state) is None
    state, _ = session_away(state, f"s-{GUEST.identity}", 9.0)
    assert pk_room.away_since(state) == 9.0


def test_rooms_of_before_are_read() -> None:
    document = new_room().to_json()
    del document["pk"]
    assert RoomState.from_json(document).pk.known == {}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(invited().to_json())), _json)
def test_a_spoilt_record_says_so(name: str, value: Any) -> None:
    document = invited().to_json() | {name: value}
    try:
        pk = Pk.from_json(document)
    except CorruptDocument:
        return
    assert Pk.from_json(pk.to_json()) == pk


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0.0, 30.0)), max_size=30))
def test_epochs_grow_and_an_end_is_an_end(moves: list[tuple[int, float]]) -> None:
    pk, now = invited(duration_s=20), 100.0
    for kind, passed in moves:
        now += passed
        before = pk
        try:
            match kind:
                case 0:
                    pk = pks.start(pk, "bea", now, CLAIMS)
                case 1:
                    pk = pks.score(pk, "blue", 2, "bea", now)
                case 2:
                    pk = pks.decline(pk, "red", "rita", now)
                case 3:
                    pk = pks.end(pk, "ended")
                case _:
                    pk = pks.settle(pk, now)
        except RequestError:
            pass
        assert pk is before or (pk.epoch == before.epoch + 1 == pk.moves[-1].epoch)
        assert before.state != "ended" or pk is before
        assert before.starts_at in (0, pk.starts_at)

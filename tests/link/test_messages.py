"""The metadata channel's messages: what is written is read, and what is not ours is refused or skipped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.link import messages as m

LIMIT = 65_536
PUBLICATION = m.Publication(
    id="p1",
    epoch=3,
    room="r",
    kind="video",
    codecs=(m.Codec(number=96, codec="vp8", clock_hz=90_000),),
    layers=(m.Layer(rid="q", anchor=(1, 2)), m.Layer(rid="f", active=False)),
    waits=(m.SoundWait(participant="ann", ms=120),),
)
ALL: list[m.Message] = [
    m.Hello(node="a", link="x" * 16, capabilities=("parity",)),
    m.Bind(link="x" * 16, path="backup", generation=2),
    m.Bound(),
    m.Catalog(version=2, base=1, publications=(PUBLICATION,), removed=("p0",)),
    m.Subscribe(request=1, publication="p1", epoch=3, layers=(0, 1)),
    m.Subscribed(request=1, publication="p1", epoch=3, flows=(m.FlowOf(layer=0, flow=4),)),
    m.Refused(request=1, code="FENCED", publication="p1", epoch=2, detail="epoch 3 holds"),
    m.Demand(publication="p1", layers=(1,)),
    m.KeyframeRequest(publication="p1", layer=0),
    m.WatchRoom(room="r", after=(1 << 64) - 1),
    m.UnwatchRoom(room="r"),
    m.RoomEvents(room="r", events=(m.Event(sync_id=5, type="score", data={"a": [1, {"b": None}]}),)),
    m.LinkState(
        code="LINK_UNSTABLE", state="open", previous="suspect", reason="tripped", sync_id=9, carrying=("backup",)
    ),
    m.Ping(id=1, at=2),
    m.Pong(id=1, at=2, sync_id=3),
    m.Goodbye(reason="draining", instead="c"),
]


def framed(fields: object) -> bytes:
    body = json.dumps(fields).encode()
    return len(body).to_bytes(4, "big") + body


def test_all_messages_survive_any_cut() -> None:
    wire = b"".join(m.encode(message, LIMIT) for message in ALL)
    for step in (1, 7, len(wire)):
        reader = m.MessageReader(LIMIT)
        got = [message for at in range(0, len(wire), step) for message in reader.receive(wire[at : at + step])]
        assert got == ALL
    assert {type(message) for message in ALL} == set(m.Message.__args__)


def test_unknown_types_and_fields_are_skipped() -> None:
    reader = m.MessageReader(LIMIT)
    wire = framed({"type": "telepathy", "x": 1}) + framed({"type": "ping", "id": 1, "at": 2, "mood": "good"})
    assert list(reader.receive(wire)) == [m.Ping(id=1, at=2)]
    assert reader.unknown == 1


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(m.UnknownVersion, match=r"version 2 .* speaks 1"):
        m.decode(b'{"type":"hello","version":2,"whatever":[]}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"type":1}',
        b'{"type":"ping"}',
        b'{"type":"ping","id":"1","at":2}',
        b'{"type":"ping","id":-1,"at":2}',
        b'{"type":"ping","id":1.5,"at":2}',
        b'{"type":"subscribe","request":1,"publication":"","epoch":1,"layers":[]}',
        b'{"type":"subscribe","request":1,"publication":"p","epoch":1,"layers":[99]}',
        b'{"type":"demand","publication":"p","layers":[' + b"0," * 20 + b"0]}",
        b'{"type":"bind","link":"0123456789abcdef","path":"sideways","generation":0}',
        b'{"type":"hello","version":1,"node":"a","link":"short"}',
        b'{"type":"watch_room","room":"r","after":18446744073709551616}',
        b'{"type":"events","room":"r","events":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_breaks_the_rules_is_malformed(body: bytes) -> None:
    with pytest.raises(m.Malformed):
        m.decode(body)


@pytest.mark.parametrize(
    "wait",
    [
        {"ms": 1},
        {"participant": "", "ms": 1},
        {"participant": "a", "ms": -1},
        {"participant": "a", "ms": "1"},
        {"participant": "a", "ms": m.MAX_WAIT_MS + 1},
    ],
)
def test_a_wait_is_somebodys_and_bounded(wait: object) -> None:
    entry = json.loads(PUBLICATION.model_dump_json())
    for waits in ([wait], [{"participant": "a", "ms": 1}] * (m.MAX_WAITS + 1)):
        body = {"type": "catalog", "version": 1, "publications": [{**entry, "waits": waits}]}
        with pytest.raises(m.Malformed, match="waits"):
            m.decode(json.dumps(body).encode())


def test_lengths_are_bounded_both_ways() -> None:
    with pytest.raises(m.Malformed, match="longer than 65536"):
        list(m.MessageReader(LIMIT).receive((LIMIT + 1).to_bytes(4, "big")))
    with pytest.raises(UsageError):
        m.encode(m.RoomEvents(room="r", events=(m.Event(sync_id=1, type="t", data={"x": "y" * LIMIT}),)), LIMIT)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, len(ALL) - 1), st.integers(0, 400))
def test_bytes_of_a_stranger_are_a_message_or_malformed(noise: bytes, which: int, at: int) -> None:
    wire = bytearray(m.encode(ALL[which], LIMIT))
    wire[at % len(wire) : at % len(wire) + len(noise)] = noise
    reader = m.MessageReader(LIMIT)
    try:
        for message in reader.receive(bytes(wire)):
            assert isinstance(message, m.Message)
    except m.Malformed:
        pass

"""RTMP's messages: against a server of the tests' own, in any pieces, and against anything at all."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.egress import amf
from relay.egress.address import parse_target
from relay.egress.rtmp_session import AUDIO, CHUNK, VIDEO, RtmpSession, State
from relay.errors import PeerError

TARGET = parse_target("rtmp://a.example/app/key")
SHAKE = b"\x03" + bytes(3072)


def message(kind: int, payload: bytes, *, chunk: int = 128, number: int = 3, at: int = 0) -> bytes:
    """A server's message in chunks."""
    late = struct.pack("!I", at) if at >= 0xFFFFFF else b""
    head = min(at, 0xFFFFFF).to_bytes(3, "big") + len(payload).to_bytes(3, "big") + bytes([kind]) + bytes(4) + late
    basic = bytes([number]) if number < 64 else bytes([0, number - 64])
    rest = bytes([basic[0] | 0xC0]) + basic[1:] + late
    pieces = [payload[i : i + chunk] for i in range(0, len(payload), chunk)] or [b""]
    return basic + head + rest.join(pieces)


def command(*values: amf.Value, **how: int) -> bytes:
    return message(20, amf.encode(*values), **how)


ANSWERS = [
    SHAKE,
    message(5, struct.pack("!I", 5000)) + message(6, struct.pack("!IB", 9000, 2)) + message(1, struct.pack("!I", 200)),
    command("_result", 1.0, {"fmsVer": "x" * 300}, {"code": "NetConnection.Connect.Success"}, chunk=200, number=70),
    message(4, struct.pack("!HI", 6, 77), chunk=200)
    + command("_error", 2.0, None, {"code": "no releaseStream"}, chunk=200),
    command("_result", 4.0, None, 5.0, chunk=200, at=0x1000000),
    command("onStatus", 0.0, None, {"level": "status", "code": "NetStream.Publish.Start"}, chunk=200),
]
STATES = [State.CONNECTING, State.CONNECTING, State.CREATING, State.CREATING, State.ASKING, State.PUBLISHING]


def commands(data: bytes) -> list[list[amf.Value]]:
    """The commands in what a session sends, of which none is longer than a chunk."""
    found, at = [], 0
    while at < len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 7], "big"), data[at + 7]
        at += 12
        if kind == 20:
            found.append(amf.decode(data[at : at + length]))
        at += length
    return found


def test_a_session_from_handshake_to_end() -> None:
    session = RtmpSession(TARGET)
    assert len(session.transmit()) == 1537
    sent = []
    for answer, state in zip(ANSWERS, STATES, strict=True):
        session.receive(answer)
        assert session.state is state
        out = session.transmit()
        sent += commands(out[1536:] if answer is SHAKE else out)
    assert [each[0] for each in sent] == ["connect", "releaseStream", "FCPublish", "createStream", "publish"]
    assert sent[0][2] == {
        "app": "app", "type": "nonprivate", "flashVer": "FMLE/3.0 (compatible; costream)", "tcUrl": "rtmp://a.example/app",
    }  # fmt: skip
    assert sent[-1][2:] == [None, "key", "live"]
    session.send_media(VIDEO, 0x1234567, bytes(3 * CHUNK))
    out = session.transmit()
    assert out[1:4] == b"\xff\xff\xff"
    assert len(out) == 12 + 4 + 3 * CHUNK + 2 * 5
    session.send_media(AUDIO, 5, b"x")
    session.finish()
    out = session.transmit()
    assert [each[0] for each in commands(out)] == ["FCUnpublish", "deleteStream"]


def test_a_ping_is_answered_and_bytes_are_acknowledged() -> None:
    session = RtmpSession(TARGET)
    session.receive(b"".join(ANSWERS))
    session.transmit()
    session.receive(message(4, struct.pack("!HI", 6, 78), chunk=200))
    assert session.transmit().endswith(struct.pack("!HI", 7, 78))
    session.receive(message(20, amf.encode("onBWDone", 0.0, None, "x" * 4000), chunk=200))
    assert session.transmit()[7] == 3


@given(st.integers(0, 2**32))
def test_any_pieces_are_the_same_session(seed: int) -> None:
    session, rng = RtmpSession(TARGET), random.Random(seed)
    data = b"".join(ANSWERS)
    while data:
        take = rng.choice([1, 7, 1500, 4000])
        session.receive(data[:take])
        data = data[take:]
    assert session.state is State.PUBLISHING


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400",
        SHAKE + command("_error", 1.0, None, {"code": "NetConnection.Rejected", "description": "no\nsuch\x07app"}),
        SHAKE + command("onStatus", 0.0, None, {"level": "error", "code": "NetStream.Publish.BadName"}),
        SHAKE + message(1, bytes(4)),
        SHAKE + message(1, b"\1"),
        SHAKE + b"\x03\0\0\0\xff\xff\xff\x14\0\0\0\0",
        SHAKE + b"\xc3abc",
        SHAKE + message(20, b"\x03\0\5abc"),
        SHAKE + command("close", 0.0),
        SHAKE + b"".join(message(9, b"", number=n) for n in [*range(3, 63), *range(64, 80)]),
    ],
)  # fmt: skip
def test_refusals_and_nonsense_are_errors_of_the_peer(answer: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        RtmpSession(TARGET).receive(answer)
    assert str(caught.value).isprintable()
    assert "key" not in str(caught.value)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, len(ANSWERS)))
def test_nothing_else_can_be_raised(data: bytes, answers: int) -> None:
    session = RtmpSession(TARGET)
    session.receive(b"".join(ANSWERS[:answers]))
    try:
        session.receive(data)
    except PeerError:
        return


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=6,
)


@given(st.lists(values, max_size=4))
def test_amf_comes_back_as_it_was(given_values: list[amf.Value]) -> None:
    assert amf.decode(amf.encode(*given_values)) == given_values


@given(st.binary(max_size=100))
def test_no_amf_breaks_its_reader(data: bytes) -> None:
    try:
        amf.decode(data)
    except PeerError:
        return

"""The words between relay and worker: typed, strict, and whatever else comes ends in a PeerError."""

from __future__ import annotations

import json
from dataclasses import dataclass
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import PeerError, UsageError
from relay.process.control import MAX_BYTES, Message, Wire, frame


@dataclass(frozen=True, slots=True)
class Cell:
    x: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed(Message):
    room: str
    cell: Cell
    gain: float = 1.0
    exclude: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped(Message):
    pass


def raw(body: object) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return pack("!I", len(text)) + text


@given(
    st.lists(
        st.builds(
            Placed,
            st.text(),
            st.builds(Cell, st.integers(-(2**63), 2**63 - 1), st.lists(st.text(), max_size=3).map(tuple)),
            st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.text(),
        )
        | st.just(Stopped()),
        max_size=5,
    ),
    st.integers(1, 40),
)
def test_messages_come_back_however_the_bytes_are_cut(messages: list[Message], size: int) -> None:
    wire: Wire[Message] = Wire(Placed, Stopped)
    data = b"".join(map(frame, messages))
    heard = [message for at in range(0, len(data), size) for message in wire.feed(data[at : at + size])]
    assert heard == messages


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        ["Stopped"],
        ["Stopped", {}, 1],
        [["Stopped"], {}],
        ["Unheard", {}],
        ["Stopped", {"more": 1}],
        ["Stopped", None],
        ["Placed", {"room": "a"}],
        ["Placed", {"room": 1, "cell": {"x": 1}}],
        ["Placed", {"room": "a", "cell": {"x": "1"}}],
        ["Placed", {"room": "a", "cell": {"x": 1, "y": 2}, "gain": "loud"}],
        b'["Placed", {"room": "a", "cell": {"x": 1}, "gain": NaN}]',
    ],
)
def test_nonsense_is_refused(body: object) -> None:
    with pytest.raises(PeerError):
        Wire(Placed, Stopped).feed(raw(body))


def test_the_error_says_where() -> None:
    with pytest.raises(PeerError, match=r"Placed is wrong at cell\.x"):
        Wire(Placed).feed(raw(["Placed", {"room": "a", "cell": {"x": "1"}}]))


def test_a_length_is_believed_only_up_to_the_limit() -> None:
    with pytest.raises(PeerError, match="bytes"):
        Wire(Stopped).feed(pack("!I", MAX_BYTES + 1))
    with pytest.raises(UsageError):
        frame(Placed("x" * MAX_BYTES, Cell(1)))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_messages_or_a_peer_error(data: bytes) -> None:
    try:
        heard = Wire(Placed, Stopped).feed(data)
    except PeerError:
        return
    assert all(isinstance(message, Placed | Stopped) for message in heard)

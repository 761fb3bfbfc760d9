"""RTP headers, header extensions, serial arithmetic and retransmission: vectors, then properties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.reference.rtp import (
    EXTENSIONS,
    build_header,
    decapsulate_rtx,
    encapsulate_rtx,
    is_newer,
    is_newer_timestamp,
    parse,
    seq_delta,
    timestamp_delta,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rtp.json").read_text())
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
SEEDS = [bytes.fromhex(v["datagram"]) for v in VECTORS["parse"]]


@pytest.mark.parametrize("vector", VECTORS["parse"], ids=lambda v: v["name"])
def test_parse_vectors(vector: dict[str, Any]) -> None:
    packet = parse(bytes.fromhex(vector["datagram"]), 77)
    wanted = vector["packet"]
    if wanted is None:
        assert packet is None
        return
    assert packet is not None
    assert {
        "marker": packet.marker,
        "payload_type": packet.payload_type,
        "seq": packet.seq,
        "timestamp": packet.timestamp,
        "ssrc": packet.ssrc,
        "payload": [packet.payload_offset, packet.payload_end],
        "extensions": {str(i): list(span) for i, span in packet.extensions.items()},
    } == wanted
    assert packet.arrival == 77


@pytest.mark.parametrize("vector", VECTORS["build"], ids=lambda v: v["name"])
def test_build_vectors(vector: dict[str, Any]) -> None:
    extensions = [(i, bytes.fromhex(value)) for i, value in vector["extensions"]]
    header = build_header(*vector["fields"], extensions)
    assert header.hex() == vector["header"]
    packet = parse(header, 0)
    assert packet is not None
    assert [(i, packet.extension(i)) for i in packet.extensions] == extensions


@pytest.mark.parametrize("vector", VECTORS["rtx"], ids=lambda v: v["name"])
def test_rtx_vectors(vector: dict[str, Any]) -> None:
    packet = parse(bytes.fromhex(vector["datagram"]), 5)
    assert packet is not None
    original = decapsulate_rtx(packet, *vector["original"])
    if vector["rebuilt"] is None:
        assert original is None
        return
    assert original is not None
    assert original.data.hex() == vector["rebuilt"]
    again = parse(original.data, 5)
    assert again is not None
    for name in original.__slots__:
        assert getattr(again, name) == getattr(original, name), name


def test_serial_arithmetic_at_the_wrap() -> None:
    assert is_newer(0, 65535)
    assert not is_newer(65535, 0)
    assert not is_newer(7, 7)
    assert not is_newer(0x8000, 0)
    assert seq_delta(2, 65534) == 4
    assert seq_delta(65534, 2) == -4
    assert is_newer_timestamp(5, 0xFFFFFFF0)
    assert not is_newer_timestamp(0xFFFFFFF0, 5)
    assert timestamp_delta(5, 0xFFFFFFFF) == 6
    assert timestamp_delta(0xFFFFFFFF, 5) == -6


@given(U16, st.integers(-0x8000, 0x7FFF))
def test_seq_delta_inverts_addition(start: int, step: int) -> None:
    moved = (start + step) & 0xFFFF
    assert seq_delta(moved, start) == step
    assert is_newer(moved, start) == (step > 0)


@given(U32, st.integers(-0x80000000, 0x7FFFFFFF))
def test_timestamp_delta_inverts_addition(start: int, step: int) -> None:
    moved = (start + step) & 0xFFFFFFFF
    assert timestamp_delta(moved, start) == step
    assert is_newer_timestamp(moved, start) == (step > 0)


@settings(max_examples=200)
@given(
    st.integers(0, 127),
    st.booleans(),
    U16,
    U32,
    U32,
    st.dictionaries(st.integers(1, 255), st.binary(max_size=40), max_size=6),
    st.binary(max_size=40),
)
def test_what_is_built_parses_to_the_same(
    payload_type: int, marker: bool, seq: int, timestamp: int, ssrc: int, extensions: dict[int, bytes], payload: bytes
) -> None:
    header = build_header(payload_type, marker, seq, timestamp, ssrc, list(extensions.items()))
    packet = parse(header + payload, 0)
    assert packet is not None
    assert (packet.payload_type, packet.marker, packet.seq) == (payload_type, marker, seq)
    assert (packet.timestamp, packet.ssrc, packet.payload) == (timestamp, ssrc, payload)
    assert {i: packet.extension(i) for i in packet.extensions} == extensions
    assert packet.extension(0) is None


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda tail: b"\xb1\x60" + tail)))
@example(b"\xff" * 80)
@example(SEEDS[9])
def test_any_datagram_is_parsed_within_its_bounds_or_refused(datagram: bytes) -> None:
    packet = parse(datagram, 0)
    if packet is None:
        return
    assert 12 <= packet.payload_offset <= packet.payload_end <= len(datagram)
    for offset, length in packet.extensions.values():
        assert 12 < offset <= offset + length <= packet.payload_offset


@settings(max_examples=200)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 255)), max_size=4))
def test_mutated_packets_never_raise(seed: bytes, changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(seed)
    for position, value in changes:
        if position < len(mutated):
            mutated[position] = value
    packet = parse(bytes(mutated), 0)
    if packet is not None:
        decapsulate_rtx(packet, 1, 96)


@given(U16, st.binary(max_size=50))
def test_rtx_round_trip(seq: int, payload: bytes) -> None:
    carrier = parse(build_header(97, True, 9, 8, 7) + encapsulate_rtx(payload, seq), 3)
    assert carrier is not None
    original = decapsulate_rtx(carrier, 1, 96)
    assert original is not None
    assert original.data == build_header(96, True, seq, 8, 1) + payload


@pytest.mark.parametrize("element", [(0, b"x"), (256, b"x"), (1, bytes(256))])
def test_unwritable_extension_is_our_bug(element: tuple[int, bytes]) -> None:
    with pytest.raises(UsageError):
        build_header(96, False, 1, 2, 3, [element])


def test_extension_uris_are_distinct() -> None:
    assert len(set(EXTENSIONS.values())) == len(EXTENSIONS) == 15

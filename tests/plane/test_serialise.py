"""Outgoing packets of a slot: what is written parses to what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.reference.rtp import Packet, build_header, parse
from relay.plane.reference.serialise import Forwarding, Serialiser


def ingress(extensions: list[tuple[int, bytes]], payload: bytes = b"\x01\x02\x03\x04\x05\x06") -> Packet:
    packet = parse(build_header(96, True, 1, 2, 3, extensions) + payload, 0)
    assert packet is not None
    return packet


def test_without_extensions_the_header_is_bare() -> None:
    out = Serialiser(99).write(ingress([(5, b"\x8a")]), 0xE4, 10, 11)
    assert out.hex() == "80e4000a0000000b00000063010203040506"


def test_fixed_and_stamped_extensions() -> None:
    serialiser = Serialiser(99, fixed=[(1, b"0")], transport_cc_id=3, abs_send_time_id=4)
    out = serialiser.write(ingress([]), 100, 10, 11, transport_seq=0x0102, send_time=0x010203)
    assert out.hex() == "9064000a0000000b00000063bede0003103031010242010203000000010203040506"


def test_forwarded_extensions_are_renumbered() -> None:
    serialiser = Serialiser(99, forwarding=Forwarding([(5, 7), (6, 8)]))
    assert serialiser.write(ingress([(5, b"\x8a"), (9, b"no")]), 100, 1, 2).hex() == (
        "906400010000000200000063bede0001708a0000010203040506"
    )
    assert serialiser.write(ingress([(9, b"no")]), 100, 1, 2).hex() == ("906400010000000200000063bede0000010203040506")


def test_a_long_element_turns_that_packet_to_the_two_byte_form() -> None:
    serialiser = Serialiser(99, fixed=[(1, b"0")], transport_cc_id=3, forwarding=Forwarding([(5, 7)], allow_mixed=True))
    for value in (b"x" * 17, b"y"):
        parsed = parse(serialiser.write(ingress([(5, value)]), 0xE4, 10, 11, 1, b"\xff", 5), 0)
        assert parsed is not None
        assert (parsed.marker, parsed.payload_type, parsed.ssrc) == (True, 100, 99)
        assert {i: parsed.extension(i) for i in parsed.extensions} == {1: b"0", 3: b"\0\5", 7: value}
        assert parsed.payload == b"\x01\xff\x03\x04\x05\x06"
        assert parsed.data[12:14] == (b"\x10\x00" if len(value) > 16 else b"\xbe\xde")


def test_a_long_element_is_left_out_when_the_viewer_has_not_agreed() -> None:
    serialiser = Serialiser(99, forwarding=Forwarding([(5, 7), (6, 15), (4, 8)]))
    out = serialiser.write(ingress([(5, b"x" * 17), (6, b"z"), (4, b"\x8a")]), 100, 1, 2)
    assert out.hex() == "906400010000000200000063bede0001808a0000010203040506"


def test_ingress_padding_and_csrcs_are_not_passed_on() -> None:
    packet = parse(bytes.fromhex("a260000100000002000000030000000400000005aabb0003000003"), 0)
    assert packet is not None
    assert Serialiser(99).write(packet, 96, 1, 2).hex() == "806000010000000200000063aabb0003"


def test_a_patch_replaces_and_a_prefix_goes_before() -> None:
    out = Serialiser(99).write(ingress([]), 100, 1, 2, patch_offset=2, patch=b"\xaa\xbb", prefix=b"\x00\x07")
    assert out[12:].hex() == "00070102aabb0506"


@settings(max_examples=100)
@given(
    st.dictionaries(st.integers(1, 14), st.binary(min_size=0, max_size=20), max_size=5),
    st.lists(st.tuples(st.integers(1, 14), st.integers(5, 20)), max_size=4, unique_by=(lambda p: p[0], lambda p: p[1])),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFF),
    st.binary(max_size=9),
)
def test_any_mixture_parses_back(
    carried: dict[int, bytes], ids: list[tuple[int, int]], transport_seq: int, send_time: int, payload: bytes
) -> None:
    serialiser = Serialiser(99, [(1, b"mid")], 2, 3, Forwarding(ids, allow_mixed=True))
    packet = ingress(list(carried.items()), payload)
    first = serialiser.write(packet, 100, 65535, 2**32 - 1, 0, b"", transport_seq, send_time)
    parsed = parse(first, 0)
    assert parsed is not None
    wanted = {1: b"mid", 2: transport_seq.to_bytes(2, "big"), 3: send_time.to_bytes(3, "big")}
    wanted |= {out: carried[i] for i, out in ids if i in carried}
    assert {i: parsed.extension(i) for i in parsed.extensions} == wanted
    assert (parsed.seq, parsed.timestamp, parsed.payload) == (65535, 2**32 - 1, payload)
    serialiser.write(ingress([]), 96, 1, 1)
    assert serialiser.write(packet, 100, 65535, 2**32 - 1, 0, b"", transport_seq, send_time) == first


def test_own_extensions_must_fit_the_one_byte_form() -> None:
    with pytest.raises(UsageError):
        Serialiser(99, fixed=[(15, b"0")])
    with pytest.raises(UsageError):
        Serialiser(99, fixed=[(1, b"0" * 17)])

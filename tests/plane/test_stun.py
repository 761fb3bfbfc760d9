"""STUN as an ICE-lite end: RFC 5769 vectors, answers, refusals, and everything that strangers send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aioice import stun as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference import stun
from relay.plane.reference.stun import BindingRequest, Drop, StunMessage

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "stun_rfc5769.json").read_text())
SAMPLE = bytes.fromhex(VECTORS["request"])
PASSWORD = VECTORS["password"].encode()
TID = bytes(range(12))


def request(**options: object) -> bytes:
    return stun.binding_request(TID, "us:them", PASSWORD, **options)  # type: ignore[arg-type]


def authentic(datagram: bytes) -> peer.Message:
    """Read and authenticated by another implementation."""
    message = peer.parse_message(datagram)
    assert message.check_message_integrity(PASSWORD)
    return message


def parsed(datagram: bytes) -> BindingRequest:
    message = stun.parse(datagram)
    assert isinstance(message, BindingRequest), message
    return message


def test_rfc_5769_sample_request() -> None:
    message = parsed(SAMPLE)
    assert message.transaction_id == bytes.fromhex("b7e7a701bc34d686fa87dfae")
    assert (message.local_ufrag, message.remote_ufrag) == ("evtj", "h6vY")
    assert message.priority == 0x6E0001FF
    assert message.controlled == 0x932FF9B151263B36
    assert message.controlling is None
    assert message.fingerprint
    assert not message.use_candidate
    assert stun.verify_integrity(SAMPLE, message, PASSWORD)
    assert not stun.verify_integrity(SAMPLE, message, PASSWORD + b"x")
    assert stun.refusal_after_integrity(message) == 487


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_answers_say_what_the_rfc_5769_responses_say(family: str) -> None:
    sample = bytes.fromhex(VECTORS[f"response_{family}"])
    host, port = VECTORS[f"mapped_{family}"]
    theirs = authentic(sample)
    assert theirs.attributes["XOR-MAPPED-ADDRESS"] == (host, port)
    ours = stun.binding_success(sample[8:20], host, port, PASSWORD)
    # The sample carries SOFTWARE; the mapped address is the same bytes, integrity is judged by another implementation.
    size = 12 if family == "ipv4" else 24
    assert ours[20 : 20 + size] == sample[36 : 36 + size]
    assert authentic(ours).attributes["XOR-MAPPED-ADDRESS"] == (host, port)
    assert stun.parse(sample) == StunMessage(stun.BINDING_SUCCESS, sample[8:20])


def test_addresses_as_recvfrom_gives_them() -> None:
    mapped = stun.binding_success(TID, "::ffff:192.0.2.7", 9, PASSWORD)
    assert mapped == stun.binding_success(TID, "192.0.2.7", 9, PASSWORD)
    assert stun.binding_success(TID, "fe80::1%eth0", 9, PASSWORD) == stun.binding_success(TID, "fe80::1", 9, PASSWORD)
    with pytest.raises(ValueError, match="does not appear"):
        stun.binding_success(TID, "localhost", 9, PASSWORD)


def test_a_check_of_another_implementation() -> None:
    message = peer.Message(peer.Method.BINDING, peer.Class.REQUEST, transaction_id=TID)
    message.attributes.update({"USERNAME": "us:them", "PRIORITY": 77, "ICE-CONTROLLING": 5, "USE-CANDIDATE": None})
    message.add_message_integrity(PASSWORD)
    datagram = bytes(message)
    read = parsed(datagram)
    assert (read.local_ufrag, read.remote_ufrag, read.priority) == ("us", "them", 77)
    assert (read.controlling, read.use_candidate, read.fingerprint) == (5, True, True)
    assert stun.verify_integrity(datagram, read, PASSWORD)
    assert stun.refusal_before_integrity(read) == stun.refusal_after_integrity(read) == 0


def test_our_own_request_round_trip() -> None:
    datagram = request(use_candidate=True, tie_breaker=9, priority=8)
    read = parsed(datagram)
    assert (read.use_candidate, read.controlling, read.priority) == (True, 9, 8)
    assert authentic(datagram).attributes["USERNAME"] == "us:them"
    assert stun.is_stun(datagram)
    assert not stun.is_stun(b"\x80" + datagram[1:])
    assert not stun.is_stun(datagram[:19])


def test_refusals() -> None:
    assert stun.refusal_after_integrity(parsed(request(controlled=True))) == 487
    unknown = parsed(request(extra=b"\x7f\x01\x00\x00" + b"\x7f\x01\x00\x01abcd" + b"\xc0\x57\x00\x00"))
    assert unknown.unknown == (0x7F01,)
    assert stun.refusal_after_integrity(unknown) == 420
    both = parsed(request(extra=b"\x80\x29\x00\x08" + bytes(8)))
    assert stun.refusal_before_integrity(both) == 400
    anonymous = parsed(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + TID)
    assert stun.refusal_before_integrity(anonymous) == 400
    assert not stun.verify_integrity(b"", anonymous, PASSWORD)
    colonless = parsed(stun.binding_request(TID, "nobody", PASSWORD))
    assert (colonless.username, colonless.local_ufrag) == (b"nobody", "")
    assert stun.refusal_before_integrity(colonless) == 400
    assert parsed(stun.binding_request(TID, "マ:ス", PASSWORD)).local_ufrag == ""


def test_error_answers_are_read_by_another_implementation() -> None:
    error = authentic(stun.binding_error(TID, 487, PASSWORD))
    assert error.attributes["ERROR-CODE"] == (487, "Role Conflict")
    assert error.message_class == peer.Class.ERROR
    bare = stun.binding_error(TID, 401)
    assert "MESSAGE-INTEGRITY" not in peer.parse_message(bare).attributes
    listed = stun.binding_error(TID, 420, PASSWORD, (0x7F01, 0x7F02, 0x7F03))
    assert b"\x00\x0a\x00\x06\x7f\x01\x7f\x02\x7f\x03\x00\x00" in listed
    assert stun.parse(listed) == StunMessage(stun.BINDING_ERROR, TID)


def test_what_follows_message_integrity_is_ignored() -> None:
    datagram = request()[:-8] + stun._attribute(stun.USE_CANDIDATE, b"")
    datagram = stun._with_length(datagram, len(datagram) - 20)
    read = parsed(datagram)
    assert not read.use_candidate
    assert not read.fingerprint
    assert stun.verify_integrity(datagram, read, PASSWORD)


def sealed(attributes: bytes) -> bytes:
    return stun._seal(stun.BINDING_REQUEST, TID, attributes, None)


@pytest.mark.parametrize(
    ("datagram", "drop"),
    [
        (b"", Drop.TOO_SHORT),
        (SAMPLE[:19], Drop.TOO_SHORT),
        (b"\x80" + SAMPLE[1:], Drop.NOT_STUN),
        (SAMPLE[:4] + b"\0\0\0\0" + SAMPLE[8:], Drop.NOT_STUN),
        (SAMPLE + b"\0", Drop.BAD_LENGTH),
        (SAMPLE[:-4], Drop.BAD_LENGTH),
        (stun._with_length(SAMPLE[:-2], 86), Drop.BAD_LENGTH),
        (stun._with_length(SAMPLE + bytes(65_535 - len(SAMPLE)), 0), Drop.TOO_LONG),
        (SAMPLE[:-1] + b"\0", Drop.BAD_FINGERPRINT),
        (SAMPLE[:40] + b"x" + SAMPLE[41:], Drop.BAD_FINGERPRINT),
        (sealed(b"")[:-8] + b"\x00\x06\x00\x05abcd", Drop.TRUNCATED_ATTRIBUTE),
        (sealed(b"\x80\x22\x00\x00" * 70), Drop.TOO_MANY_ATTRIBUTES),
        (sealed(b"\x00\x24\x00\x02ab\0\0"), Drop.BAD_ATTRIBUTE),
        (sealed(b"\x80\x2a\x00\x04abcd"), Drop.BAD_ATTRIBUTE),
        (sealed(b"\x80\x29\x00\x00"), Drop.BAD_ATTRIBUTE),
        (sealed(b"\x00\x08\x00\x10" + bytes(16)), Drop.BAD_ATTRIBUTE),
        (sealed(b"\x00\x06\x02\x04" + bytes(516)), Drop.BAD_ATTRIBUTE),
        (sealed(b"\x80\x28\x00\x04" + bytes(4)), Drop.BAD_FINGERPRINT),
    ],
)
def test_malformed_datagrams_are_dropped_by_name(datagram: bytes, drop: Drop) -> None:
    assert stun.parse(datagram) is drop


def test_indications_and_other_methods_are_told_apart() -> None:
    assert stun.parse(b"\x00\x11" + bytes(2) + SAMPLE[4:20]) == StunMessage(stun.BINDING_INDICATION, SAMPLE[8:20])
    assert stun.parse(b"\x00\x03" + bytes(2) + SAMPLE[4:20]) == StunMessage(3, SAMPLE[8:20])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_and_any_attributes_are_survived(tail: bytes) -> None:
    whole = tail + bytes(-len(tail) & 3)
    head = b"\x00\x01" + len(whole).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + TID
    for datagram in (tail, head + whole):
        message = stun.parse(datagram)
        if isinstance(message, BindingRequest):
            assert not stun.verify_integrity(datagram, message, PASSWORD)
            stun.refusal_before_integrity(message)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_noticed(at: int, flip: int) -> None:
    mutant = SAMPLE[:at] + bytes((SAMPLE[at] ^ flip,)) + SAMPLE[at + 1 :]
    message = stun.parse(mutant)
    assert not (isinstance(message, BindingRequest) and message.fingerprint)

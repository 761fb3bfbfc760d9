"""SRTP of a session against the RFCs' vectors, an independent implementation, and hostile input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import srtp_oracle as oracle
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.contract import SrtpProfile
from relay.plane.reference.rtcp import build_pli
from relay.plane.reference.rtp import build_header
from relay.plane.reference.srtp import MAX_PLAIN, MAX_SEALED, MAX_STREAMS, REPLAY_WINDOW, Refusal, Srtp

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "srtp.json").read_text())
PROFILES = pytest.mark.parametrize("profile", list(SrtpProfile), ids=lambda p: p.name)
SENDER_REPORT = bytes.fromhex("80c80006000000630102030405060708090a0b0c0d0e0f1011121314")


def key_of(profile: SrtpProfile, start: int = 0) -> bytes:
    return bytes((start + i) & 0xFF for i in range(profile.key_length + profile.salt_length))


def pair(profile: SrtpProfile) -> tuple[Srtp, Srtp]:
    one, two = key_of(profile), key_of(profile, 100)
    return Srtp(profile, one, two), Srtp(profile, two, one)


def rtp(seq: int, payload: bytes = b"payload", ssrc: int = 99) -> bytes:
    return build_header(96, False, seq, 1000, ssrc) + payload


def test_oracle_derives_keys_as_rfc_3711_b3() -> None:
    vector = VECTORS["key_derivation"]
    for label, name in ((0, "cipher_key"), (2, "cipher_salt"), (1, "auth_key")):
        wanted = bytes.fromhex(vector[name])
        master = bytes.fromhex(vector["master_key"]), bytes.fromhex(vector["master_salt"])
        assert oracle.derive(*master, label, len(wanted)) == wanted


@pytest.mark.parametrize("vector", VECTORS["gcm_session"], ids=lambda v: v["name"])
def test_oracle_seals_as_rfc_7714_16(vector: dict[str, Any]) -> None:
    packet = bytes.fromhex(vector["packet"])
    iv = oracle.gcm_iv(bytes.fromhex(vector["salt"]), packet[8:12], int.from_bytes(packet[2:4], "big"))
    assert iv.hex() == vector["iv"]
    sealed = AESGCM(bytes.fromhex(vector["key"])).encrypt(iv, packet[12:], packet[:12])
    assert (packet[:12] + sealed).hex() == vector["sealed"]


@pytest.mark.parametrize("vector", VECTORS["sessions"], ids=lambda v: v["name"])
def test_sealed_as_the_vectors(vector: dict[str, Any]) -> None:
    profile, key = SrtpProfile[vector["profile"]], bytes.fromhex(vector["key"])
    sender, receiver = Srtp(profile, key, key), Srtp(profile, key, key)
    rtp_plain, rtcp_plain = bytes.fromhex(vector["rtp"]), bytes.fromhex(vector["rtcp"])
    sealed_rtp, sealed_rtcp = sender.protect_rtp(rtp_plain), sender.protect_rtcp(rtcp_plain)
    assert sealed_rtp is not None
    assert sealed_rtcp is not None
    assert (sealed_rtp.hex(), sealed_rtcp.hex()) == (vector["srtp"], vector["srtcp"])
    assert receiver.unprotect_rtp(sealed_rtp) == rtp_plain
    assert receiver.unprotect_rtcp(sealed_rtcp) == rtcp_plain


@PROFILES
def test_agrees_with_the_oracle_over_the_sequence_wrap(profile: SrtpProfile) -> None:
    relay, peer = pair(profile)
    for seq, roc in ((65533, 0), (65535, 0), (0, 1), (7, 1)):
        packet = rtp(seq, b"x" * (seq % 50))
        sealed = relay.protect_rtp(packet)
        assert sealed == oracle.protect_rtp(profile, key_of(profile), packet, roc)
        assert peer.unprotect_rtp(sealed) == packet
        assert len(sealed) == len(packet) + profile.tag_length


@PROFILES
def test_agrees_with_the_oracle_with_extensions_and_in_rtcp(profile: SrtpProfile) -> None:
    relay, peer = pair(profile)
    header = build_header(96, True, 5, 6, 7, [(1, b"0"), (3, b"ab")])
    assert relay.protect_rtp(header + b"data") == oracle.protect_rtp(
        profile, key_of(profile), header + b"data", header=len(header)
    )
    for index in (1, 2):
        sealed = relay.protect_rtcp(SENDER_REPORT)
        assert sealed == oracle.protect_rtcp(profile, key_of(profile), SENDER_REPORT, index)
        assert peer.unprotect_rtcp(sealed) == SENDER_REPORT


@PROFILES
def test_a_flipped_bit_anywhere_fails_and_costs_only_that_packet(profile: SrtpProfile) -> None:
    relay, peer = pair(profile)
    sealed = relay.protect_rtp(rtp(1))
    assert sealed is not None
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        assert peer.unprotect_rtp(bytes(damaged)) is None
    assert sum(peer.refused.values()) == len(sealed)
    assert peer.refused[Refusal.AUTH] >= len(sealed) - 2
    assert peer.unprotect_rtp(sealed) == rtp(1)


@PROFILES
def test_replays_are_refused_within_and_beyond_the_window(profile: SrtpProfile) -> None:
    relay, peer = pair(profile)
    sealed = [relay.protect_rtp(rtp(seq)) for seq in range(REPLAY_WINDOW + 10)]
    for packet in sealed[2:]:
        assert packet is not None
        assert peer.unprotect_rtp(packet) is not None
    for packet in (sealed[0], sealed[2], sealed[-1]):
        assert packet is not None
        assert peer.unprotect_rtp(packet) is None
        assert peer.last_refusal is Refusal.REPLAY
    assert peer.refused[Refusal.REPLAY] == 3


def test_a_packet_late_by_less_than_the_window_is_opened() -> None:
    relay, peer = pair(SrtpProfile.AES_128_GCM)
    sealed = [relay.protect_rtp(rtp(seq)) or b"" for seq in range(REPLAY_WINDOW)]
    assert peer.unprotect_rtp(sealed[-1]) is not None
    assert peer.unprotect_rtp(sealed[0]) == rtp(0)


@PROFILES
def test_an_identical_repeat_is_sealed_identically(profile: SrtpProfile) -> None:
    relay, _ = pair(profile)
    first = relay.protect_rtp(rtp(1))
    relay.protect_rtp(rtp(2))
    assert relay.protect_rtp(rtp(1)) == first
    assert first is not None


def test_a_repeat_older_than_the_window_is_refused() -> None:
    relay, _ = pair(SrtpProfile.AES_128_GCM)
    for seq in range(REPLAY_WINDOW + 2):
        relay.protect_rtp(rtp(seq))
    assert relay.protect_rtp(rtp(0)) is None
    assert relay.last_refusal is Refusal.REPLAY


def test_sizes_at_the_limit() -> None:
    relay, peer = pair(SrtpProfile.AES_128_GCM)
    largest = rtp(1, bytes(MAX_PLAIN - 12))
    sealed = relay.protect_rtp(largest)
    assert sealed is not None
    assert peer.unprotect_rtp(sealed) == largest
    for refused in (
        relay.protect_rtp(largest + b"x"),
        relay.protect_rtcp(SENDER_REPORT + bytes(MAX_PLAIN)),
        relay.unprotect_rtp(bytes(MAX_SEALED + 1)),
        relay.unprotect_rtcp(bytes(MAX_SEALED + 1)),
    ):
        assert refused is None
        assert relay.last_refusal is Refusal.OVERSIZE
    assert relay.refused[Refusal.OVERSIZE] == 4


def test_garbage_to_protect_is_refused() -> None:
    relay, _ = pair(SrtpProfile.AES_128_GCM)
    assert relay.protect_rtp(b"") is None
    assert relay.protect_rtp(b"\x80" * 11) is None
    assert relay.protect_rtcp(b"\x80\xc8") is None
    assert relay.refused[Refusal.MALFORMED] == 3


@settings(max_examples=200)
@given(st.sampled_from(list(SrtpProfile)), st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_are_survived(profile: SrtpProfile, datagram: bytes, prefix: int) -> None:
    relay, peer = pair(profile)
    datagram = (b"", b"\x90\x60", b"\x80\xc8", b"\xbf\xe0")[prefix] + datagram
    assert peer.unprotect_rtp(datagram) is None
    assert peer.unprotect_rtcp(datagram) is None
    sealed = relay.protect_rtp(datagram)
    if sealed is not None:
        assert peer.unprotect_rtp(sealed) == datagram
    sealed = relay.protect_rtcp(datagram)
    if sealed is not None:
        assert peer.unprotect_rtcp(sealed) == datagram


def test_closed_sessions_refuse_everything() -> None:
    relay, _ = pair(SrtpProfile.AES_128_GCM)
    relay.close()
    relay.close()
    assert relay.protect_rtp(rtp(1)) is None
    assert relay.unprotect_rtp(rtp(1)) is None
    assert relay.protect_rtcp(SENDER_REPORT) is None
    assert relay.unprotect_rtcp(SENDER_REPORT) is None
    assert relay.refused[Refusal.CLOSED] == 4


def test_a_bytearray_key_can_be_wiped_by_the_caller() -> None:
    profile = SrtpProfile.AES_128_GCM
    secret = bytearray(key_of(profile))
    relay = Srtp(profile, secret, secret)
    secret[:] = bytes(len(secret))
    assert relay.protect_rtp(rtp(1)) == oracle.protect_rtp(profile, key_of(profile), rtp(1))


@PROFILES
def test_keys_of_a_wrong_length_are_our_bug(profile: SrtpProfile) -> None:
    with pytest.raises(UsageError):
        Srtp(profile, key_of(profile)[:-1], key_of(profile))
    with pytest.raises(UsageError):
        Srtp(profile, key_of(profile), key_of(profile) + b"x")


@PROFILES
def test_a_peer_makes_us_remember_so_many_ssrcs_and_no_more(profile: SrtpProfile) -> None:
    relay, peer = pair(profile)

    def sealed(number: int, seq: int = 1) -> bytes | None:
        if number % 2:
            return relay.protect_rtp(build_header(96, False, seq, 7, number) + b"payload")
        return relay.protect_rtcp(build_pli(number, 9))

    def opens(number: int, packet: bytes | None) -> bool:
        assert packet is not None
        return (peer.unprotect_rtp if number % 2 else peer.unprotect_rtcp)(packet) is not None

    damaged = bytearray(sealed(9999) or b"")
    damaged[-1] ^= 1
    assert peer.unprotect_rtp(bytes(damaged)) is None
    assert all(opens(number, sealed(number)) for number in range(MAX_STREAMS)), "what was not authentic takes no room"
    for number in (MAX_STREAMS, MAX_STREAMS + 1):
        assert not opens(number, sealed(number))
        assert peer.last_refusal is Refusal.STREAMS
    assert opens(1, sealed(1, seq=2))
    assert opens(2, sealed(2))

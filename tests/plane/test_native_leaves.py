"""Each leaf of the native plane against its reference: the same input, byte for byte the same output."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.plane.contract import SrtpProfile
from relay.plane.reference import descriptors, history, rewrite, rtcp, rtp, serialise, srtp, stun, transport_cc
from relay.plane.reference.audio_level import Loudness, parse_audio_level
from relay.plane.reference.estimate import BandwidthEstimator
from relay.plane.reference.nack import LossDetector
from relay.plane.reference.rate import Rate

native = pytest.importorskip("relay.plane._native", reason="the native plane is not built: see rust/README.md").testing

PROFILES = list(SrtpProfile)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
NEAR16 = st.one_of(U16, st.integers(0, 20), st.integers(0xFFF0, 0xFFFF))
SEEDS = st.integers(0, 1 << 32)


@st.composite
def rtp_datagrams(draw: st.DrawFn) -> bytes:
    """Mostly well formed: CSRCs, extension blocks of both forms and none, padding."""
    csrcs = draw(st.integers(0, 2))
    first = 0x80 | csrcs
    block = b""
    if draw(st.booleans()):
        first |= 0x10
        body = draw(st.binary(max_size=40))
        body += bytes(-len(body) % 4)
        profile = draw(st.sampled_from((0xBEDE, 0x1000, 0x1007, 0xABCD)))
        block = profile.to_bytes(2, "big") + (len(body) // 4).to_bytes(2, "big") + body
    payload = draw(st.binary(max_size=40))
    if draw(st.booleans()):
        first |= 0x20
        payload += bytes((draw(st.integers(0, 6)),))
    fixed = draw(st.binary(min_size=11, max_size=11))
    return bytes((first,)) + fixed + bytes(4 * csrcs) + block + payload


DATAGRAMS = st.one_of(st.binary(max_size=80), rtp_datagrams())


@settings(max_examples=300, deadline=None)
@given(DATAGRAMS)
@example(bytes.fromhex("906000010000000200000003bede000110760000"))
@example(bytes.fromhex("90600001000000020000000310000001010000ff"))
def test_rtp_is_parsed_alike(datagram: bytes) -> None:
    ours, theirs = rtp.parse(datagram, 0), native.parse_rtp(datagram)
    if ours is None:
        assert theirs is None
        return
    parts = (ours.ssrc, ours.seq, ours.timestamp, ours.marker, ours.payload_type, ours.payload_offset, ours.payload_end)
    assert theirs == (parts, ours.extensions)
    original = rtp.decapsulate_rtx(ours, 7, 96)
    assert native.decapsulate_rtx(datagram, 7, 96) == (original and original.data[: original.payload_end])


ELEMENTS = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20)), max_size=6)


@settings(max_examples=200, deadline=None)
@given(ELEMENTS)
def test_extension_blocks_are_built_alike(elements: list[tuple[int, bytes]]) -> None:
    try:
        expected = rtp.build_extensions(elements)
    except UsageError:
        with pytest.raises(ValueError):
            native.build_extensions(elements)
    else:
        assert native.build_extensions(elements) == expected


@settings(max_examples=300, deadline=None)
@given(
    rtp_datagrams(),
    st.lists(st.tuples(st.integers(1, 14), st.binary(min_size=1, max_size=16)), max_size=2),
    st.tuples(st.integers(0, 14), st.integers(0, 14)),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=5),
    st.booleans(),
    st.tuples(st.integers(0, 255), U16, U32),
    st.tuples(st.integers(0, 30), st.binary(max_size=4)),
    st.tuples(U16, st.integers(0, 0xFFFFFF)),
    st.binary(max_size=2),
)
def test_packets_are_written_alike(
    datagram: bytes,
    fixed: list[tuple[int, bytes]],
    stamped: tuple[int, int],
    ids: list[tuple[int, int]],
    mixed: bool,
    numbers: tuple[int, int, int],
    patch: tuple[int, bytes],
    stamps: tuple[int, int],
    prefix: bytes,
) -> None:
    packet = rtp.parse(datagram, 0)
    ours = serialise.Serialiser(5, fixed, *stamped, serialise.Forwarding(ids, mixed))
    theirs = native.Serialiser(5, fixed, *stamped, ids, mixed)
    if packet is not None:
        expected = ours.write(packet, *numbers, *patch, *stamps, prefix)
        assert theirs.write(datagram, *numbers, *patch, *stamps, prefix) == expected


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(list(descriptors.Codec)), st.binary(max_size=40), st.integers(0, 4), st.integers(0, 4))
@example(descriptors.Codec.VP8, bytes.fromhex("90f0923407a51002009d012a804268c1ff"), 0, 0)
@example(descriptors.Codec.VP9, bytes.fromhex("8a8fff1810028001680280"), 0, 0)
@example(descriptors.Codec.H264, bytes.fromhex("78000467420001000468ce3c80"), 0, 0)
def test_payloads_are_inspected_alike(codec: descriptors.Codec, data: bytes, start: int, cut: int) -> None:
    end = max(0, len(data) - cut)
    expected = dataclasses.astuple(descriptors.inspect(codec, data, start, end))
    assert native.inspect(codec.value, data, start, end) == expected


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(descriptors.Codec)), st.integers(0, 255), st.binary(min_size=1, max_size=24))
def test_likely_payloads_are_inspected_alike(codec: descriptors.Codec, first: int, rest: bytes) -> None:
    data = bytes((first,)) + rest
    expected = dataclasses.astuple(descriptors.inspect(codec, data, 0, len(data)))
    assert native.inspect(codec.value, data, 0, len(data)) == expected


@settings(max_examples=100, deadline=None)
@given(NEAR16, U32, SEEDS)
def test_sequences_are_rewritten_alike(first_seq: int, first_ts: int, seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = rewrite.Rewriter(first_seq, first_ts), native.Rewriter(first_seq, first_ts)
    seq, ts, now = rng.randrange(1 << 16), rng.randrange(1 << 32), 0
    for turn in range(rng.randrange(400)):
        now += rng.choice((0, 20, 5_000, 40_000, 10**10))
        seq = (seq + rng.choice((1, 1, 1, 1, 2, -1, -3, 30, 1025, 3001, -2000))) & 0xFFFF
        ts = (ts + rng.choice((0, 3000, -3000, 1 << 31))) & 0xFFFFFFFF
        action = rng.randrange(20) if turn else 0
        if action == 0:
            alignment = rng.choice((None, None, 0, -5000, 5000, 1 << 40, -(1 << 33)))
            args = (seq, ts, now, rng.choice((48_000, 90_000)), alignment)
            ours.splice(*args)
            theirs.splice(*args)
        elif action < 5:
            ours.drop(seq)
            theirs.drop(seq)
        else:
            assert theirs.rewrite(seq, ts, now) == ours.rewrite(seq, ts, now)
        expected = (ours.last_seq, ours.last_timestamp, ours.timestamp_out(ts - turn))
        assert theirs.state(ts - turn) == expected


IDS = st.one_of(
    st.just((-1, 0)), st.tuples(st.integers(0, 127), st.just(7)), st.tuples(st.integers(0, 0x7FFF), st.just(15))
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), IDS, st.integers(-1, 255), st.integers(-1, 255)), max_size=40))
def test_picture_ids_are_patched_alike(steps: list[tuple[bool, tuple[int, int], int, int]]) -> None:
    ours, theirs = rewrite.PictureIds(), native.PictureIds()
    for splices, (picture_id, bits), tl0, octet in steps:
        layer_octet = octet if tl0 >= 0 and bits else -1
        told = descriptors.Descriptor(
            picture_id=picture_id, picture_id_bits=bits, tl0_pic_idx=tl0, layer_octet=layer_octet
        )
        if splices:
            ours.splice(told)
            theirs.splice(picture_id, bits, tl0, layer_octet)
        assert theirs.patch(picture_id, bits, tl0, layer_octet) == ours.patch(told)


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_repeats_are_granted_alike(seed: int) -> None:
    rng = random.Random(seed)
    ours, budget = history.SentLog(16), history.ResendBudget(100_000, 2_000)
    theirs = native.SentLog(16, 100_000, 2_000)
    now = puts = 0
    for count in range(120):
        now += rng.choice((0, 1000, 9_999, 60_000))
        seq = rng.randrange(count + 1)
        if rng.random() < 0.5:
            packet = rtp.Packet(bytes(rng.randrange(1, 900)), puts, 1, 0, 0, False, 0, 0, 0, {})
            puts += 1
            ours.put((packet, 0, seq, 0, 0, b"", 0, 0))
            theirs.put(len(packet.data), seq)
        else:
            rtt = rng.choice((0, 30_000))
            sent = ours.resend(seq, now, rtt, budget)
            assert theirs.resend(seq, now, rtt) == (None if sent is None else sent.packet.arrival)
        kept = ours.get(seq)
        assert (theirs.get(seq) is None) == (kept is None)


def _key(profile: SrtpProfile, start: int) -> bytes:
    return bytes((start + i) & 0xFF for i in range(profile.key_length + profile.salt_length))


def _protections(profile: SrtpProfile) -> tuple[srtp.Srtp, Any]:
    one, two = _key(profile, 0), _key(profile, 100)
    return srtp.Srtp(profile, one, two), native.Srtp(profile.value, one, two)


def _expect(ours: srtp.Srtp, theirs: Any, call: str, packet: bytes) -> bytes | None:
    """Both do the same to a packet; returns what came out."""
    done: bytes | None = getattr(ours, call)(packet)
    refusal = ours.last_refusal.name if ours.last_refusal is not None else ""
    assert theirs.process(call, packet) == (refusal if done is None else done), (call, packet.hex())
    return done


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(PROFILES), SEEDS)
def test_sessions_are_protected_alike(profile: SrtpProfile, seed: int) -> None:
    """Jumps, wraps, repeats, replays, damage and cuts, over several SSRCs and in both directions."""
    rng = random.Random(seed)
    relay, twin = _protections(profile)
    peer = srtp.Srtp(profile, _key(profile, 100), _key(profile, 0))
    seq = rng.choice((0, 1, 100, 32767, 32769, 65530))
    sealed_before: list[tuple[str, bytes]] = []
    for _ in range(rng.randrange(60)):
        seq = (seq + rng.choice((1, 1, 1, 0, -1, 40, -900, 1023, 1024, 20_000, 33_000))) & 0xFFFF
        ssrc = rng.choice((1, 1, 1, 2))
        plain = rtp.build_header(96, False, seq, 7, ssrc, [(1, b"x")] if rng.random() < 0.3 else ())
        plain += rng.randbytes(rng.choice((0, 1, 15, 16, 17, 1000)))
        control = rtcp.build_pli(ssrc, 9) + rng.randbytes(rng.choice((0, 4, 40)))
        _expect(relay, twin, "protect_rtp", plain)
        _expect(relay, twin, "protect_rtcp", control)
        for call, sealed in (
            ("unprotect_rtp", peer.protect_rtp(plain)),
            ("unprotect_rtcp", peer.protect_rtcp(control)),
        ):
            if sealed is not None:
                sealed_before.append((call, sealed))
        if sealed_before:
            call, packet = sealed_before.pop(rng.randrange(len(sealed_before)))
            if rng.random() < 0.3:
                sealed_before.append((call, packet))
            harm = rng.random()
            if harm < 0.15:
                at = rng.randrange(len(packet))
                packet = packet[:at] + bytes((packet[at] ^ 1 << rng.randrange(8),)) + packet[at + 1 :]
            elif harm < 0.3:
                packet = packet[: rng.randrange(len(packet))]
            _expect(relay, twin, call, packet)


def test_ssrcs_are_bounded_alike() -> None:
    for profile in PROFILES:
        relay, twin = _protections(profile)
        peer = srtp.Srtp(profile, _key(profile, 100), _key(profile, 0))
        for ssrc in (*range(srtp.MAX_STREAMS + 3), 0, 1):
            plain, control = rtp.build_header(96, False, 1, 7, ssrc) + b"x", rtcp.build_pli(ssrc, 9)
            for call, sealed in (
                ("unprotect_rtcp", peer.protect_rtcp(control))
                if ssrc % 2
                else ("unprotect_rtp", peer.protect_rtp(plain)),
                ("unprotect_rtp", b"\x80" + bytes(10)),
                ("unprotect_rtcp", b"\x80" + bytes(6)),
            ):
                assert sealed is not None
                _expect(relay, twin, call, sealed)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(PROFILES),
    st.sampled_from(("protect_rtp", "unprotect_rtp", "protect_rtcp", "unprotect_rtcp")),
    st.one_of(st.binary(max_size=100), rtp_datagrams(), st.integers(1340, 1510).map(lambda n: b"\x80" + bytes(n - 1))),
)
def test_any_packet_is_protected_or_refused_alike(profile: SrtpProfile, call: str, packet: bytes) -> None:
    ours, theirs = _protections(profile)
    _expect(ours, theirs, call, packet)
    ours.close()
    theirs.close()
    _expect(ours, theirs, call, packet)


def _stun_parts(parsed: stun.BindingRequest | stun.StunMessage | stun.Drop) -> Any:
    if isinstance(parsed, stun.Drop):
        return parsed.name.title().replace("_", "")
    if isinstance(parsed, stun.StunMessage):
        return (parsed.kind, parsed.transaction_id)
    return (
        parsed.transaction_id,
        (parsed.username, parsed.local_ufrag, parsed.remote_ufrag),
        (parsed.priority, parsed.use_candidate, parsed.controlling, parsed.controlled),
        (parsed.integrity_at, parsed.fingerprint, list(parsed.unknown)),
        (stun.refusal_before_integrity(parsed), stun.refusal_after_integrity(parsed)),
    )


ATTRIBUTE = st.tuples(
    st.sampled_from((0x0006, 0x0008, 0x0024, 0x0025, 0x8028, 0x8029, 0x802A, 0x7FFF, 0x0001, 0x9999)),
    st.sampled_from((0, 1, 4, 8, 20)).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=12, max_size=12), st.lists(ATTRIBUTE, max_size=8), st.sampled_from(("a:b", "", "a", "é:b")))
def test_stun_is_read_alike(transaction: bytes, attributes: list[tuple[int, bytes]], username: str) -> None:
    extra = b"".join(
        kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    good = stun.binding_request(transaction, username, b"secret", extra=extra, use_candidate=True)
    bare = b"\0\1" + len(extra).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + transaction + extra
    for datagram in (good, bare, good[:-4], bare[:3] + b"\1" + bare[4:]):
        parsed = stun.parse(datagram)
        assert native.parse_stun(datagram) == _stun_parts(parsed)
        for password in (b"secret", b"other"):
            verified = isinstance(parsed, stun.BindingRequest) and stun.verify_integrity(datagram, parsed, password)
            assert native.verify_stun(datagram, password) == verified


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_datagram_is_stun_alike(datagram: bytes) -> None:
    for each in (datagram, b"\0\1\0" + datagram[:1] + b"\x21\x12\xa4\x42" + datagram):
        assert native.parse_stun(each) == _stun_parts(stun.parse(each))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(min_size=12, max_size=12),
    st.ip_addresses().map(str),
    U16,
    st.sampled_from((300, 400, 401, 420, 487, 500, 699)),
    st.lists(U16, max_size=16),
)
def test_stun_is_answered_alike(transaction: bytes, host: str, port: int, code: int, unknown: list[int]) -> None:
    for each in (host, "::ffff:192.0.2.1"):
        expected = stun.binding_success(transaction, each, port, b"pw")
        assert native.stun_success(transaction, each, port, b"pw") == expected
    for password in (None, b"pw"):
        expected = stun.binding_error(transaction, code, password, unknown)
        assert native.stun_error(transaction, code, password, unknown) == expected


def test_integrity_is_hmac_sha1() -> None:
    answer = native.stun_success(bytes(12), "192.0.2.1", 9, b"pw")
    signed = answer[:2] + (32 - 20 + 24).to_bytes(2, "big") + answer[4:32]
    assert answer[36:56] == hmac.digest(b"pw", signed, hashlib.sha1)


def _flat(packet: rtcp.Packet) -> tuple[Any, ...]:
    name = type(packet).__name__
    match packet:
        case rtcp.SenderReport(ssrc, ntp, rtp_timestamp, packets, octets, reports):
            return name, (ssrc, ntp, rtp_timestamp, packets, octets), [dataclasses.astuple(r) for r in reports]
        case rtcp.ReceiverReport(ssrc, reports):
            return name, ssrc, [dataclasses.astuple(r) for r in reports]
        case _:
            fields = [getattr(packet, field.name) for field in dataclasses.fields(packet)]
            return name, *[list(f) if isinstance(f, tuple) else f for f in fields]


@st.composite
def rtcp_packets(draw: st.DrawFn) -> bytes:
    """A header that fits its body: any body of any kind."""
    body = draw(
        st.one_of(st.binary(max_size=60), st.binary(min_size=8, max_size=8).map(lambda b: b + b"REMB\1\xff\1\2" * 2))
    )
    body += bytes(-len(body) % 4)
    kind = draw(st.sampled_from((200, 201, 202, 203, 204, 205, 205, 206, 206)))
    count = draw(st.sampled_from((0, 1, 1, 2, 4, 15)))
    padding = draw(st.sampled_from((0, 0, 0, 0x20)))
    return bytes((0x80 | padding | count, kind)) + (len(body) // 4).to_bytes(2, "big") + body


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.lists(rtcp_packets(), max_size=4).map(b"".join)))
@example(rtcp.build_sdes(1, "näme") * 3)
@example(rtcp.build_pli(1, 2) * 65)
@example(rtcp.build_nack(1, 2, range(0, 40_000, 17)))
def test_rtcp_is_read_alike(data: bytes) -> None:
    ours = rtcp.parse(data)
    packets, skipped, error = native.parse_rtcp(data)
    assert packets == [_flat(packet) for packet in ours.packets]
    assert (skipped, error) == (ours.skipped, ours.error)


BLOCK = st.tuples(U32, st.integers(0, 255), st.integers(-(1 << 24), 1 << 24), U32, U32, U32, U32)


@settings(max_examples=100, deadline=None)
@given(
    U32,
    st.one_of(st.none(), st.tuples(st.integers(0, (1 << 64) - 1), U32, U32, U32)),
    st.lists(BLOCK, max_size=31),
    st.text(max_size=40),
)
def test_reports_are_built_alike(ssrc: int, info: tuple[int, ...] | None, blocks: list[Any], cname: str) -> None:
    reports = tuple(rtcp.ReportBlock(*block) for block in blocks)
    head = rtcp.build_rr(ssrc, reports) if info is None else rtcp.build_sr(rtcp.SenderReport(ssrc, *info, reports))
    expected = head + rtcp.build_sdes(ssrc, cname) + rtcp.build_bye((ssrc, ssrc ^ 1))
    assert native.build_report(ssrc, info, blocks, cname) == expected


@settings(max_examples=150, deadline=None)
@given(U32, U32, st.lists(NEAR16, max_size=60), st.integers(0, (1 << 63) - 1), st.binary(max_size=20), st.booleans())
def test_feedback_is_built_alike(
    sender: int, media: int, lost: list[int], bitrate: int, fci: bytes, ordered: bool
) -> None:
    if ordered:
        lost.sort()
    expected = rtcp.build_nack(sender, media, lost) + rtcp.build_pli(sender, media)
    expected += rtcp.build_fir(sender, ((media, 7),)) + rtcp.build_remb(sender, bitrate, (media, sender))
    expected += rtcp.build_transport_cc(sender, media, fci)
    assert native.build_feedback(sender, media, lost, 7, bitrate, fci) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**15), 3 * 10**15), U32, U32, st.integers(0, (1 << 64) - 1))
def test_ntp_and_round_trips_are_alike(wall: int, lsr: int, dlsr: int, now_ntp: int) -> None:
    ntp = rtcp.ntp_from_wall_us(wall)
    assert native.ntp(wall) == (ntp, rtcp.wall_us_from_ntp(ntp), rtcp.ntp_middle(ntp))
    middle = rtcp.ntp_middle(now_ntp)
    for last in (lsr, middle, (middle - dlsr % 100_000) & 0xFFFFFFFF):
        for delay in (dlsr, 0, dlsr % 100_000):
            assert native.rtt_us(now_ntp, last, delay) == rtcp.rtt_us(now_ntp, last, delay)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda b: b"\0\1\0\x09\0\0\1\2" + b)))
def test_transport_feedback_is_read_alike(fci: bytes) -> None:
    ours = transport_cc.parse_feedback(fci)
    assert native.parse_transport_cc(fci) == (None if ours is None else (ours.count, ours.reference_us, ours.packets))


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_arrivals_are_reported_alike(seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = transport_cc.Recorder(), native.Recorder()
    seq, now = rng.randrange(1 << 16), rng.randrange(1 << 40)
    for _ in range(rng.randrange(1500)):
        seq = (seq + rng.choice((1, 1, 1, 1, 1, 2, -2, 15, 20, -1500, 9000 if rng.random() < 0.02 else 1))) & 0xFFFF
        now += rng.choice((0, 100, 250, 5_000, 70_000, 9_000_000 if rng.random() < 0.02 else 0))
        ours.record(seq, now)
        assert theirs.record(seq, now) == ours.pending
        if rng.random() < 0.02:
            assert theirs.feedback(1, 2) == ours.feedback(now, 1, 2)
    assert theirs.feedback(1, 2) == ours.feedback(now, 1, 2)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_losses_are_detected_alike(seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = LossDetector(90_000), native.LossDetector(90_000)
    seq, now = rng.randrange(1 << 16), rng.randrange(1 << 40)
    for _ in range(rng.randrange(600)):
        now += rng.choice((0, 0, 300, 5_000, 25_000, 200_000))
        seq = (seq + rng.choice((1, 1, 1, 1, 1, 2, 3, 4, -1, -2, 0, 30, 900, 1001, -1000, -1001))) & 0xFFFF
        action = rng.randrange(20)
        if action == 0:
            ours.keyframe(seq)
            theirs.keyframe(seq)
        elif action == 1:
            report = ours.report()
            assert theirs.report() == dataclasses.astuple(report)
        elif action < 4:
            assert theirs.recovered(seq) == int(ours.recovered(seq))
        elif action < 9:
            assert theirs.due(now, 50_000) == ours.due(now, 50_000)
        else:
            timestamp = rng.choice((None, rng.randrange(1 << 32), now * 9 // 100 & 0xFFFFFFFF))
            expected = ours.received(seq, now, -1 if timestamp is None else timestamp)
            assert theirs.received(seq, now, timestamp) == int(expected)
        counts = (ours.highest, ours.duplicates, ours.recovered_count, ours.given_up)
        assert theirs.state() == (ours.next_timeout(), ours.missing, *counts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=2), st.sampled_from((0, 20_000, 99_999, 400_000, 10**7))), max_size=80))
def test_loudness_and_rate_are_alike(steps: list[tuple[bytes, int]]) -> None:
    ours, theirs = Loudness(), native.Loudness()
    our_rate, their_rate = Rate(), native.Rate()
    now = 0
    for extension, passed in steps:
        now += passed
        level = parse_audio_level(extension)
        if level is not None:
            ours.add(level.level, level.voice, now)
        theirs.add(extension, now)
        our_rate.add(passed % 1500, now)
        assert their_rate.add(passed % 1500, now) == our_rate.value(now)
        later = now + passed // 2
        assert theirs.value(later) == ours.value(later)
        assert their_rate.value(later) == our_rate.value(later)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_bandwidth_is_estimated_alike(seed: int) -> None:
    """A path with a queue, jitter, loss and reordered reports; the estimate agrees after every step."""
    rng = random.Random(seed)
    ours, theirs = BandwidthEstimator(600_000, 5_000_000, 50_000), native.BandwidthEstimator(600_000, 5_000_000, 50_000)
    recorder = transport_cc.Recorder()
    capacity, loss = rng.choice((300_000, 2_000_000, 50_000_000)), rng.choice((0.0, 0.01, 0.2))
    now, seq, free = rng.randrange(1 << 40), rng.randrange(1 << 16), 0
    for _ in range(rng.randrange(100, 700)):
        now += rng.choice((0, 1_000, 5_000, 20_000, 3_000_000 if rng.random() < 0.01 else 6_000))
        seq, size = (seq + 1) & 0xFFFF, rng.randrange(50, 1200)
        _both(ours, theirs, "on_sent", seq, size, now)
        if rng.random() >= loss:
            free = max(free, now) + size * 8_000_000 // capacity
            recorder.record(seq, free + rng.randrange(3_000))
        event = rng.randrange(60)
        if event < 6:
            for packet in recorder.feedback(now, 1, 2):
                read = transport_cc.parse_feedback(packet[12:])
                assert read is not None
                ours.on_feedback(read, now)
                theirs.on_feedback(packet[12:], now)
        elif event == 6:
            _both(ours, theirs, "on_receiver_report", rng.randrange(80), now)
        elif event == 7:
            _both(ours, theirs, "on_remb", rng.choice((100_000, 10**7, (1 << 63) - 1)), now)
        elif event == 8:
            _both(ours, theirs, "on_rtt", rng.randrange(3_000_000))
        elif event == 9:
            wanted = ours.probe_wanted(4_000_000, now)
            assert theirs.probe_wanted(4_000_000, now) == wanted
            if wanted:
                _both(ours, theirs, "on_probe_started", wanted, now)
        elif event < 13:
            ours.on_probe_ended()
            theirs.on_probe_ended()
        assert theirs.state() == (ours.bitrate, ours.loss_permil, ours.probe_result)


def _both(ours: BandwidthEstimator, theirs: Any, call: str, *args: int) -> None:
    getattr(ours, call)(*args)
    getattr(theirs, call)(*args)

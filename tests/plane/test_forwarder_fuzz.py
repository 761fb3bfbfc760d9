"""Nothing that a peer sends raises, and every datagram is either handled or counted by its reason."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.plane.reference import rtcp, rtp, stun
from tests.plane.peers import Publisher, Viewer
from tests.plane.world import MS, World

STRANGER = ("192.0.2.9", 9)
FIRST_BYTES = (0, 1, 3, 19, 20, 22, 63, 64, 127, 128, 144, 176, 191, 192, 255)


def settled() -> tuple[World, Publisher, Viewer, int]:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(100 * MS)
    return world, publisher, viewer, slot


def still_works(world: World, viewer: Viewer, slot: int) -> None:
    world.run(200 * MS)
    assert viewer.got(slot)[-1].at > world.now - 50 * MS
    world.check_conservation()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIRST_BYTES), st.binary(max_size=80), st.booleans()), max_size=20))
@example([(128, bytes(12), True), (128, b"\xc8" + bytes(12), True), (0, b"", False)])
def test_any_datagram_from_anyone(datagrams: list[tuple[int, bytes, bool]]) -> None:
    world, _, viewer, slot = settled()
    for first, rest, member in datagrams:
        world.receive(bytes((first,)) + rest, viewer.address if member else STRANGER)
    still_works(world, viewer, slot)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((96, 97, 98)),
            st.integers(0, 65535),
            st.sampled_from(((), ((4, b"1"),), ((4, b"1"), (3, b"\x01")), ((3, b"\x00\x01"), (13, b"")))),
            st.binary(max_size=60),
        ),
        max_size=20,
    )
)
@example([(97, 1, ((4, b"1"),), b"\x00"), (97, 2, ((4, b"1"),), b"\x00\x01")])
@example([(96, 65535, ((4, b"1"),), b"\x90\xff")])
def test_any_rtp_of_a_member(packets: list[tuple[int, int, tuple[tuple[int, bytes], ...], bytes]]) -> None:
    world, publisher, viewer, slot = settled()
    for payload_type, seq, elements, payload in packets:
        header = rtp.build_header(payload_type, False, seq, 7, 99 + payload_type, elements)
        sealed = publisher.srtp.protect_rtp(header + payload)
        if sealed is not None:
            world.receive(sealed, publisher.address)
    world.run(100 * MS)
    world.check_conservation()
    assert slot in world.plane.stats().slots
    assert viewer.refused == 0


@settings(max_examples=80, deadline=None)
@given(st.integers(192, 223), st.integers(0, 31), st.binary(min_size=4, max_size=120), st.booleans())
@example(205, 15, bytes(4) + b"\0\0\0\1\0\0\xff\xff\0\0\0\0\x3f\xff\0\0", True)
@example(206, 15, bytes(8) + b"REMB\x01\xff\xff\xff" + bytes(4), True)
def test_any_rtcp_of_a_member(kind: int, count: int, body: bytes, from_viewer: bool) -> None:
    world, publisher, viewer, slot = settled()
    peer = viewer if from_viewer else publisher
    body = body[: len(body) & ~3]
    sealed = peer.srtp.protect_rtcp(bytes((0x80 | count, kind)) + (len(body) // 4).to_bytes(2, "big") + body)
    if sealed is not None:
        world.receive(sealed, peer.address)
    still_works(world, viewer, slot)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(1, 255), st.integers(0, 120))
def test_mutated_and_truncated_checks_never_select_an_address(at: int, flip: int, cut: int) -> None:
    world = World()
    peer = Viewer(world)
    check = bytearray(stun.binding_request(b"z" * 12, f"{peer.ufrag}:x", peer.password.encode(), use_candidate=True))
    whole = bytes(check)
    # The last 8 bytes are FINGERPRINT, which integrity does not cover: without it the check is still authentic.
    check[at % (len(check) - 8)] ^= flip
    world.receive(bytes(check[: max(1, len(check) - cut)]), STRANGER)
    assert world.plane.stats().sessions[peer.session].address == peer.address
    world.receive(whole, STRANGER)
    assert world.plane.stats().sessions[peer.session].address == STRANGER


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(("nack", "pli", "fir", "remb", "sr", "bye")), max_size=6), st.integers(0, 2**32 - 1))
def test_feedback_about_foreign_ssrcs_has_no_effect(kinds: list[str], ssrc: int) -> None:
    world, publisher, viewer, slot = settled()
    known = set(viewer.ssrc_of.values()) | set(viewer.rtx_of) | set(publisher.streams)
    if ssrc in known:
        return
    build = {
        "nack": rtcp.build_nack(1, ssrc, range(100)),
        "pli": rtcp.build_pli(1, ssrc),
        "fir": rtcp.build_fir(1, [(ssrc, 1)]),
        "remb": rtcp.build_remb(1, 1, [ssrc]),
        "sr": rtcp.build_sr(rtcp.SenderReport(ssrc, 1 << 40, 1, 1, 1)),
        "bye": rtcp.build_bye([ssrc]),
    }
    asked = sum(stream.plis for stream in publisher.streams.values())
    for kind in kinds:
        publisher.send_rtcp(build[kind])
        viewer.send_rtcp(build[kind])
    still_works(world, viewer, slot)
    assert sum(stream.plis for stream in publisher.streams.values()) == asked
    assert world.plane.stats().slots[slot].nacks == 0

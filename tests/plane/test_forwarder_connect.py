"""Who is let in: connectivity checks, proved addresses, the gate to DTLS and SRTP, closing."""

from __future__ import annotations

import pytest

from relay.errors import UsageError
from relay.plane.contract import (
    AddressSelected,
    AddSlot,
    AddTap,
    AddTrack,
    BindSlot,
    CloseSession,
    DtlsReceived,
    Feedback,
    IceRestarted,
    Kind,
    LayerSpec,
    MuteTrack,
    OpenSession,
    PauseSlot,
    PlaneConfig,
    RemoveSlot,
    RemoveTap,
    RemoveTrack,
    RestartIce,
    SendDtls,
    SetKeys,
    SetLayer,
)
from relay.plane.reference import rtcp, stun
from relay.plane.reference.forwarder import Forwarder
from tests.plane.peers import Publisher, Viewer
from tests.plane.world import ALL_FEEDBACK, MS, OPUS, SECOND, VP8, World

STRANGER = ("192.0.2.66", 6666)
ROAMED = ("198.51.100.7", 50_000)


def test_check_then_dtls_then_keys_then_media() -> None:
    world = World()
    viewer = Viewer(world, connect=False)
    publisher = Publisher(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(500 * MS)
    assert viewer.got(slot) == []
    viewer.send(b"\x16\xfe\xfdearly")  # before the check: a stranger
    world.run(20 * MS)
    assert world.of(DtlsReceived) == []
    viewer.check()
    world.run(20 * MS)
    assert len(viewer.answers) == 1
    assert AddressSelected(viewer.session, viewer.address) in world.events
    viewer.send(b"\x16\xfe\xfdhello")
    world.run(20 * MS)
    assert world.of(DtlsReceived) == [DtlsReceived(viewer.session, b"\x16\xfe\xfdhello")]
    world.apply(SendDtls(viewer.session, b"\x16\xfe\xfdanswer"))
    world.run(20 * MS)
    assert viewer.dtls == [b"\x16\xfe\xfdanswer"]
    before = stream.plis
    world.apply(viewer.set_keys)
    world.run(500 * MS)
    assert stream.plis == before + 1  # the viewer became reachable in the middle of a group of pictures
    assert viewer.got(slot)[0].payload[6] & 1 == 0
    assert world.plane.stats().drops == {"dtls_stranger": 1}
    assert world.strays == []
    world.check_conservation()


def test_answer_names_the_source_and_is_sealed_with_the_password() -> None:
    world = World()
    viewer = Viewer(world, connect=False)
    viewer.check()
    world.run(20 * MS)
    expected = stun.binding_success((1).to_bytes(12, "big"), *viewer.address, viewer.password.encode())
    assert viewer.answers == [expected]
    assert world.plane.stats().sessions[viewer.session].last_consent == world.now - 15 * MS


def test_strangers_get_no_answer_and_reach_nothing() -> None:
    world = World()
    viewer = Viewer(world)
    password = viewer.password.encode()
    check = stun.binding_request(b"t" * 12, f"{viewer.ufrag}:x", password)
    datagrams = [
        (b"", "empty"),
        (bytes(1501), "oversize"),
        (b"\x16" + bytes(1500), "oversize"),
        (stun.binding_request(b"t" * 12, f"{viewer.ufrag}:x", b"guess"), "stun_wrong_integrity"),
        (stun.binding_request(b"t" * 12, "nobody:x", password), "stun_unknown_user"),
        (check[:50], "stun_malformed"),
        (b"\x01\x01" + check[2:20] + bytes(0), "stun_malformed"),
        (b"\x00\x11\x00\x00" + check[4:20], "stun_not_a_request"),
        (b"\x00\x01\x00\x00" + check[4:20], "stun_unauthenticated"),
        (b"\x16\xfe\xfd" + bytes(50), "dtls_stranger"),
        (b"\x80\x60" + bytes(50), "srtp_stranger"),
        (b"\x80\xc8" + bytes(50), "srtp_stranger"),
        (b"\xff" * 20, "unknown_protocol"),
        (b"\x05", "unknown_protocol"),
    ]
    world.events.clear()
    for datagram, reason in datagrams:
        before = world.plane.stats().drops.get(reason, 0)
        world.receive(datagram, STRANGER)
        assert world.plane.stats().drops[reason] == before + 1, reason
    world.run(SECOND)
    assert world.strays == []
    assert world.events == []
    world.check_conservation()


def test_member_without_keys_or_with_garbage_loses_only_its_packets() -> None:
    world = World()
    peer = Viewer(world, connect=False)
    peer.check()
    world.run(20 * MS)
    world.receive(b"\x80\x60" + bytes(50), peer.address)
    world.receive(b"\x80\xc8" + bytes(50), peer.address)
    world.apply(peer.set_keys)
    world.receive(b"\x80", peer.address)
    world.receive(b"\x80\x60" + bytes(50), peer.address)
    world.receive(b"\x80\xc8" + bytes(50), peer.address)
    drops = world.plane.stats().drops
    assert drops["srtp_no_keys"] == 2
    assert drops["srtp_short"] == 1
    assert sum(drops.values()) == 5
    world.check_conservation()


def test_role_conflict_and_unknown_attribute_are_answered_to_members_only() -> None:
    world = World()
    peer = Viewer(world)
    name, password = f"{peer.ufrag}:x", peer.password.encode()
    peer.answers.clear()
    for datagram in (
        stun.binding_request(b"a" * 12, name, password, controlled=True),
        stun.binding_request(b"b" * 12, name, password, extra=b"\x7f\xff\x00\x00"),
    ):
        world.receive(datagram, peer.address)
    world.run(20 * MS)
    assert [answer[:2] for answer in peer.answers] == [b"\x01\x11", b"\x01\x11"]


def test_first_address_wins_until_nominated_or_silent() -> None:
    world = World()
    peer = Viewer(world)
    first = peer.address
    peer.check(source=ROAMED)
    world.run(100 * MS)
    assert world.plane.stats().sessions[peer.session].address == first
    peer.check(source=ROAMED, nominate=True)
    world.run(100 * MS)
    assert world.plane.stats().sessions[peer.session].address == ROAMED
    world.run(3 * SECOND)
    peer.check(source=first)  # not nominated, but the selected one has been silent for 3 s
    world.run(100 * MS)
    assert world.plane.stats().sessions[peer.session].address == first
    assert [event.address for event in world.of(AddressSelected)] == [first, ROAMED, first]


def test_nat_rebinding_moves_the_media_without_a_new_keyframe() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(SECOND)
    count, keyframes = len(viewer.got(slot)), world.plane.stats().tracks[stream.track][0].keyframes
    viewer.move_to(ROAMED)
    world.run(3 * SECOND)
    assert len(viewer.got(slot)) <= count + 5
    viewer.check()
    world.run(SECOND)
    assert len(viewer.got(slot)) >= count + 25
    assert world.plane.stats().tracks[stream.track][0].keyframes == keyframes


def test_publisher_that_roams_goes_on_publishing() -> None:
    world = World()
    publisher, viewer = Publisher(world), Viewer(world)
    stream = publisher.video()[0].start()
    slot = viewer.watch(stream)
    world.run(SECOND)
    publisher.move_to(ROAMED)
    world.run(100 * MS)
    assert world.plane.stats().drops["srtp_stranger"] > 0
    publisher.check(nominate=True)
    world.run(SECOND)
    assert viewer.got(slot)[-1].at > world.now - 100 * MS
    world.check_conservation()


def test_addresses_are_bounded_and_the_selected_one_stays() -> None:
    world = World(max_addresses=3)
    peer = Viewer(world)
    for port in range(20):
        peer.check(source=("203.0.113.5", 1000 + port))
        world.run(10 * MS)
    assert world.plane.table_sizes()["addresses"] == 3
    assert world.plane.stats().sessions[peer.session].address == peer.address


def test_single_address_limit_lets_the_newest_in() -> None:
    world = World(max_addresses=1)
    peer = Viewer(world)
    peer.check(source=ROAMED)
    world.run(10 * MS)
    assert world.plane.table_sizes()["addresses"] == 1
    assert world.plane.stats().sessions[peer.session].address == ROAMED


def test_address_that_another_session_proves_moves_there() -> None:
    world = World()
    first, second = Viewer(world), Viewer(world)
    second.check(source=first.address, nominate=True)
    world.run(20 * MS)
    stats = world.plane.stats()
    assert stats.sessions[second.session].address == first.address
    assert stats.sessions[first.session].address is None
    world.receive(b"\x16\xfe\xfdx", first.address)
    assert world.events[-1] == DtlsReceived(second.session, b"\x16\xfe\xfdx")
    world.apply(SendDtls(first.session, b"\x16"))
    assert world.plane.stats().drops["out_no_address"] == 1
    first.check(source=ROAMED)
    world.run(20 * MS)
    assert world.plane.stats().sessions[first.session].address == ROAMED


def test_ice_restart_keeps_the_old_credentials_until_the_new_ones_are_used() -> None:
    world = World()
    peer = Viewer(world)
    old = (peer.ufrag, peer.password)
    world.apply(RestartIce(peer.session, "lost", "password-that-nobody-saw"))
    world.apply(RestartIce(peer.session, "fresh", "password-after-restart"))
    peer.check()
    world.run(20 * MS)
    assert world.of(IceRestarted) == []
    peer.ufrag, peer.password = "fresh", "password-after-restart"
    peer.check(nominate=True, source=ROAMED)
    world.run(20 * MS)
    assert world.of(IceRestarted) == [IceRestarted(peer.session)]
    assert world.plane.stats().sessions[peer.session].address == ROAMED
    peer.ufrag, peer.password = old
    peer.check()
    world.run(20 * MS)
    assert world.plane.stats().drops == {"stun_unknown_user": 1}
    assert world.plane.table_sizes()["ufrags"] == 1


def test_closing_frees_every_table_and_says_goodbye() -> None:
    world = World()
    empty = world.plane.table_sizes()
    publisher, viewer = Publisher(world), Viewer(world)
    audio, video = publisher.audio().start(), publisher.video(rids=("q", "h"))
    for stream in video:
        stream.start()
    slots = [viewer.watch(audio), viewer.watch(video[0])]
    world.apply(AddTap(77, video[0].track, 1), RestartIce(viewer.session, "again", "and-again-and-again-and"))
    publisher.up.loss = 0.1
    world.run(3 * SECOND)
    publisher.up.loss = 0.0
    world.apply(CloseSession(publisher.session))
    world.run(SECOND)
    assert world.plane.stats().slots[slots[0]].track == -1
    world.apply(CloseSession(viewer.session))
    world.run(SECOND)
    assert set(viewer.control_of(rtcp.Bye)[0].ssrcs) == {viewer.ssrc_of[slot] for slot in slots}
    assert world.plane.table_sizes() == empty
    assert world.plane.next_timeout() is None
    assert set(empty.values()) == {0}
    world.check_conservation()


def wrong_commands(world: World) -> list[object]:
    peer = Publisher(world)
    audio, video = peer.audio(), peer.video()[0]
    slot = peer_slot = 900
    kinds = (OPUS,)
    world.apply(AddSlot(slot, peer.session, Kind.AUDIO, "9", 99, None, kinds, Feedback(), "c"))
    layers = (LayerSpec(),)
    return [
        OpenSession(peer.session, "other", "p"),
        OpenSession(901, peer.ufrag, "p"),
        OpenSession(901, "", "p"),
        OpenSession(1 << 32, "other", "p"),
        peer.set_keys,
        SetKeys(12345, peer.set_keys.profile, b"", b""),
        RestartIce(peer.session, peer.ufrag, "p"),
        CloseSession(12345),
        SendDtls(12345, b"x"),
        AddTrack(audio.track, peer.session, Kind.AUDIO, "7", kinds, layers),
        AddTrack(902, 12345, Kind.AUDIO, "7", kinds, layers),
        AddTrack(902, peer.session, Kind.AUDIO, audio.mid, kinds, layers),
        AddTrack(902, peer.session, Kind.AUDIO, "7", kinds, ()),
        AddTrack(902, peer.session, Kind.VIDEO, "7", (VP8,), (LayerSpec("a", 5, 6), LayerSpec("b", 6, 7))),
        RemoveTrack(12345),
        MuteTrack(12345, True),
        AddSlot(peer_slot, peer.session, Kind.AUDIO, "9", 100, None, kinds, Feedback(), "c"),
        AddSlot(903, peer.session, Kind.AUDIO, "9", 99, None, kinds, Feedback(), "c"),
        AddSlot(903, peer.session, Kind.VIDEO, "9", 100, 100, (VP8,), ALL_FEEDBACK, "c"),
        AddSlot(903, peer.session, Kind.VIDEO, "mid-that-is-far-too-long", 100, None, (VP8,), ALL_FEEDBACK, "c"),
        BindSlot(slot, 12345),
        BindSlot(12345, audio.track),
        BindSlot(slot, video.track),
        BindSlot(slot, audio.track, 1),
        BindSlot(slot, audio.track, 0, 96),
        SetLayer(slot, 0),
        PauseSlot(12345, True),
        RemoveSlot(12345),
        AddTap(904, 12345, 0),
        AddTap(904, audio.track, 1),
        RemoveTap(12345),
    ]


def test_wrong_commands_are_refused_and_change_nothing() -> None:
    world = World()
    commands = wrong_commands(world)
    before = world.plane.table_sizes()
    for command in commands:
        with pytest.raises(UsageError):
            world.apply(command)
        assert world.plane.table_sizes() == before, command


@pytest.mark.parametrize(
    "wrong",
    [
        {"keyframe_interval_us": 0},
        {"report_interval_us": -1},
        {"max_addresses": 0},
        {"estimate_min": 2_000_000},
        {"history_video": 1000},
        {"history_audio": 0},
    ],
)
def test_wrong_configuration_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Forwarder(PlaneConfig(**wrong))

"""The live room: documents, tracks and viewers in; commands for the plane and events out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import BadRequest, Conflict, CorruptDocument, NotFound, RequestError, UsageError
from relay.plane.contract import (
    BindSlot,
    Command,
    Kind,
    MuteTrack,
    PauseSlot,
    PayloadType,
    ProbeBandwidth,
    SetLayer,
)
from relay.stage import publications, room, seats
from relay.stage.document import RoomState
from relay.stage.live import LiveRoom
from relay.stage.live_model import SlotBound, SlotSpec, SpeakerChanged
from relay.stage.permissions import Actor, Role
from tests.stage.rooms import GUEST, MODERATOR, OTHER, OWNER, VIEWER, new_room, publish

VP8 = PayloadType(96, "vp8", 90_000)
H264 = PayloadType(102, "h264", 90_000, profile="42e01f/1")
OPUS = PayloadType(111, "opus", 48_000)


def choose(slot: tuple[PayloadType, ...], track: PayloadType) -> int | None:
    return next((each.number for each in slot if (each.codec, each.profile) == (track.codec, track.profile)), None)


def specs(*kinds: str, first: int = 100, codecs: tuple[PayloadType, ...] = (VP8,)) -> list[SlotSpec]:
    return [
        SlotSpec(first + n, n, str(n), Kind(kind), codecs if kind == "video" else (OPUS,))
        for n, kind in enumerate(kinds)
    ]


class Node:
    """A live room with hosts whose tracks get handles from 1 on: video odd, audio even, in the order they came."""

    def __init__(self, *hosts: Actor, **options: Any) -> None:
        self.live = LiveRoom(choose)
        self.state: RoomState = new_room(**options)
        self.now = 0.0
        for number, host in enumerate(hosts):
            self.host(host, 1 + 2 * number)
        self.live.commands()

    def host(self, actor: Actor, track: int, codec: PayloadType = VP8) -> None:
        self.state, _ = publish(self.state, actor, self.now, codec=codec.codec)
        self.state, _ = publish(self.state, actor, self.now, kind="audio", source="microphone")
        self.live.publication_local(f"{actor.identity}-video", track, Kind.VIDEO, ("q", "h", "f"), codec, self.now)
        self.live.publication_local(f"{actor.identity}-audio", track + 1, Kind.AUDIO, (), OPUS, self.now)
        for layer in range(3):
            self.live.on_layer_started(track, layer, self.now)
        self.live.on_layer_rates({track: [150_000, 500_000, 1_500_000]})
        self.update()

    def update(self, change: tuple[RoomState, Any] | None = None) -> list[Command]:
        if change is not None:
            self.state = change[0]
        self.live.update(self.state.to_json(), self.now)
        return self.live.commands()

    def watch(self, *kinds: str, actor: Actor = VIEWER, session: int = 7, **more: Any) -> list[Command]:
        self.live.add_viewer_session(
            session, f"w{session}", actor.identity, actor.role, specs(*kinds, **more), self.now
        )
        return self.live.commands()

    def speak(self, seconds: float, **levels: int) -> list[Command]:
        tracks = {"gus": 2, "greta": 4, "olga": 6}
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.live.on_loudness([(tracks[name], level) for name, level in levels.items()], self.now)
        return self.live.commands()

    def shown(self, session: int = 7) -> list[str | None]:
        return [slot["publication"] for slot in self.live.view(session)]


def test_a_viewer_gets_everybody_in_join_order() -> None:
    node = Node(GUEST, OTHER)
    commands = node.watch("video", "video", "audio", "audio", "video")
    assert commands == [
        BindSlot(100, 1, 1, 96),
        BindSlot(101, 3, 0, 96),
        BindSlot(102, 2, 0, 111),
        BindSlot(103, 4, 0, 111),
    ]
    assert node.shown() == ["gus-video", "greta-video", "gus-audio", "greta-audio", None]
    assert node.live.viewers == 1


def test_hosts_do_not_see_themselves() -> None:
    node = Node(GUEST, OTHER)
    node.watch("video", "audio", "video", actor=GUEST)
    assert node.shown() == ["greta-video", "greta-audio", None]


def test_one_slot_follows_the_active_speaker() -> None:
    node = Node(GUEST, OTHER)
    node.watch("video", "audio")
    node.speak(2.0, gus=95, greta=10)
    assert node.shown() == ["gus-video", "gus-audio"]
    commands = node.speak(2.0, gus=10, greta=95)
    assert BindSlot(101, 4, 0, 111) in commands
    assert any(isinstance(each, BindSlot) and (each.slot, each.track) == (100, 3) for each in commands)
    assert node.live.speaker == "greta"
    assert node.live.events() == [SpeakerChanged("gus"), SpeakerChanged("greta")]
    node.speak(5.0, gus=10, greta=10)
    assert node.shown() == ["greta-video", "greta-audio"]


def test_muted_and_backstage_voices_are_nobodys() -> None:
    node = Node(GUEST, OTHER)
    node.update(room.mute(node.state, GUEST, "gus", audio=True))
    node.speak(2.0, gus=95)
    assert node.live.speaker is None
    node.update(seats.set_seat(node.state, OTHER, "greta", "backstage", 1.0))
    node.speak(2.0, greta=95)
    assert node.live.speaker is None


def test_the_speaker_stays_over_changes_of_the_document_and_goes_with_the_seat() -> None:
    node = Node(GUEST, OTHER)
    node.speak(2.0, gus=95)
    node.live.events()
    node.update(room.mute(node.state, OTHER, "greta", audio=True))
    assert node.live.speaker == "gus"
    node.update(room.leave_seat(node.state, GUEST, "gus", 1.0))
    assert node.live.events() == [SpeakerChanged(None)]


def test_a_seat_lost_takes_the_picture_and_one_gained_brings_it() -> None:
    node = Node(GUEST)
    node.watch("video", "audio")
    commands = node.update(seats.set_seat(node.state, GUEST, "gus", "backstage", 1.0))
    assert commands == [BindSlot(100, None), BindSlot(101, None)]
    silent = [SlotBound("w7", index, None, None, None, None) for index in (0, 1)]
    assert node.live.events() == silent
    commands = node.update(seats.set_seat(node.state, GUEST, "gus", "on_air", 2.0))
    assert [each.track for each in commands if isinstance(each, BindSlot)] == [1, 2]


def test_mutes_become_commands_once() -> None:
    node = Node(GUEST)
    assert MuteTrack(1, True) in node.update(room.mute(node.state, GUEST, "gus", video=True))
    assert node.update() == []
    assert node.update(room.mute(node.state, GUEST, "gus", video=False)) == [MuteTrack(1, False)]
    node.update(room.mute(node.state, GUEST, "gus", video=True))
    node.live.publication_local("gus-video", 9, Kind.VIDEO, ("q",), VP8, 1.0)
    assert MuteTrack(9, True) in node.live.commands(), "a new track of a muted publication is muted too"


def test_layers_follow_the_estimate() -> None:
    node = Node(GUEST)
    assert node.watch("video", "audio")[0] == BindSlot(100, 1, 1, 96)
    node.live.on_estimate(7, 3_000_000, 0.5)
    assert node.live.commands() == [], "not before the hold"
    node.live.tick(1.5)
    node.live.tick(2.5)
    assert node.live.commands() == [SetLayer(100, 2)]
    node.live.on_estimate(7, 300_000, 2.6)
    assert node.live.commands() == [SetLayer(100, 0)]
    for step in range(40):
        node.live.tick(3.0 + step * 0.5)
    probes = [each for each in node.live.commands() if isinstance(each, ProbeBandwidth)]
    assert probes
    assert {each.session for each in probes} == {7}
    node.live.on_estimate(99, 1, 30.0)
    assert node.live.commands() == []


def test_a_lost_layer_is_replaced_by_the_nearest() -> None:
    node = Node(GUEST)
    node.watch("video")
    node.live.on_layer_stopped(1, 1, 0.1)
    assert node.live.commands() == [SetLayer(100, 0)]
    node.live.on_layer_stopped(1, 0, 0.2)
    assert node.live.commands() == [SetLayer(100, 2)]
    node.live.on_layer_stopped(1, 2, 0.3)
    assert node.live.commands() == []
    node.live.on_layer_started(77, 0, 0.4)


def test_a_return_on_the_same_track_binds_nothing_anew() -> None:
    node = Node(GUEST)
    node.watch("video", "audio")
    node.update(publications.session_away(node.state, "s-gus", 5.0))
    assert node.shown() == ["gus-video", "gus-audio"]
    node.state, _ = publish(node.state, GUEST, 6.0, session="again")
    node.live.publication_local("gus-video", 1, Kind.VIDEO, ("q", "h", "f"), VP8, 6.0)
    assert [each for each in node.update() if isinstance(each, BindSlot)] == []


def test_a_return_on_another_track_or_codec_binds_anew() -> None:
    node = Node(GUEST)
    node.watch("video", codecs=(VP8, H264))
    node.live.publication_local("gus-video", 21, Kind.VIDEO, ("",), H264, 6.0)
    assert node.live.commands() == [BindSlot(100, 21, 0, 102)]
    node.live.track_gone(1, 6.1)
    assert node.live.commands() == [], "the old handle's end does not matter any more"
    node.live.track_gone(21, 6.2)
    assert node.live.commands() == [BindSlot(100, None)]
    assert node.shown() == [None]


def test_a_codec_that_was_not_negotiated_is_not_bound() -> None:
    node = Node()
    node.host(GUEST, 1, H264)
    node.host(OTHER, 3)
    node.watch("video", "video")
    assert node.shown() == ["greta-video", None]
    with pytest.raises(Conflict) as caught:
        node.live.change_slot(7, 1, {"publication": "gus-video"}, 1.0)
    assert caught.value.code == "codec-mismatch"


def test_a_viewer_pins_pauses_and_caps() -> None:
    node = Node(GUEST, OTHER)
    node.watch("video", "video")
    view = node.live.change_slot(7, 0, {"publication": "greta-video"}, 1.0)
    assert (view["publication"], view["pinned"], view["identity"]) == ("greta-video", True, "greta")
    assert node.shown() == ["greta-video", "gus-video"]
    node.live.commands()
    view = node.live.change_slot(7, 0, {"paused": True, "layer": "f", "max_layer": "h"}, 2.0)
    assert (view["paused"], view["pinned_layer"], view["max_layer"]) == (True, "f", "h")
    assert PauseSlot(100, True) in node.live.commands()
    node.live.change_slot(7, 0, {"paused": False}, 3.0)
    assert node.live.commands() == [PauseSlot(100, False), SetLayer(100, 2)]
    node.live.change_slot(7, 0, {"publication": None, "layer": None}, 4.0)
    assert node.live.view(7)[0]["pinned"] is False
    assert node.shown() == ["greta-video", "gus-video"], "given back, it stays where it is"


@pytest.mark.parametrize(
    ("index", "changes", "error"),
    [
        (9, {}, NotFound),
        (-1, {}, NotFound),
        (0, {"publication": "nobody"}, NotFound),
        (0, {"publication": 5}, BadRequest),
        (0, {"publication": "gus-audio"}, BadRequest),
        (0, {"publication": "olga-video"}, NotFound),
        (1, {"publication": "gus-video"}, Conflict),
        (0, {"paused": "yes"}, BadRequest),
        (0, {"layer": "x"}, BadRequest),
        (0, {"layer": 2}, BadRequest),
        (0, {"max_layer": ["f"]}, BadRequest),
        (0, {"publication": "greta-video", "layer": "x"}, BadRequest),
        (0, {"colour": "red"}, BadRequest),
    ],
)
def test_wrong_wishes_change_nothing(index: int, changes: dict[str, Any], error: type[RequestError]) -> None:
    node = Node(GUEST, OTHER, OWNER)
    node.update(seats.set_seat(node.state, OWNER, "olga", "backstage", 1.0))
    node.watch("video", "video")
    node.live.change_slot(7, 0, {"publication": "gus-video"}, 1.0)
    node.live.commands()
    before = node.live.view(7)
    with pytest.raises(error):
        node.live.change_slot(7, index, changes, 2.0)
    assert node.live.view(7) == before
    assert node.live.commands() == []


def test_own_publications_and_unknown_sessions_are_refused() -> None:
    node = Node(GUEST)
    node.watch("video", actor=GUEST)
    with pytest.raises(Conflict) as caught:
        node.live.change_slot(7, 0, {"publication": "gus-video"}, 1.0)
    assert caught.value.code == "own-publication"
    with pytest.raises(NotFound):
        node.live.change_slot(8, 0, {}, 1.0)
    with pytest.raises(UsageError):
        node.watch("video")
    with pytest.raises(UsageError):
        node.live.publication_local("other", 1, Kind.VIDEO, (), VP8, 1.0)
    node.live.remove_session(7)
    node.live.remove_session(7)
    assert node.live.view(7) == []


def test_the_crew_may_pin_what_is_backstage() -> None:
    node = Node(GUEST)
    node.update(seats.set_seat(node.state, GUEST, "gus", "backstage", 1.0))
    node.watch("video", actor=MODERATOR)
    assert node.shown() == [None]
    node.live.change_slot(7, 0, {"publication": "gus-video"}, 1.0)
    assert node.shown() == ["gus-video"]
    node.update(room.change_role(node.state, OWNER, "mona", Role.VIEWER, 2.0))
    assert node.shown() == [None], "the role that counts is the room's"


def test_a_pin_ends_with_its_publication() -> None:
    node = Node(GUEST, OTHER)
    node.watch("video")
    node.live.change_slot(7, 0, {"publication": "gus-video"}, 1.0)
    node.update(publications.end_publication(node.state, GUEST, "gus-video", 2.0))
    assert node.shown() == ["greta-video"]
    assert node.live.view(7)[0]["pinned"] is False


def test_switches_are_told_with_the_layer_that_plays() -> None:
    node = Node(GUEST)
    node.watch("video", "audio")
    assert node.live.view(7)[0]["layer"] is None
    node.live.on_slot_switched(100, 1, 1, 9000)
    node.live.on_slot_switched(101, 2, 0, 480)
    node.live.on_slot_switched(555, 1, 0, 0)
    node.live.on_slot_switched(100, 555, 0, 0)
    told = node.live.events()
    assert told == [
        SlotBound("w7", 0, "gus-video", "gus", "h", 9000),
        SlotBound("w7", 1, "gus-audio", "gus", None, 480),
    ]
    assert told[0].data()["rtp_timestamp"] == 9000
    assert node.live.view(7, {100: 64_000})[0]["layer"] == "h"
    assert node.live.view(7, {100: 64_000})[0]["bitrate_bps"] == 64_000


def test_what_is_needed_is_what_slots_show_and_every_voice() -> None:
    node = Node(GUEST, OTHER)
    assert node.live.demand(listen=False) == {}
    assert node.live.demand(listen=True) == {2: {0}, 4: {0}}
    node.watch("video")
    node.live.change_slot(7, 0, {"layer": "q"}, node.now)
    assert node.live.demand(listen=False) == {1: {0}, 2: {0}, 4: {0}}
    node.live.on_slot_switched(100, 1, 0, 9000)
    node.live.change_slot(7, 0, {"layer": "h"}, node.now)
    assert node.live.demand(listen=False)[1] == {0, 1}  # the old one until the new one plays
    node.live.on_slot_switched(100, 1, 1, 18000)
    assert node.live.demand(listen=False)[1] == {1}
    node.live.change_slot(7, 0, {"paused": True}, node.now)
    assert node.live.demand(listen=False) == {2: {0}, 4: {0}}
    node.live.change_slot(7, 0, {"paused": False}, node.now)
    node.update(publications.mute_publication(node.state, GUEST, f"{GUEST.identity}-video", muted=True))
    assert 1 not in node.live.demand(listen=False)
    node.live.remove_session(7)
    assert node.live.demand(listen=False) == {}


def test_a_corrupt_document_leaves_the_last_one_in_force() -> None:
    node = Node(GUEST)
    node.watch("video")
    with pytest.raises(CorruptDocument):
        node.live.update({"id": "demo"}, 1.0)
    assert node.shown() == ["gus-video"]
    assert node.live.commands() == []


def test_before_any_document_nothing_is_shown() -> None:
    live = LiveRoom(choose)
    live.publication_local("p", 1, Kind.VIDEO, ("q",), VP8, 0.0)
    live.add_viewer_session(7, "w7", "vera", Role.VIEWER, specs("video"), 0.0)
    live.on_loudness([(1, 99)], 0.1)
    live.tick(0.2)
    assert live.commands() == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_commands_alone_lead_to_what_the_view_says(data: st.DataObject) -> None:
    """A plane that only obeys the commands ends up with what the room believes; nothing hidden is ever bound."""
    node = Node(GUEST, OTHER, OWNER)
    bound: dict[int, tuple[int | None, int]] = {}
    tracks = {"gus-video": 1, "gus-audio": 2, "greta-video": 3, "greta-audio": 4, "olga-video": 5, "olga-audio": 6}

    def obey(commands: list[Command]) -> None:
        for each in commands:
            if isinstance(each, BindSlot):
                assert (each.track is None) == (each.payload_type is None)
                bound[each.slot] = (each.track, each.layer)
            elif isinstance(each, SetLayer):
                track, layer = bound[each.slot]
                assert track is not None
                assert layer != each.layer
                bound[each.slot] = (track, each.layer)

    kinds = data.draw(st.lists(st.sampled_from(["video", "audio"]), min_size=1, max_size=4))
    obey(node.watch(*kinds))
    for _ in range(20):
        node.now += data.draw(st.floats(0.05, 5.0))
        host = data.draw(st.sampled_from([GUEST, OTHER, OWNER]))
        try:
            match data.draw(st.integers(0, 7)):
                case 0:
                    where: Any = data.draw(st.sampled_from(["on_air", "backstage"]))
                    obey(node.update(seats.set_seat(node.state, host, host.identity, where, node.now)))
                case 1:
                    obey(node.update(room.mute(node.state, host, host.identity, video=data.draw(st.booleans()))))
                case 2:
                    obey(node.speak(1.5, **{host.identity: 95}))
                case 3:
                    node.live.on_estimate(7, data.draw(st.integers(0, 5_000_000)), node.now)
                case 4:
                    layer, on = data.draw(st.integers(0, 2)), data.draw(st.booleans())
                    (node.live.on_layer_started if on else node.live.on_layer_stopped)(
                        tracks[f"{host.identity}-video"], layer, node.now
                    )
                case 5:
                    wish = data.draw(st.sampled_from([None, *tracks]))
                    node.live.change_slot(7, data.draw(st.integers(0, 3)), {"publication": wish}, node.now)
                case 6:
                    wishes = {"paused": data.draw(st.booleans()), "layer": data.draw(st.sampled_from([None, "q", "f"]))}
                    node.live.change_slot(7, data.draw(st.integers(0, 3)), wishes, node.now)
                case _:
                    node.live.tick(node.now)
        except RequestError:
            assert node.live.commands() == []
        obey(node.live.commands())
        believed = [tracks[shown] if shown else None for shown in node.shown()]
        assert believed == [bound.get(100 + index, (None, 0))[0] for index in range(len(kinds))]
        playing = [each for each in believed if each is not None]
        assert len(playing) == len(set(playing))
        hidden = {name for name, seat in node.state.seats.items() if seat.state == "backstage"}
        assert not {slot["identity"] for slot in node.live.view(7)} & hidden


def test_slots_of_many_formats_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.stage.sight.MAX_FORMATS", 2)
    node = Node(GUEST)
    for number in range(5):
        codec = PayloadType(number + 90, "vp8" if number % 2 else "h264", 90_000)
        node.watch("video", session=number, first=1000 * number, codecs=(codec,))
    assert [node.shown(number)[0] for number in range(5)] == [None, "gus-video", None, "gus-video", None]


def test_a_thousand_equal_viewers_are_shown_the_same() -> None:
    node = Node(GUEST, OTHER)
    for number in range(1000):
        node.watch("video", "audio", session=number, actor=Actor(f"v{number}", Role.VIEWER), first=10_000 + number * 10)
    node.watch("video", "audio", session=5000, actor=OTHER, first=90_000)
    commands = node.speak(2.0, greta=95)
    assert sum(isinstance(each, BindSlot) for each in commands) == 2000
    assert {tuple(node.shown(number)) for number in range(1000)} == {("greta-video", "greta-audio")}
    assert node.shown(5000) == ["gus-video", "gus-audio"]

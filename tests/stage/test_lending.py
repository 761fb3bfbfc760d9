"""Live rooms that lend each other their tracks."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.contract import BindSlot, Command, Kind, MuteTrack, PayloadType
from relay.stage import publications, room
from relay.stage.document import RoomState
from relay.stage.lending import StageLive
from relay.stage.live_model import SlotSpec
from relay.stage.permissions import Actor, Role
from relay.stage.pk_room import with_guests
from tests.stage.rooms import OWNER, publish

VP8 = PayloadType(96, "vp8", 90_000)
OPUS = PayloadType(111, "opus", 48_000)


class Side:
    """A room whose owner publishes a camera and a microphone, and one viewer with two pictures and two voices."""

    def __init__(self, name: str, first: int) -> None:
        self.live = StageLive(lambda slot, track: next((s.number for s in slot if s.codec == track.codec), None))
        self.state, _ = room.create(OWNER, name, 0.0)
        self.owner = Actor(f"{name}-host", Role.OWNER)
        self.video, self.audio = first, first + 1
        self.state, _ = publish(self.state, self.owner)
        self.state, _ = publish(self.state, self.owner, kind="audio", source="microphone")
        kinds = [(Kind.VIDEO, VP8)] * 2 + [(Kind.AUDIO, OPUS)] * 2
        specs = [SlotSpec(first + 10 + n, n, str(n), kind, (form,)) for n, (kind, form) in enumerate(kinds)]
        self.live.update(self.state, 0.0)
        self.live.add_viewer_session(first, f"s{first}", "vera", Role.VIEWER, specs, 0.0)

    def tracks(self, rids: tuple[str, ...] = ("q", "h")) -> None:
        name = self.owner.identity
        self.live.publication_local(f"{name}-video", self.video, Kind.VIDEO, rids, VP8, 0.0)
        self.live.publication_local(f"{name}-audio", self.audio, Kind.AUDIO, (), OPUS, 0.0)
        for layer in range(len(rids)):
            self.live.on_layer_started(self.video, layer, 0.0)

    def shows(self, state: RoomState) -> set[str]:
        self.live.update(state, 1.0)
        return {slot["identity"] for slot in self.live.view(self.video) if slot["publication"]}


def two() -> tuple[Side, Side]:
    red, blue = Side("red", 100), Side("blue", 200)
    red.tracks()
    blue.tracks()
    return red, blue


def test_lent_tracks_are_shown_and_asked_for_and_taken_back() -> None:
    red, blue = two()
    blue.live.lend(red.live, 1.0)
    red.live.lend(blue.live, 1.0)
    assert red.shows(red.state) == {"red-host"}, "its document does not name them yet"
    assert red.shows(with_guests(red.state, blue.state)) == {"red-host", "blue/blue-host"}
    assert blue.shows(with_guests(blue.state, red.state)) == {"blue-host", "red/red-host"}
    assert blue.live.viewers == 2
    assert {blue.video, blue.audio} <= red.live.demand(listen=False).keys()
    blue.live.remove_session(blue.video)
    assert {blue.video, blue.audio} <= blue.live.demand(listen=False).keys(), "red's viewer needs them"
    red.live.commands()
    blue.live.take_back(red.live, 2.0)
    assert red.shows(with_guests(red.state, blue.state)) == {"red-host"}
    bound = [each for each in red.live.commands() if isinstance(each, BindSlot)]
    assert [each.track for each in bound] == [None, None]
    assert not blue.live.demand(listen=False)
    blue.live.take_back(red.live, 2.0)


def test_a_track_that_ends_is_let_go_before_it_is_removed() -> None:
    red, blue = two()
    blue.live.lend(red.live, 1.0)
    red.shows(with_guests(red.state, blue.state))
    red.live.commands()
    blue.live.track_gone(blue.video, 2.0)
    commands: list[Command] = blue.live.commands()
    assert any(isinstance(each, BindSlot) and each.track is None for each in commands)
    assert red.live.commands() == []


def test_the_owner_alone_mutes_a_lent_track() -> None:
    red, blue = two()
    blue.live.lend(red.live, 1.0)
    red.shows(with_guests(red.state, blue.state))
    red.live.commands()
    muted, _ = publications.mute_publication(blue.state, blue.owner, "blue-host-video", muted=True)
    red.live.update(with_guests(red.state, muted), 2.0)
    assert not any(isinstance(each, MuteTrack) for each in red.live.commands())
    blue.live.update(muted, 2.0)
    assert MuteTrack(blue.video, True) in blue.live.commands()


def test_a_guest_may_be_the_speaker() -> None:
    red, blue = two()
    blue.live.lend(red.live, 0.0)
    red.live.update(with_guests(red.state, blue.state), 0.0)
    for step in range(30):
        now = 1.0 + step / 10
        blue.live.on_loudness([(blue.audio, 90)], now)
        red.live.on_loudness([(red.audio, 0)], now)
    assert red.live.speaker == "blue/blue-host"
    assert blue.live.speaker == "blue-host"


ACTS = ("lend", "back", "gone", "tracks", "again", "mute", "with", "without", "stop", "start", "leave")


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.booleans()), max_size=40))
def test_no_slot_plays_what_is_not_there(acts: list[tuple[str, bool]]) -> None:
    """Whatever comes in which order: a slot is only ever bound to a track that its room has, or was lent."""
    red, blue = two()
    for act, swap in acts:
        one, other = (blue, red) if swap else (red, blue)
        if act == "lend":
            other.live.lend(one.live, 1.0)
        elif act == "back":
            other.live.take_back(one.live, 1.0)
        elif act == "gone":
            other.live.track_gone(other.video, 1.0)
        elif act == "tracks":
            other.tracks()
        elif act == "again":
            other.live.track_gone(other.video, 1.0)
            other.video += 1000
            other.tracks(("f",))
        elif act == "mute":
            who = other.state.participants[other.owner.identity]
            muted = replace(who, muted_video=not who.muted_video)
            other.state = replace(other.state, participants=other.state.participants | {who.identity: muted})
        elif act in ("with", "without"):
            one.live.update(with_guests(one.state, other.state) if act == "with" else one.state, 1.0)
        elif act in ("stop", "start"):
            (other.live.on_layer_stopped if act == "stop" else other.live.on_layer_started)(other.video, 0, 1.0)
        else:
            other.live.remove_session(100 if other is red else 200)
        for side in (red, blue):
            there = {track.track for track in side.live._tracks.values()}
            bound = {each.track for viewer in side.live._viewers.values() for each in viewer.slots} - {None}
            assert bound <= there
            side.live.demand(listen=True)
            side.live.tick(1.0)
            assert set(side.live._borrowed) <= there

"""Viewers who asked for one sound: which mix they want, what plays in their slots, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import NotFound
from relay.plane.contract import BindSlot, Kind, PayloadType
from relay.stage import room
from relay.stage.document import RoomState
from relay.stage.lending import StageLive
from relay.stage.live_model import SlotBound, SlotSpec
from relay.stage.permissions import Actor, Role
from relay.stage.pk_room import with_guests
from relay.stage.program import publish as publish_program
from relay.stage.program import switch_on
from tests.stage.rooms import GUEST, MODERATOR, OTHER, OWNER, VIEWER, new_room, publish

OPUS = PayloadType(111, "opus", 48_000)
MIX = 50  # handle of the first mix


class Stage:
    """Gus (track 1) and greta (track 2) speak; the sessions of the test's people have one slot for sound, or more."""

    def __init__(self, name: str = "demo", first: int = 1) -> None:
        self.live = StageLive(lambda slot, track: track.number if track.codec == slot[0].codec else None)
        self.state: RoomState = room.create(OWNER, name, 0.0)[0]
        for number, host in enumerate((GUEST, OTHER)):
            self.state, _ = publish(self.state, host, kind="audio", source="microphone")
            self.live.publication_local(f"{host.identity}-audio", first + number, Kind.AUDIO, (), OPUS, 0.0)
        self.update(self.state)

    def update(self, state: RoomState) -> None:
        self.state = state
        self.live.update(state, 0.0)

    def watch(self, actor: Actor, session: int, slots: int = 1, **wish: Any) -> None:
        specs = [SlotSpec(100 * session + n, n, str(n), Kind.AUDIO, (OPUS,)) for n in range(slots)]
        wish = {"one_sound": True, **wish}
        self.live.add_viewer_session(session, f"w{session}", actor.identity, actor.role, specs, 0.0, **wish)

    def shows(self, session: int) -> list[str | None]:
        return [slot["publication"] for slot in self.live.view(session)]


def test_hosts_want_a_mix_of_their_own_and_all_others_the_same() -> None:
    stage = Stage()
    stage.watch(VIEWER, 7)
    stage.watch(GUEST, 8)
    stage.watch(MODERATOR, 9)
    stage.watch(GUEST, 10)
    stage.watch(OWNER, 11)
    stage.watch(OTHER, 12, one_sound=False)
    assert stage.live.sounds_wanted() == ["", "gus", "olga"]
    stage.live.remove_session(8)
    stage.live.remove_session(9)
    assert stage.live.sounds_wanted() == ["", "gus", "olga"], "others want them still"
    stage.live.remove_session(7)
    stage.live.remove_session(10)
    assert stage.live.sounds_wanted() == ["olga"]


def test_the_mix_replaces_the_voices_and_they_come_back_when_it_goes() -> None:
    stage = Stage()
    stage.watch(OWNER, 7, slots=3)
    stage.watch(VIEWER, 8, slots=3, one_sound=False)
    voices = ["gus-audio", "greta-audio", None]
    assert stage.shows(7) == voices, "until there is a mix"
    stage.live.commands()
    stage.live.sound_here("olga", MIX, OPUS, 1.0)
    assert stage.shows(7) == ["mix:olga", None, None]
    assert stage.live.commands() == [BindSlot(700, MIX, 0, 111), BindSlot(701, None)]
    assert stage.live.view(7)[0]["identity"] == "program"
    stage.live.events()
    stage.live.on_slot_switched(700, MIX, 0, 5, 5)
    assert stage.live.events() == [SlotBound("w7", 0, "mix:olga", "program", None, 5, None, 48_000)]
    assert stage.shows(8) == voices
    stage.update(room.leave_seat(stage.state, OWNER, "gus", 2.0)[0])
    assert stage.shows(7) == ["mix:olga", None, None]
    stage.live.sound_gone("olga", 3.0)
    stage.live.sound_gone("olga", 3.0)
    assert stage.shows(7) == ["greta-audio", None, None]


def test_another_ones_mix_is_never_played() -> None:
    stage = Stage()
    stage.watch(GUEST, 7)
    stage.live.sound_here("greta", MIX, OPUS, 1.0)
    stage.live.sound_here("", MIX + 1, OPUS, 1.0)
    assert stage.shows(7) == ["greta-audio"]


def test_who_takes_a_seat_wants_another_mix_and_hears_voices_meanwhile() -> None:
    stage = Stage()
    stage.watch(VIEWER, 7)
    stage.live.sound_here("", MIX, OPUS, 1.0)
    assert stage.shows(7) == ["mix"]
    stage.update(room.change_role(stage.state, OWNER, "vera", Role.GUEST, 1.0)[0])
    assert (stage.live.sounds_wanted(), stage.shows(7)) == (["vera"], ["gus-audio"])
    stage.live.sound_here("vera", MIX + 1, OPUS, 1.0)
    assert stage.shows(7) == ["mix:vera"]


def test_a_voice_may_be_pinned_beside_the_mix_but_no_mix() -> None:
    stage = Stage()
    stage.watch(OWNER, 7, slots=2)
    stage.live.sound_here("olga", MIX, OPUS, 1.0)
    stage.live.change_slot(7, 1, {"publication": "gus-audio"}, 1.0)
    assert stage.shows(7) == ["mix:olga", "gus-audio"]
    with pytest.raises(NotFound):
        stage.live.change_slot(7, 1, {"publication": "mix:olga"}, 1.0)
    stage.live.change_slot(7, 1, {"publication": None}, 1.0)
    assert stage.shows(7) == ["mix:olga", None]


def test_who_watches_the_program_hears_the_mix_and_not_the_programs_sound() -> None:
    stage = Stage()
    state, _ = switch_on(stage.state, OWNER, 1.0)
    state, _ = publish_program(
        state, 1.0, publication="pa", kind="audio", codec="opus", node="n1", session="x", layers=("",), epoch=0
    )
    stage.live.publication_local("pa", 9, Kind.AUDIO, (), OPUS, 1.0)
    stage.update(state)
    stage.watch(GUEST, 7, slots=2, program=True)
    assert stage.shows(7) == ["pa", None]
    stage.live.sound_here("gus", MIX, OPUS, 1.0)
    assert stage.shows(7) == ["mix:gus", None]


def test_mixes_are_not_lent_and_all_voices_are_asked_for_behind_them() -> None:
    red, blue = Stage("red"), Stage("blue", first=11)
    for stage in (red, blue):
        stage.watch(OWNER, 7)
        stage.live.sound_here("olga", MIX if stage is red else MIX + 1, OPUS, 1.0)
    red.live.lend(blue.live, 1.0)
    blue.live.lend(red.live, 1.0)
    blue.update(with_guests(blue.state, red.state))
    red.live.sound_here("gus", MIX + 2, OPUS, 1.0)
    assert blue.shows(7) == ["mix:olga"]
    assert MIX not in {track.track for track in blue.live.tracks.values()}
    assert {1, 2} <= red.live.demand(listen=False).keys()
    red.live.remove_session(7)
    assert {1, 2} <= red.live.demand(listen=False).keys(), "blue's host hears them"


def test_before_the_document_nothing_is_wanted() -> None:
    live = StageLive(lambda slot, track: None)
    live.add_viewer_session(7, "w7", "gus", Role.GUEST, [], 0.0, one_sound=True)
    assert live.sounds_wanted() == []
    live.update(new_room(), 0.0)
    assert live.sounds_wanted() == ["gus"]

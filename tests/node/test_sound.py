"""A room's sound without a process: what is opened, what is refused, and what is let go again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from relay.errors import Conflict, Overloaded
from relay.mix.audio.messages import InputRefused
from relay.mix.audio.pool import AudioPool
from relay.mix.audio.positions import SLOTS, Positions
from relay.node.programs import Pools, Sounding, picture_wait_ms
from relay.node.sound import RoomSound
from relay.plane.contract import AddTrack, BindSlot, Command, Kind, PayloadType, RemoveTrack
from relay.settings import MixAudioSettings, MixSettings
from relay.stage import room as rooms
from relay.stage.document import RoomState
from relay.stage.lending import StageLive
from relay.stage.live_model import SlotSpec
from relay.stage.permissions import Actor, Role
from tests.stage.rooms import GUEST, OTHER, OWNER, VIEWER, new_room, publish

OPUS = PayloadType(111, "opus", 48_000)


class IdlePools:
    """An audio pool whose process never began: it remembers what it is told, as for one that is yet to come."""

    def __init__(self, most: int) -> None:
        self.settings = MixSettings(audio=MixAudioSettings(one_sounds_per_room=most))
        self.audio = AudioPool(self.settings.audio, cast(Any, None), lambda event: None)
        self.positions = self.audio._positions = Positions.create()
        self.ready = True
        self.sounds: dict[str, Sounding] = {}
        self.count = 0
        self._handles = itertools.count(50)

    def next_handle(self) -> int:
        return next(self._handles)

    def sound_wanted(self, room: str, sounding: Sounding) -> bool:
        self.sounds[room] = sounding
        return self.ready

    def sound_unwanted(self, room: str) -> None:
        self.sounds.pop(room, None)

    def count_one_sounds(self, more: int) -> None:
        self.count += more

    @property
    def inputs(self) -> dict[str, bool]:
        """Who is mixed, and whether he is muted."""
        found = self.audio._rooms.get("demo")
        return {} if found is None else {name: one.muted for name, one in found.inputs.items()}

    @property
    def wait(self) -> int:
        """Milliseconds that the room's sound was told to wait for pictures."""
        return self.audio._rooms["demo"].wait_ms

    @property
    def more(self) -> dict[str, int]:
        """Milliseconds that each one's sound was told to wait longer than that."""
        return {name: one.more_ms for name, one in self.audio._rooms["demo"].inputs.items()}

    @property
    def mixes(self) -> dict[str, tuple[str, ...]]:
        """What is open, and whom it leaves out."""
        found = self.audio._rooms.get("demo")
        return {} if found is None else {name: one.told.exclude for name, one in found.mixes.items()}


class World:
    """A room with gus and greta on air; sessions listen with one slot for one sound."""

    id = "demo"

    def __init__(self, most: int = 8) -> None:
        self.live = StageLive(lambda slot, track: track.number)
        self.pools = IdlePools(most)
        self.commands: list[Command] = []
        self.tracks: set[int] = set()
        self.stage: RoomState = new_room()
        for track, host in enumerate((GUEST, OTHER), 1):
            self.stage, _ = publish(self.stage, host, kind="audio", source="microphone")
            self.live.publication_local(f"{host.identity}-audio", track, Kind.AUDIO, (), OPUS, 0.0)
        self.elsewhere: dict[str, int] = {}
        self.sound = RoomSound(
            self, cast(Pools, self.pools), self.submit, lambda: 0.0, self.on_track, lambda: self.elsewhere
        )
        self.update(self.stage)

    def submit(self, *commands: Command) -> None:
        self.commands += commands

    def on_track(self, track: int, present: bool) -> None:
        (self.tracks.add if present else self.tracks.discard)(track)

    def heard(self) -> None:
        self.sound.update()
        self.submit(*self.live.commands())

    def update(self, state: RoomState) -> None:
        self.stage = state
        self.live.update(state, 0.0)
        self.heard()

    def listen(self, actor: Actor, session: int, *, program: bool = False) -> None:
        self.sound.admit(actor.identity, actor.role)
        spec = SlotSpec(100 * session, 0, "0", Kind.AUDIO, (OPUS,))
        self.live.add_viewer_session(
            session, f"w{session}", actor.identity, actor.role, [spec], 0.0, program=program, one_sound=True
        )
        self.heard()

    def leave(self, session: int) -> None:
        self.live.remove_session(session)
        self.heard()

    def plays(self, session: int) -> str | None:
        found: str | None = self.live.view(session)[0]["publication"]
        return found


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def world(most: int = 8) -> World:
        made.append(World(most))
        return made[-1]

    yield world
    for each in made:
        each.pools.positions.close()


def test_a_rooms_sound_is_there_as_long_as_somebody_wants_it(make: Callable[..., World]) -> None:
    world = make()
    assert (world.pools.sounds, world.pools.inputs) == ({}, {})
    world.listen(GUEST, 7)
    world.listen(VIEWER, 8)
    world.listen(VIEWER, 9)
    assert world.pools.mixes == {"mix:gus": ("gus", "gus/screen"), "mix": ()}
    assert world.pools.inputs == {"gus": False, "greta": False}
    assert (world.pools.count, world.tracks, world.plays(7)) == (2, {50, 51}, "mix:gus")
    world.update(rooms.mute(world.stage, OWNER, "gus", audio=True)[0])
    assert world.pools.inputs == {"gus": True, "greta": False}

    world.sound.open("program", 90)
    for session in (7, 8, 9):
        world.leave(session)
    assert (world.pools.mixes, world.pools.count, world.tracks) == ({"program": ()}, 0, set())
    assert set(world.pools.inputs) == {"gus", "greta"}
    world.sound.close_mix("program")
    world.sound.close_mix("program")
    world.heard()
    assert (world.pools.sounds, world.pools.mixes, world.pools.inputs) == ({}, {}, {})
    world.listen(GUEST, 7)
    assert set(world.pools.inputs) == {"gus", "greta"}
    world.sound.close()
    assert (world.pools.sounds, world.pools.mixes, world.tracks) == ({}, {}, set())


def test_sound_waits_as_pictures_do_while_it_goes_with_a_programs(make: Callable[..., World]) -> None:
    world = make()
    wait = picture_wait_ms(world.pools.settings.video)
    world.listen(GUEST, 7)
    assert world.pools.wait == 0  # the others' own pictures wait for nothing
    world.sound.open("program", 90)
    world.heard()
    assert world.pools.wait == wait > 0
    world.sound.close_mix("program")
    assert world.pools.wait == 0
    world.listen(VIEWER, 8, program=True)  # mixed elsewhere
    assert world.pools.wait == wait
    world.leave(8)
    assert world.pools.wait == 0


def test_beside_a_program_of_another_node_everybody_waits_as_long_as_there(make: Callable[..., World]) -> None:
    world = make()
    wait = picture_wait_ms(world.pools.settings.video)
    world.elsewhere = {"gus": wait + 120, "greta": wait - 10, "somebody": 500}
    world.listen(GUEST, 7)
    assert world.pools.more == {"gus": 0, "greta": 0}  # beside people's own pictures
    world.listen(VIEWER, 8, program=True)
    assert world.pools.more == {"gus": 120, "greta": 0}
    world.elsewhere = {"gus": wait + 40}
    world.heard()
    assert world.pools.more == {"gus": 40, "greta": 0}
    world.sound.open("program", 90)  # it is mixed here now, by who knows how long each one has to wait
    world.pools.audio.wait_for_picture("demo", "gus", 70)
    world.heard()
    assert world.pools.more == {"gus": 70, "greta": 0}
    world.sound.close_mix("program")
    world.heard()
    assert world.pools.more == {"gus": 40, "greta": 0}
    world.leave(8)
    assert world.pools.more == {"gus": 0, "greta": 0}


def test_slots_are_bound_elsewhere_before_a_mix_goes(make: Callable[..., World]) -> None:
    world = make()
    world.listen(VIEWER, 7)
    world.commands.clear()
    world.update(rooms.change_role(world.stage, OWNER, "vera", Role.GUEST, 1.0)[0])
    made, bound, removed = (
        [n for n, each in enumerate(world.commands) if isinstance(each, kind)]
        for kind in (AddTrack, BindSlot, RemoveTrack)
    )
    assert world.plays(7) == "mix:vera"
    assert world.commands[removed[0]] == RemoveTrack(50)
    assert bound[0] < removed[0] < made[0] < bound[-1]
    assert world.commands[bound[-1]] == BindSlot(700, 51, 0, 111)


def test_until_the_process_is_there_voices_are_heard(make: Callable[..., World]) -> None:
    world = make()
    world.pools.ready = False
    world.listen(OWNER, 7)
    assert (world.plays(7), world.pools.mixes) == ("gus-audio", {})
    world.pools.ready = True
    world.pools.sounds["demo"].pool_ready()
    assert world.plays(7) == "mix:olga"


def test_as_many_hosts_as_are_allowed_and_any_number_of_others(make: Callable[..., World]) -> None:
    world = make(most=1)
    world.listen(VIEWER, 7)
    world.listen(GUEST, 8)
    world.listen(GUEST, 9)
    for host in (OTHER, OWNER):
        with pytest.raises(Conflict, match="one_sounds_per_room") as refused:
            world.listen(host, 10)
        assert refused.value.code == "too-many-mixes"
    world.update(rooms.change_role(world.stage, OWNER, "vera", Role.GUEST, 1.0)[0])
    assert (world.plays(7), world.plays(8)) == ("gus-audio", "mix:gus")
    world.leave(8)
    assert world.plays(7) == "gus-audio"
    world.leave(9)
    assert (world.plays(7), set(world.pools.mixes)) == ("mix:vera", {"mix:vera"})


def test_a_host_may_not_where_none_may(make: Callable[..., World]) -> None:
    world = make(most=0)
    with pytest.raises(Conflict):
        world.listen(GUEST, 7)
    world.listen(VIEWER, 8)
    assert world.plays(8) == "mix"


def test_a_full_pool_leaves_voices_and_nothing_else_and_is_asked_again(make: Callable[..., World]) -> None:
    world = make()
    taken = [world.pools.positions.take() for _ in range(SLOTS)]
    world.listen(OWNER, 7)
    world.heard()
    assert (world.plays(7), world.tracks, world.pools.count, world.pools.inputs) == ("gus-audio", set(), 0, {})
    assert sum(isinstance(each, AddTrack) for each in world.commands) == sum(
        isinstance(each, RemoveTrack) for each in world.commands
    )
    with pytest.raises(Overloaded):
        world.sound.open("program", 90)
    world.pools.positions.give_back(taken.pop())
    world.heard()
    assert world.plays(7) == "mix:olga"


def test_who_is_not_mixed_comes_in_when_another_goes(make: Callable[..., World]) -> None:
    world = make()
    told: list[object] = []
    world.sound.on_event = told.append
    world.listen(OWNER, 7)
    refused = InputRefused("demo", "greta", "1 are mixed already")
    world.pools.audio.remove_input("demo", "greta")  # as the pool does that hears of it
    world.sound.sound_told(refused)
    world.heard()
    assert (set(world.pools.inputs), set(world.sound.voices), told) == ({"gus"}, {"gus"}, [refused])
    world.update(rooms.leave_seat(world.stage, OWNER, "gus", 2.0)[0])
    assert set(world.pools.inputs) == {"greta"}

"""PKs under every order of steps: many processes at once, deaths half way, rooms that end and begin anew."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.ids import sync_id_at
from relay.stage import pk_room
from tests.cluster.pk_world import ROOMS, World

_room = st.sampled_from(ROOMS)
_pick = st.integers(0, 7)
_moves = st.one_of(
    st.tuples(st.just("step"), _pick),
    st.tuples(st.just("step"), _pick),
    st.tuples(st.just("step"), _pick),
    st.tuples(st.just("run")),
    st.tuples(st.just("die"), _pick),
    st.tuples(st.just("invite"), _room, _room),
    st.tuples(st.just("accept"), _room, _pick),
    st.tuples(st.just("accept"), _room, _pick),
    st.tuples(st.just("end"), _room, _pick),
    st.tuples(st.just("score"), _room, _pick),
    st.tuples(st.just("look")),
    st.tuples(st.just("begin_anew"), _room),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 3.5, 6.0, 61.0])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_moves, max_size=120), st.randoms(use_true_random=False))
def test_both_rooms_or_neither(moves: list[tuple], rng: random.Random) -> None:
    world = World()
    for name, *arguments in moves:
        if name == "pass":
            world.now += arguments[0]
        elif name == "run":
            world.finish(rng)
        else:
            getattr(world, name)(*arguments)
        world.check()
    world.finish(rng)
    world.check()
    settle(world, rng)


def settle(world: World, rng: random.Random) -> None:
    """Nodes look once: then both rooms agree. Once more after everything's time is over: then nothing is left."""
    world.look()
    world.finish(rng)
    world.check()
    for pk in world.rooms.records():
        states = [world.rooms.state(room) for room in pk.rooms]
        now = sync_id_at(round((world.now + 5) * 1e6))
        shows = [
            state is not None and pk_room.shown(state, world.rooms.state(pk.other(state.id)), now) is not None
            and pk_room.current(state).id == pk.id
            for state in states
        ]  # fmt: skip
        assert shows[0] == shows[1], "one room shows both and the other does not"
    world.now += 4000
    world.look()
    world.finish(rng)
    for room in ROOMS:
        state = world.rooms.state(room)
        assert state is not None
        assert not state.pk.known
        assert state.pk.claim is None
    world.check()


def test_a_story_from_invitation_to_end() -> None:
    world, rng = World(), random.Random(1)
    for act in (
        lambda: world.invite("red", "blue"),
        lambda: world.accept("blue", 0),
        lambda: setattr(world, "now", world.now + 4),
        lambda: world.score("blue", 0),
        lambda: world.end("red", 0),
    ):
        act()
        world.finish(rng)
        world.check()
    for room in ("red", "blue"):
        kinds = [kind for kind, _ in world.rooms.told[room]]
        assert kinds == ["pk.invited", "pk.started", "pk.scored", "pk.ended"]
        assert world.rooms.told[room][-1][1]["winner"] == "blue"
    assert world.rooms.told["green"] == []


def test_killed_between_the_decision_and_the_telling() -> None:
    """The accepting process dies at each of its steps in turn: afterwards both rooms run the PK, or neither."""
    outcomes = set()
    for steps in range(40):
        world, rng = World(), random.Random(steps)
        world.invite("red", "blue")
        world.finish(rng)
        world.accept("blue", 0)
        for _ in range(steps):
            world.step(0)
        over = not world.running
        world.die(0)
        world.check()
        world.look()
        world.finish(rng)
        running = [pk_room.current(world.rooms.state(room)) is not None for room in ("red", "blue")]
        assert running[0] == running[1]
        outcomes.add(running[0])
        settle(world, rng)
        if over:
            break
    assert outcomes == {True, False}


def test_a_claim_that_led_to_nothing_holds_nobody_up() -> None:
    world, rng = World(), random.Random(3)
    world.invite("red", "blue")
    world.invite("green", "red")
    world.finish(rng)
    world.accept("blue", 0)
    while world.rooms.state("red").pk.claim is None:
        world.step(0)
    world.die(0)
    world.now += pk_room.CLAIM_S
    world.accept("red", 1)
    world.finish(rng)
    assert pk_room.current(world.rooms.state("red")).rooms == ("green", "red")
    settle(world, rng)

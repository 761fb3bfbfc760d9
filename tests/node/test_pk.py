"""PKs on real nodes: both rooms' viewers get both stages or neither, whichever node they are on and whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from relay.cluster import EmbeddedServer
from relay.ids import sync_id_microseconds
from relay.settings import NodeSettings
from relay.stage import pk_room
from relay.stage.pk_room import current
from tests.node.peers import PATIENCE_S, Peer, until
from tests.node.pk_world import Two, two_nodes

pytestmark = pytest.mark.timeout(120)
BOTH = {("red", frozenset({"rita", "blue/bea"})), ("blue", frozenset({"bea", "red/rita"}))}
OWN = {("red", frozenset({"rita"})), ("blue", frozenset({"bea"}))}


@pytest.fixture
async def two(server: EmbeddedServer, settings: NodeSettings) -> AsyncIterator[Two]:
    async with two_nodes(server, settings) as made:
        yield made


async def comes(ask: Callable[[], Awaitable[object]], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not await ask():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)


async def on_stage(two: Two, red: str, blue: str) -> tuple[Peer, Peer]:
    """A host and a viewer of each room, red on one node and blue on another or the same; returns the viewers."""
    await two.host(red, "red", "rita")
    await two.host(blue, "blue", "bea")

    async def on_air() -> bool:
        return await two.on_air("red") == ["rita"] and await two.on_air("blue") == ["bea"]

    await comes(on_air)
    viewers = await two.viewer(red, "red"), await two.viewer(blue, "blue")
    await until(lambda: seen(two, viewers) == OWN)
    return viewers


def seen(two: Two, viewers: tuple[Peer, ...]) -> set[tuple[str, frozenset[str]]]:
    return {(viewer.room, frozenset(two.shown(viewer))) for viewer in viewers}


async def hears_two(viewer: Peer) -> bool:
    """Whether sound comes in two of the viewer's slots."""

    async def loud(track: object) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while True:
                    frame = await track.recv()  # type: ignore[attr-defined]
                    if np.abs(frame.to_ndarray()).max() > 1000:
                        return True
        return False

    return sum(await asyncio.gather(*map(loud, viewer.tracks))) == 2


@pytest.mark.parametrize("blue", ["a", "b"])
async def test_both_stages_are_seen_in_both_rooms(two: Two, blue: str) -> None:
    viewers = await on_stage(two, "a", blue)
    await two.invite()
    pk = await two.desk.accept("pk1", "blue", "bea")
    starts_at = sync_id_microseconds(pk.starts_at) / 1e6
    while time.time() < starts_at - 0.3:
        assert seen(two, viewers) == OWN, "shown before the countdown was over"
        await asyncio.sleep(0.05)
    await until(lambda: seen(two, viewers) == BOTH)
    assert time.time() >= starts_at
    await asyncio.gather(*(comes(lambda viewer=viewer: hears_two(viewer)) for viewer in viewers))  # type: ignore[misc]
    await two.desk.score("pk1", "blue", 3, "bea", None)
    room = two.nodes["a"]._rooms.get("red")
    assert room is not None
    await until(lambda: room.pk is not None and room.pk.other.points == 3)
    view = room.pk
    assert view is not None
    assert (view.phase, view.own.on_air, view.other.on_air) == ("running", ("rita",), ("blue/bea",))
    late = await two.viewer("b", "red")
    await until(lambda: two.shown(late) == {"rita", "blue/bea"})
    await two.desk.end("pk1", "ended", "rita")
    await until(lambda: seen(two, viewers) == OWN)
    await until(lambda: two.shown(late) == {"rita"})
    assert room.pk is None


async def test_it_ends_with_its_time_also_without_the_store(two: Two) -> None:
    viewers = await on_stage(two, "a", "b")
    await two.invite(duration_s=10.0)
    pk = await two.desk.accept("pk1", "blue", "bea")
    await until(lambda: seen(two, viewers) == BOTH)
    for wire in two.wires.values():
        wire.cut()
    while time.time() < sync_id_microseconds(pk.ends_at) / 1e6 - 0.3:
        assert seen(two, viewers) == BOTH, "media waits for the store"
        await asyncio.sleep(0.1)
    await until(lambda: seen(two, viewers) == OWN)
    for wire in two.wires.values():
        wire.mend()

    async def told() -> bool:
        states = [await two.state(room) for room in ("red", "blue")]
        return all(state.pk.last is not None and state.pk.last.reason == "time" for state in states)

    await comes(told)


async def test_whoever_accepts_dies_half_way(two: Two) -> None:
    """Killed after the decision: the rooms were not told, and learn of it before the countdown is over."""
    viewers = await on_stage(two, "a", "b")
    await two.invite()
    tell = two.desk.tell

    async def die(*_: object) -> None:
        raise ConnectionAbortedError

    two.desk.tell = die  # type: ignore[assignment]
    with pytest.raises(ConnectionAbortedError):
        await two.desk.accept("pk1", "blue", "bea")
    two.desk.tell = tell  # type: ignore[method-assign]
    assert await two.runs() == (False, False)
    await until(lambda: seen(two, viewers) == BOTH)
    assert await two.runs() == (True, True)


async def test_a_node_that_was_cut_off_learns_that_it_is_over(two: Two) -> None:
    viewers = await on_stage(two, "a", "b")
    await two.invite()
    await two.desk.accept("pk1", "blue", "bea")
    await until(lambda: seen(two, viewers) == BOTH)
    two.wires["b"].cut()
    await two.desk.end("pk1", "ended", "rita")
    await until(lambda: two.shown(viewers[0]) == {"rita"})
    two.wires["b"].mend()
    await until(lambda: seen(two, viewers) == OWN)
    assert await two.runs() == (False, False)


async def test_the_death_of_a_node_ends_it_for_both(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pk_room, "AWAY_S", 2.0)
    viewers = await on_stage(two, "a", "b")
    await two.invite()
    await two.desk.accept("pk1", "blue", "bea")
    await until(lambda: seen(two, viewers) == BOTH)
    two.wires["b"].cut()  # it says no goodbye
    del two.known.held["b"]
    await two.nodes["b"].shut_down()

    async def over() -> bool:
        return await two.runs() == (False, False)

    await comes(over, 40)
    await until(lambda: two.shown(viewers[0]) == {"rita"})
    last = (await two.state("red")).pk.last
    assert last is not None
    assert last.reason == "away"


async def test_the_end_of_a_room_and_one_that_begins_anew(two: Two) -> None:
    viewers = await on_stage(two, "a", "b")
    await two.invite()
    await two.desk.accept("pk1", "blue", "bea")
    await until(lambda: seen(two, viewers) == BOTH)
    await two.store.delete("blue", ("room.ended", {"by": "bea"}))
    await until(lambda: two.shown(viewers[0]) == {"rita"})

    async def over() -> bool:
        return current(await two.state("red")) is None

    await comes(over)
    assert (await two.desk.read("pk1")).reason == "room-ended"

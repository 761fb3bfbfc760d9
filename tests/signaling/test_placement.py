"""Which relay a signaling service that runs apart takes for a room, and what it does while relays come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from relay.cluster.directory import RedisDirectory
from relay.errors import NodeUnreachable, NotFound, Overloaded
from relay.ports import Offer, RoomStore
from relay.settings import ClusterSettings, SignalingSettings
from signaling.control.nodes import RemoteNodes, publishing_nodes
from tests.signaling.control_world import KEYS, PATIENT, Served, serving

SETTINGS = SignalingSettings.model_validate(
    {"cluster": ClusterSettings(heartbeat_s=0.1, expiry_s=0.2), "auth": {"keys": KEYS}}
)
OFFER = Offer("demo", "bob", "guest", "v=0")


@pytest.fixture
async def relays(store: RoomStore) -> AsyncIterator[dict[str, Served]]:
    async with AsyncExitStack() as stack:
        names = ("n1", "n2", "n3")
        yield {name: await stack.enter_async_context(serving(store, name)) for name in names}


@pytest.fixture
async def directory(store_url: str) -> AsyncIterator[RedisDirectory]:
    opened = RedisDirectory(store_url, socket_timeout_s=10, connect_timeout_s=10)
    yield opened
    await opened.close()


@pytest.fixture
async def nodes(
    store: RoomStore, store_url: str, relays: dict[str, Served], directory: RedisDirectory
) -> AsyncIterator[RemoteNodes]:
    for served in relays.values():
        await directory.announce(served.record(), 60)
    nodes = RemoteNodes(
        SETTINGS, store, RedisDirectory(store_url, socket_timeout_s=10, connect_timeout_s=10), "tests", PATIENT
    )
    await nodes.start()
    yield nodes
    await nodes.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


def record_of(nodes: RemoteNodes, name: str) -> object:
    return next((node.record for node in nodes._nodes.values() if node.node_id == name), None)


def published(node: str, state: str = "live") -> dict[str, object]:
    return {"node": node, "state": state}


@pytest.mark.parametrize(
    ("publications", "expected"),
    [
        ([], []),
        ([published("n1")], ["n1"]),
        ([published("n9")], []),
        ([published("n1", "paused"), published("n2")], ["n2"]),
        ([published("n1", "paused"), published("n9")], ["n1"]),
        ([published("n2"), published("n1"), published("n2")], ["n2", "n1"]),
    ],
)
def test_a_room_is_where_it_is_published(publications: list[dict[str, object]], expected: list[str]) -> None:
    document = {"publications": {str(number): each for number, each in enumerate(publications)}}
    assert publishing_nodes(document, {"n1": 1, "n2": 1}) == expected


async def test_host_and_viewers_meet_whoever_comes_first(
    nodes: RemoteNodes, relays: dict[str, Served], store: RoomStore, directory: RedisDirectory
) -> None:
    for room in ("demo", *(f"r{number}" for number in range(6))):
        await store.create(room, {"publications": {}})
        first = await nodes.choose(room)
        others = [served.record() for name, served in relays.items() if name != first.node_id]
        for record in others:  # the room's place does not depend on who else is there
            await directory.withdraw(record.id)
        assert (await nodes.choose(room)).node_id == first.node_id
        for record in others:
            await directory.announce(record, 60)
        await store.change(room, lambda _: ({"publications": {"p": published("n3")}}, [("x", {})]))
        assert (await nodes.choose(room)).node_id == "n3"


async def test_full_and_draining_relays_get_no_new_rooms(
    nodes: RemoteNodes, relays: dict[str, Served], directory: RedisDirectory
) -> None:
    await directory.announce(relays["n1"].record(draining=True), 60)
    await directory.announce(relays["n2"].record(sessions=10), 60)
    await until(lambda: all(record_of(nodes, name) != relays[name].record() for name in ("n1", "n2")))
    assert {(await nodes.choose(f"r{number}")).node_id for number in range(12)} == {"n3"}
    await directory.announce(relays["n3"].record(draining=True), 60)
    await until(lambda: record_of(nodes, "n3") != relays["n3"].record())
    assert {(await nodes.choose(f"r{number}")).node_id for number in range(12)} == {"n2"}
    await directory.announce(relays["n2"].record(draining=True), 60)
    await until(lambda: record_of(nodes, "n2") == relays["n2"].record(draining=True))
    with pytest.raises(Overloaded):
        await nodes.choose("demo")


async def test_a_room_without_links_stays_on_its_node_and_with_links_spreads(
    nodes: RemoteNodes, relays: dict[str, Served], store: RoomStore, directory: RedisDirectory
) -> None:
    await store.create("demo", {"publications": {"p": published("n1")}})
    await directory.announce(relays["n1"].record(sessions=10), 60)
    await until(lambda: record_of(nodes, "n1") == relays["n1"].record(sessions=10))
    assert (await nodes.choose("demo")).node_id == "n1"  # full, but the media are nowhere else
    with pytest.raises(Overloaded):
        await nodes.choose("demo", without={"n1"})
    linked = {name: served.record(link=("127.0.0.1:1", "127.0.0.1:2")) for name, served in relays.items()}
    for name in ("n1", "n2"):
        await directory.announce(linked[name], 60)
    await until(lambda: all(record_of(nodes, name) == linked[name] for name in ("n1", "n2")))
    assert (await nodes.choose("demo")).node_id == "n1"
    assert (await nodes.choose("demo", without={"n1"})).node_id == "n2"  # n3 has no links
    with pytest.raises(Overloaded):
        await nodes.choose("demo", without={"n1", "n2"})
    crowded = relays["n1"].record(link=linked["n1"].link, load=0.95)
    await directory.announce(crowded, 60)
    await until(lambda: record_of(nodes, "n1") == crowded)
    assert (await nodes.choose("demo")).node_id == "n2"  # has served it before, and has room to spare


async def test_newcomers_are_kept_in_their_region(
    nodes: RemoteNodes, relays: dict[str, Served], directory: RedisDirectory
) -> None:
    regions = {"n1": "eu", "n2": "us", "n3": "asia"}
    for name, region in regions.items():
        await directory.announce(relays[name].record(region=region), 60)
    await until(lambda: all(getattr(record_of(nodes, name), "region", "") == regions[name] for name in regions))
    for name, region in regions.items():
        assert {(await nodes.choose(f"{region}{number}", region)).node_id for number in range(6)} == {name}


async def test_a_room_of_a_dead_node_moves_at_once(
    nodes: RemoteNodes, relays: dict[str, Served], store: RoomStore
) -> None:
    await store.create("demo", {"publications": {"p": published("n1")}})
    dead = await nodes.choose("demo")
    assert dead.node_id == "n1"
    await relays["n1"].stop()  # its record is good for another minute
    with pytest.raises(NodeUnreachable):
        await dead.admit("demo", "bob", True)
    assert (await nodes.choose("demo")).node_id != "n1"


async def test_sessions_are_found_by_their_name(
    nodes: RemoteNodes, store: RoomStore, directory: RedisDirectory
) -> None:
    session = (await (await nodes.choose("demo")).publish(OFFER)).session
    assert (await (await nodes.holding(session)).session(session))["identity"] == "bob"
    for name in ("n9~x", "x", "~", ""):
        with pytest.raises(NotFound):
            await nodes.holding(name)


async def test_a_relay_that_comes_is_found_and_one_that_dies_is_forgotten(
    nodes: RemoteNodes, relays: dict[str, Served], store: RoomStore, directory: RedisDirectory
) -> None:
    async with serving(store, "n4") as late:
        await directory.announce(late.record(), 60)
        await until(lambda: record_of(nodes, "n4") is not None)
        await relays["n1"].stop()
        node = await nodes.holding("n1~x")
        with pytest.raises(NodeUnreachable):
            await node.status()
        assert "n1" not in {(await nodes.choose(f"r{number}")).node_id for number in range(24)}
        await directory.withdraw("n1")
        await until(lambda: record_of(nodes, "n1") is None)


async def test_a_store_that_was_emptied_ends_nothing(nodes: RemoteNodes, directory: RedisDirectory) -> None:
    for name in ("n1", "n2", "n3"):
        await directory.withdraw(name)
    await nodes._known.look()
    assert len(nodes.all()) == 3


async def test_with_the_store_gone_the_last_list_holds(relays: dict[str, Served], store: RoomStore) -> None:
    class Gone:
        """A directory whose store goes away after the first look."""

        looks = 0

        async def nodes(self):  # type: ignore[no-untyped-def]
            self.looks += 1
            return [served.record() for served in relays.values()] if self.looks == 1 else await dead.nodes()

        place, close = property(lambda self: dead.place), property(lambda self: dead.close)
        changed = property(lambda self: dead.changed)

    dead = RedisDirectory("redis://127.0.0.1:1")
    nodes = RemoteNodes(SETTINGS, store, Gone(), "tests")  # type: ignore[arg-type]
    await nodes.start()
    await store.create("kept", {"publications": {}})
    first = await nodes.choose("kept")
    await nodes._known.look()
    assert len(nodes.all()) == 3
    assert (await nodes.choose("kept")).node_id == first.node_id
    await nodes.close()

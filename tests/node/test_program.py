"""A node mixes: real pools of processes, hosts and viewers by aiortc, the program as a publication like any other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from relay.cluster import RedisStore
from relay.mix.layout import Box, cells
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.document import RoomState
from relay.stage.layout import Layout
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer

OWNER = Actor("alice", Role.OWNER)
WIDTH, HEIGHT, FPS = 640, 360, 12
PATIENCE_S = 60.0


@pytest.fixture
def settings() -> NodeSettings:
    picture = {"mix.video.width": WIDTH, "mix.video.height": HEIGHT, "mix.video.fps": FPS}
    return dev_settings(environ={}, overrides={"media.port": 0, "mix.video.bitrate_bps": 800_000, **picture})


async def change(store: RedisStore, make: object) -> RoomState:
    document, _ = await store.change("demo", changing(make))  # type: ignore[arg-type]
    return RoomState.from_json(document)


async def switch_on(store: RedisStore, **wanted: object) -> RoomState:
    return await change(store, lambda state: programs.switch_on(state, OWNER, time.time(), **wanted))


def grid(*identities: str) -> dict[str, Box]:
    return {cell.identity: cell.box for cell in cells(Layout(), identities, WIDTH, HEIGHT)}


@pytest.fixture
async def show(node: Node, store: RedisStore) -> AsyncIterator[tuple[Peer, Peer, Peer]]:
    """Alice and bob on air, the program on, and a viewer of it."""
    alice, bob, viewer = Peer(node, "alice", "owner"), Peer(node, "bob", "guest"), Peer(node, "vera", "viewer")
    try:
        await alice.publish(1, 440)
        await bob.publish(2, 1000)
        await switch_on(store)
        await viewer.watch()
        yield alice, bob, viewer
    finally:
        for peer in (alice, bob, viewer):
            await peer.close()


async def test_two_hosts_become_one_picture_and_one_sound(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    seen, boxes = show[2].watched, grid("alice", "bob")
    await until(lambda: len(seen.counters(boxes["alice"], 1)) > 5, PATIENCE_S)
    await until(lambda: len(seen.counters(boxes["bob"], 2)) > 5, PATIENCE_S)
    await until(lambda: min(seen.hears(440), seen.hears(1000)) > 0.05, PATIENCE_S)
    state = RoomState.from_json(await store.read("demo"))
    published = programs.publications_of(state)
    assert {kind: (each.identity, each.state, each.node) for kind, each in published.items()} == {
        "video": ("program", "live", "n1"),
        "audio": ("program", "live", "n1"),
    }

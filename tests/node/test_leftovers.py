"""What rooms leave behind in a node when they are over: nothing, of all that is the project's own."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from relay.cluster import EmbeddedServer, RedisStore
from relay.egress.events import EgressRequest
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing, create
from tests.node.peers import until
from tests.node.program_peers import Peer

OWNER = Actor("alice", Role.OWNER)
PATIENCE_S = 60.0
SETTLE_S = 30.0  # a worker that waits for the next program starts meanwhile
KEPT = {"relay.egress.manager.Egress", "relay.egress.events.EgressRequest"}
"""The last that ended can still be read."""


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    given = {
        "media.port": 0,
        "node.state_dir": str(tmp_path),
        "egress.recording_min_free_bytes": 1,
        "mix.video.width": 320,
        "mix.video.height": 180,
        "mix.video.fps": 12,
    }
    return dev_settings(environ={}, overrides=given)


async def a_show(node: Node, store: RedisStore, room: str) -> None:
    """Two hosts, a program that is recorded, who watches it and who hears one sound; then the room is over."""
    state, _ = create(Actor("test", Role.SERVICE), room, time.time(), max_seats=4)
    await store.create(room, state.to_json())
    async with AsyncExitStack() as peers:

        def peer(identity: str, role: str) -> Peer:
            made = Peer(node, identity, role, room)
            peers.push_async_callback(made.close)
            return made

        await peer("alice", "owner").publish(1, 440)
        await peer("bob", "guest").publish(2, 1000, video=False)
        await store.change(room, changing(lambda state: programs.switch_on(state, OWNER, time.time())))
        viewer = await peer("vera", "viewer").watch()
        listener = await peer("lea", "viewer").listen()
        await until(lambda: len(viewer.watched.pictures) > 3, PATIENCE_S)
        await until(lambda: len(listener.watched.sound) > 0, PATIENCE_S)
        egress = (await node.egress.start_egress(EgressRequest(room, "recording", "program")))["id"]
        async with asyncio.timeout(PATIENCE_S):
            while (await node.egress.read_egress(egress))["state"] != "running":
                await asyncio.sleep(0.02)
        await node.egress.stop_egress(egress)
        await store.change(room, changing(lambda state: programs.switch_off(state, OWNER, time.time())))
    await store.delete(room, ("room.ended", {}))
    await until(lambda: node.knows(room) is None, PATIENCE_S)


def objects() -> Counter[str]:
    """The objects of the project's classes, by class."""
    gc.collect()
    names = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return Counter({name: count for name, count in names.items() if name.startswith(("relay.", "signaling."))})


async def descriptors(counts: Redis) -> int:
    """Those of this process, without its connections to the store: they are a pool."""
    return len(os.listdir("/proc/self/fd")) - len(await counts.client_list())


async def test_rooms_that_are_over_leave_no_objects_and_no_descriptors(
    server: EmbeddedServer, node: Node, store: RedisStore
) -> None:
    counts = Redis.from_url(server.url, decode_responses=True)
    await a_show(node, store, "first")  # starts the processes that stay, and imports what is used
    before, had = await settled(counts)
    for number in range(3):
        await a_show(node, store, f"show-{number}")
    deadline = time.monotonic() + SETTLE_S
    while True:
        after, has = await settled(counts)
        more = {name: count for name, count in (after - before).items() if name not in KEPT}
        if not more and has <= had:
            break
        assert time.monotonic() < deadline, (more, had, has)
    await counts.aclose()


async def settled(counts: Redis) -> tuple[Counter[str], int]:
    """When neither has changed for two seconds."""
    found = objects(), await descriptors(counts)
    since = time.monotonic()
    while time.monotonic() < since + 2:
        await asyncio.sleep(0.5)
        now = objects(), await descriptors(counts)
        if now != found:
            found, since = now, time.monotonic()
    return found

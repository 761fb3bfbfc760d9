"""Lip sync: a flash and a beep of one instant come out at one instant, by the sync ids that viewers get."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import pytest

from bench.clapping import Clapper, Line, apart_ms, beeps, flashes
from relay.cluster import RedisStore
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer

OWNER = Actor("alice", Role.OWNER)
FPS = 30
HALF_FRAME_MS = 500 / FPS


@pytest.fixture
def settings() -> NodeSettings:
    picture = {"mix.video.width": 320, "mix.video.height": 180, "mix.video.fps": FPS}
    return dev_settings(environ={}, overrides={"media.port": 0, **picture})


async def test_a_flash_and_its_beep_come_out_together(node: Node, store: RedisStore) -> None:
    lines = {90_000: Line(), 48_000: Line()}
    alice, viewer = Peer(node, "alice", "owner"), Peer(node, "vera", "viewer")

    async def follow() -> None:
        async for event in node.session_events(viewer.session):
            if event.type == "slot.timeline":
                lines[event.data["clock_hz"]].told(event.data)

    follower = None
    try:
        await alice.publish_tracks(*Clapper(FPS).tracks)
        await store.change("demo", changing(lambda state: programs.switch_on(state, OWNER, time.time())))
        await viewer.watch()
        follower = asyncio.create_task(follow())
        seen = viewer.watched
        await until(lambda: len(flashes(seen.pictures)) >= 3, 60)
        seen.pictures.clear()
        await until(lambda: len(flashes(seen.pictures)) >= 4, 60)
        pictures, sound, end = list(seen.pictures), seen.sound, seen.sound_end
    finally:
        if follower is not None:
            follower.cancel()
        await viewer.close()
        await alice.close()
    seen_at = [lines[90_000].microseconds(pts + viewer.origin()) for pts in flashes(pictures)]
    heard_at = [lines[48_000].microseconds(pts + viewer.origin("audio")) for pts in beeps(sound, end)]
    together = apart_ms(seen_at, heard_at)
    print(f"picture after sound, ms: {[round(each, 1) for each in together]}")
    assert len(together) >= 2
    assert abs(median(together)) <= 20 + HALF_FRAME_MS

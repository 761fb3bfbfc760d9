"""A host who claps, as a program's viewer sees and hears him, with sound and picture sent apart on purpose."""

from __future__ import annotations

import asyncio
import time

from bench.clapping import Clapper, Line, apart_ms, beeps, flashes
from relay.cluster import RedisStore
from relay.node import Node
from relay.stage import program as programs
from relay.stage.layout import Layout, Rectangle
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer

OWNER = Actor("alice", Role.OWNER)
FPS = 30
ALONE = Layout("custom", rectangles=(Rectangle("alice", 0, 0, 1, 1),))


async def apart(
    origin: Node,
    edge: Node,
    store: RedisStore,
    late_s: float = 0.0,
    settle_s: float = 0.0,
    *,
    one_sound: bool = False,
) -> list[float]:
    """How long after its beep each flash comes out of the program, ms, at a viewer of `edge`, when the pictures of a
    host at `origin` leave `late_s` late; measured `settle_s` after the first ones came out. With `one_sound` the viewer
    hears a mix of his own node."""
    lines = {90_000: Line(), 48_000: Line()}
    alice, viewer = Peer(origin, "alice", "owner"), Peer(edge, "vera", "viewer")

    async def follow() -> None:
        async for event in edge.session_events(viewer.session):
            if event.type == "slot.timeline":
                lines[event.data["clock_hz"]].told(event.data)

    follower = None
    try:
        await alice.publish_tracks(*Clapper(FPS).tracks)
        alice.delay_pictures(late_s)
        await store.change("demo", changing(lambda state: programs.switch_on(state, OWNER, time.time(), layout=ALONE)))
        await viewer.watch(one_sound=one_sound)
        follower = asyncio.create_task(follow())
        seen = viewer.watched
        await until(lambda: len(flashes(seen.pictures)) >= 3, 60)
        await asyncio.sleep(settle_s)
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
    found = apart_ms(seen_at, heard_at)
    print(f"picture after sound, ms: {[round(each, 1) for each in found]}")
    assert len(found) >= 2
    return found

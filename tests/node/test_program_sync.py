"""Lip sync: a flash and a beep of one instant come out at one instant, by the sync ids that viewers get."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import pytest
from aiortc import RTCPeerConnection

from bench.clapping import Clapper, Line, apart_ms, beeps, flashes
from relay.cluster import RedisStore
from relay.node import Node
from relay.node.senders import SenderClocks
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer

OWNER = Actor("alice", Role.OWNER)
FPS = 30
HALF_FRAME_MS = 500 / FPS
LATE_S = 0.12
"""By so much a host's pictures come later than his sound of the same instants."""
FOLLOWED_S = 12.0
"""Reports come within a second and a half, and 120 ms are made up for in three."""


@pytest.fixture
def settings() -> NodeSettings:
    picture = {"mix.video.width": 320, "mix.video.height": 180, "mix.video.fps": FPS}
    return dev_settings(environ={}, overrides={"media.port": 0, **picture})


async def test_a_flash_and_its_beep_come_out_together(node: Node, store: RedisStore) -> None:
    together = await apart(node, store)
    assert abs(median(together)) <= 20 + HALF_FRAME_MS


async def test_they_do_so_when_only_sender_reports_tell_what_belongs_together(node: Node, store: RedisStore) -> None:
    """aiortc sends no capture times. Its pictures leave 120 ms late; what its reports say of them is not changed."""
    together = await apart(node, store, late_s=LATE_S, settle_s=FOLLOWED_S)
    assert abs(median(together)) <= 20 + HALF_FRAME_MS


async def test_without_the_reports_arrival_is_all_there_is(
    node: Node, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above shows what it says it does."""
    monkeypatch.setattr(SenderClocks, "anchor", lambda self, track, layer: None)
    together = await apart(node, store, late_s=LATE_S)
    assert abs(median(together) - 1000 * LATE_S) <= 20 + HALF_FRAME_MS


async def apart(node: Node, store: RedisStore, late_s: float = 0.0, settle_s: float = 0.0) -> list[float]:
    """How long after its beep each flash comes out of the program, ms, when a host's pictures leave `late_s` late;
    measured `settle_s` after the first ones came out."""
    lines = {90_000: Line(), 48_000: Line()}
    alice, viewer = Peer(node, "alice", "owner"), Peer(node, "vera", "viewer")

    async def follow() -> None:
        async for event in node.session_events(viewer.session):
            if event.type == "slot.timeline":
                lines[event.data["clock_hz"]].told(event.data)

    follower = None
    try:
        await alice.publish_tracks(*Clapper(FPS).tracks)
        delay_pictures(alice.pc, late_s)
        await store.change("demo", changing(lambda state: programs.switch_on(state, OWNER, time.time())))
        await viewer.watch()
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


def delay_pictures(pc: RTCPeerConnection, seconds: float) -> None:
    """Have the RTP packets of pictures leave so much later than aiortc thinks they do. Reports go out at once."""
    sender = next(each for each in pc.getSenders() if each.kind == "video")
    transport, ssrc = sender.transport, sender._ssrc.to_bytes(4, "big")
    send, tasks = transport._send_rtp, set[asyncio.Task[None]]()

    async def late(data: bytes) -> None:
        try:
            await asyncio.sleep(seconds)
            await send(data)
        except ConnectionError:
            return  # the connection is closed meanwhile

    async def either(data: bytes) -> None:
        if seconds and data[8:12] == ssrc and not 192 <= data[1] <= 223:
            task = asyncio.create_task(late(data))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            await send(data)

    transport._send_rtp = either

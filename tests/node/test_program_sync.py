"""Lip sync: a flash and a beep of one instant come out at one instant, by the sync ids that viewers get."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest

from relay.cluster import RedisStore
from relay.ids import sync_id_microseconds
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import RATE, Clapper, Peer

OWNER = Actor("alice", Role.OWNER)
FPS = 30
HALF_FRAME_MS = 500 / FPS


@pytest.fixture
def settings() -> NodeSettings:
    picture = {"mix.video.width": 320, "mix.video.height": 180, "mix.video.fps": FPS}
    return dev_settings(environ={}, overrides={"media.port": 0, **picture})


class Line:
    """What the relay said of one slot: which sync id an RTP timestamp is."""

    def __init__(self) -> None:
        self.known: list[tuple[int, int, int]] = []

    def microseconds(self, timestamp: int) -> float:
        at, sync_id, clock_hz = self.known[-1]
        ticks = (timestamp - at + (1 << 31)) % (1 << 32) - (1 << 31)
        return sync_id_microseconds(sync_id) + ticks * 1_000_000 / clock_hz


def flashes(pictures: Sequence[tuple[int, np.ndarray]]) -> list[int]:
    """Times of the pictures that are the first white ones."""
    white = [(pts, luma.mean() > 128) for pts, luma in pictures]
    return [pts for (_, before), (pts, now) in itertools.pairwise(white) if now and not before]


def beeps(sound: np.ndarray, end: int) -> list[int]:
    """Times of the samples at which it gets loud."""
    block = RATE // 1000
    loud = np.abs(sound[: len(sound) // block * block]).reshape(-1, block).max(axis=1) > 0.1
    start = end - len(sound)
    return [
        start + number * block
        for number in range(100, len(loud))
        if loud[number] and not loud[number - 100 : number].any()
    ]


async def test_a_flash_and_its_beep_come_out_together(node: Node, store: RedisStore) -> None:
    lines = {90_000: Line(), 48_000: Line()}
    alice, viewer = Peer(node, "alice", "owner"), Peer(node, "vera", "viewer")

    async def follow() -> None:
        async for event in node.session_events(viewer.session):
            data = event.data
            if event.type == "slot.timeline":
                lines[data["clock_hz"]].known.append((data["rtp_timestamp"], int(data["sync_id"]), data["clock_hz"]))

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
    apart = [min((at - beep for beep in heard_at), key=abs) / 1000 for at in seen_at]
    together = [each for each in apart if abs(each) < 500]
    print(f"picture after sound, ms: {[round(each, 1) for each in together]}")
    assert len(together) >= 2
    assert abs(median(together)) <= 20 + HALF_FRAME_MS

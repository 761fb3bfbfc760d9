"""A node whose programs are made by workers on a Ray cluster: hosts and a viewer by WebRTC."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from relay.cluster import RedisStore
from relay.mix.layout import cells
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.layout import Layout
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer
from tests.workers.ray_cluster import cluster

WIDTH, HEIGHT, FPS = 640, 360, 12
PATIENCE_S = 90.0
OWNER = Actor("alice", Role.OWNER)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeSettings]:
    with cluster(2, monkeypatch) as address:
        picture = {"mix.video.width": WIDTH, "mix.video.height": HEIGHT, "mix.video.fps": FPS}
        ray = {"mix.executor": "ray", "mix.ray.address": address}
        yield dev_settings(environ={}, overrides={"media.port": 0, "mix.video.bitrate_bps": 800_000, **picture, **ray})


@pytest.mark.timeout(300)
async def test_a_viewer_sees_what_an_actor_made_also_after_it_was_killed(node: Node, store: RedisStore) -> None:
    alice, viewer = Peer(node, "alice", "owner"), Peer(node, "vera", "viewer")
    box = cells(Layout(), ("alice",), WIDTH, HEIGHT)[0].box
    seen = viewer.watched
    try:
        await alice.publish(1, 440)
        await store.change("demo", changing(lambda state: programs.switch_on(state, OWNER, time.time())))
        await viewer.watch()
        await until(lambda: len(seen.pictures) > 5 and seen.mark(box) is not None, PATIENCE_S)
        await until(lambda: seen.hears(440) > 0.05, PATIENCE_S)
        pool = node.mixing.video
        first = pool.worker_of("demo")
        assert first.startswith("ray:")
        os.kill(int(first.rpartition("/")[2]), signal.SIGKILL)
        await until(lambda: pool.worker_of("demo") not in ("", first), PATIENCE_S)
        since = len(seen.pictures)
        await until(lambda: len(seen.counters(box, 1, since)) > 5, PATIENCE_S)
    finally:
        await alice.close()
        await viewer.close()

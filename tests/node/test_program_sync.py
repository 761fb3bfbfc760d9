"""Lip sync: a flash and a beep of one instant come out at one instant, by the sync ids that viewers get."""

from __future__ import annotations

from statistics import median

import pytest

from relay.cluster import RedisStore
from relay.node import Node
from relay.node.senders import SenderClocks
from relay.settings import NodeSettings, dev_settings
from tests.node.claps import FPS, apart

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
    together = await apart(node, node, store)
    assert abs(median(together)) <= 20 + HALF_FRAME_MS


async def test_they_do_so_when_only_sender_reports_tell_what_belongs_together(node: Node, store: RedisStore) -> None:
    """aiortc sends no capture times. Its pictures leave 120 ms late; what its reports say of them is not changed."""
    together = await apart(node, node, store, late_s=LATE_S, settle_s=FOLLOWED_S)
    assert abs(median(together)) <= 20 + HALF_FRAME_MS


async def test_without_the_reports_arrival_is_all_there_is(
    node: Node, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above shows what it says it does."""
    monkeypatch.setattr(SenderClocks, "anchor", lambda self, track, layer: None)
    together = await apart(node, node, store, late_s=LATE_S)
    assert abs(median(together) - 1000 * LATE_S) <= 20 + HALF_FRAME_MS

"""Lip sync of a host's own recording, on a real node: by the times in the file, so that no timing decides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

import pytest

from bench.aiortc_peer import Peer
from bench.clapping import Clapper
from relay.egress.events import EgressRequest
from relay.node import Node
from relay.node.senders import SenderClocks
from relay.settings import NodeSettings, dev_settings
from tests.egress.claps import apart
from tests.egress.world import ffmpeg_errors
from tests.node.peers import until

FPS = 30
LATE_S = 0.12
"""By so much a host's pictures come later than his sound of the same instants."""
RECORD = EgressRequest("demo", "recording", "alice")
RECORDED_S = 7.0
MORE_REPORTS_S = 5.0
"""aiortc tells when it sent a picture, not when it was taken: of some reports, one is of a moment without delay."""


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    given = {"node.state_dir": str(tmp_path), "egress.recording_min_free_bytes": 1, "media.port": 0}
    return dev_settings(environ={}, overrides=given)


async def recorded(node: Node, directory: Path, *, reported: bool) -> list[float]:
    """How long after its beep each flash of a host is in his recording, ms, which begins when his reports have come."""
    alice = Peer(node, "alice", "owner")
    senders = node._track_clocks.senders
    try:
        await alice.publish_tracks(*Clapper(FPS).tracks)
        alice.delay_pictures(LATE_S)
        await until(lambda: node.knows("demo") and len(node.knows("demo")["publications"]) == 2, 60)  # type: ignore[index]
        tracks = [track.handle for track in node._rooms.get("demo").local_tracks()]  # type: ignore[union-attr]
        if reported:
            await until(lambda: all(senders.anchor(track, 0) is not None for track in tracks), 60)
            await asyncio.sleep(MORE_REPORTS_S)
        egress = (await node.egress.start_egress(RECORD))["id"]
        await until(lambda: node.egress.facts()[0]["pictures"] >= FPS, 60)
        await asyncio.sleep(RECORDED_S)
        (name,) = (await node.egress.stop_egress(egress))["files"]
    finally:
        await alice.close()
    path = directory / "recordings" / "demo" / name
    assert ffmpeg_errors(path) == ""
    found = apart(path)
    print(f"picture after sound, ms: {[round(each, 1) for each in found]}")
    return found


async def test_sender_reports_tell_what_belongs_together(node: Node, tmp_path: Path) -> None:
    """aiortc sends no capture times. Its pictures leave 120 ms late; what its reports say of them is not changed."""
    assert abs(median(await recorded(node, tmp_path, reported=True))) <= 20


async def test_without_the_reports_arrival_is_all_there_is(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above shows what it says it does."""
    monkeypatch.setattr(SenderClocks, "anchor", lambda self, track, layer: None)
    together = await recorded(node, tmp_path, reported=False)
    assert abs(median(together) - 1000 * LATE_S) <= 20 + 500 / FPS

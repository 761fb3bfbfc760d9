"""Egress of tracks in a real plane of either kind: what is injected there is in the recording."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from relay.egress.events import EgressRequest
from relay.egress.manager import EgressManager
from relay.egress.plane_feed import PlaneFeed, Tapped
from relay.egress.source import Stream
from relay.plane import Kind as PlaneKind
from relay.plane import native_missing
from relay.plane.contract import AddTrack, Kind, LayerSpec, PayloadType
from relay.settings import EgressSettings
from tests.egress.show import AUDIO, AUDIO_PT, STREAMS, VIDEO, VIDEO_PT, Show, clock_ms
from tests.egress.world import ffmpeg_errors, until
from tests.plane.sockets import Host

needs_native = pytest.mark.skipif(bool(native_missing()), reason="the native plane is not built: see rust/README.md")


class PlaneFeeds:
    """Taps both tracks of the one show."""

    def __init__(self, host: Host, streams: Sequence[Stream] = STREAMS) -> None:
        self.host, self.streams = host, streams
        self.feeds: list[PlaneFeed] = []

    async def open(self, room: str, source: str, on_end: Callable[[], None]) -> PlaneFeed:
        layers = [Tapped(stream, stream.number, 0) for stream in self.streams]
        self.feeds.append(PlaneFeed(self.host.plane, layers, on_end))
        return self.feeds[-1]


async def on_air(host: Host, show: Show) -> None:
    began = time.monotonic()
    while True:
        for _, packet in show.packets(round((time.monotonic() - began) * 1e6), clock_ms):
            host.plane.inject(packet.stream, 0, packet.data)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", ["reference", pytest.param("native", marks=needs_native)])
async def test_a_recording_of_injected_tracks(kind: PlaneKind, tmp_path: Path) -> None:
    async with Host(kind) as host:
        video = (PayloadType(VIDEO_PT, "h264", 90_000, profile="42e01f/1"),)
        audio = (PayloadType(AUDIO_PT, "opus", 48_000),)
        host.plane.submit(
            AddTrack(VIDEO, None, Kind.VIDEO, "", video, (LayerSpec(),)),
            AddTrack(AUDIO, None, Kind.AUDIO, "", audio, (LayerSpec(),)),
        )
        feeds = PlaneFeeds(host)
        manager = EgressManager(EgressSettings(recording_min_free_bytes=1), tmp_path, feeds)
        showing = asyncio.create_task(on_air(host, Show()))
        try:
            egress = (await manager.start(EgressRequest("demo", "recording")))["id"]
            await until(lambda: manager.get(egress)["bytes"] > 40_000)
            feeds.feeds[0].end()  # the tracks went, and are there again
            await until(lambda: len(manager.get(egress)["files"]) == 2 and manager.get(egress)["state"] == "running")
            await manager.stop(egress)
        finally:
            await manager.close()
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing
        paths = sorted((tmp_path / "recordings" / "demo").iterdir())
        assert [path.name for path in paths] == manager.get(egress)["files"]
        assert ffmpeg_errors(*paths) == ""

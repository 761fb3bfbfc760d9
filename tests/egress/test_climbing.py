"""A better layer takes another one's place in all that leaves the room, and back: no process ends, no sound is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import m3u8
import numpy as np
import pytest

from relay.egress.events import EgressRequest
from relay.egress.manager import EgressManager
from relay.plane import Kind as PlaneKind
from relay.plane.contract import AddTrack, Kind, LayerSpec, PayloadType
from relay.settings import EgressSettings
from tests.egress.show import AUDIO, AUDIO_PT, BETTER, HIGH, STREAMS, VIDEO, VIDEO_PT, LiveFeeds, Look, Show, clock_ms
from tests.egress.test_plane_feed import PlaneFeeds, needs_native
from tests.egress.test_recording import counters, files, grown, sizes, sound
from tests.egress.test_rtmp import SECRET, free_port, listening, size
from tests.egress.world import World, ffmpeg_errors, until
from tests.plane.sockets import Host

SMALL, LARGE = Look(), Look(width=640, height=360)


@pytest.fixture
def feeds() -> LiveFeeds:
    return LiveFeeds(Show(SMALL, better=LARGE))


@pytest.fixture(autouse=True)
async def ended(feeds: LiveFeeds) -> AsyncIterator[None]:
    yield
    feeds.stop()


def loud(samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> bool:
    """Whether the tone is there in each 40 ms, but for the first two, where the decoder begins."""
    chunks = samples[: len(samples) // 1920 * 1920].reshape(-1, 1920)[2:]
    return bool((np.abs(chunks).max(axis=1) > 1000).all())


def length(path: Path, kind: Literal["audio", "video"]) -> float:
    """Seconds of a track's samples."""
    with av.open(str(path)) as file:
        stream = getattr(file.streams, kind)[0]
        return float(sum(packet.duration for packet in file.demux(stream) if packet.size) * stream.time_base)


async def test_a_recording_goes_on_in_another_file_without_a_gap(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    await grown(world, 30_000)
    (feed,) = feeds.opened
    feed.go_on_with(BETTER)
    await until(lambda: len(world.manager.get(egress)["files"]) == 2)
    await until(lambda: feed.switches == [HIGH])
    await grown(world, 60_000)
    feed.go_on_with(STREAMS[0])  # as when it falls silent
    await until(lambda: len(world.manager.get(egress)["files"]) == 3)
    await grown(world, 30_000)
    await world.manager.stop(egress)
    paths = files(world)
    assert [sizes(path) for path in paths] == [{(320, 180)}, {(640, 360)}, {(320, 180)}]
    assert ffmpeg_errors(*paths) == ""
    told = [counters(path) for path in paths]
    for before, after in pairwise(told):
        assert -1 <= after[0] - before[-1] - 1 <= 3  # one that both have shown, or a keyframe on its way
    for path in paths[:-1]:  # what is cut off at the end is another matter
        assert length(path, "audio") == pytest.approx(length(path, "video"), abs=0.045)  # two units of sound
    assert sum(length(path, "audio") for path in paths[:-1]) == pytest.approx(
        sum(length(path, "video") for path in paths[:-1]), abs=0.045
    )
    assert all(loud(sound(path)) for path in paths)
    assert world.states(egress) == ["starting", "running", "ended"]
    assert world.manager.get(egress)["restarts"] == 0


async def test_a_playlist_has_a_break_and_its_times_go_on(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("hls")
    await world.running(egress)
    (feed,) = feeds.opened
    feed.go_on_with(BETTER)
    await until(lambda: feed.switches == [HIGH])

    async def goes_on() -> bool:
        text = (await world.manager.playlist(egress, None, None)).text
        return "init1.mp4" in text.rpartition("#EXTINF")[0]

    await until(goes_on)
    playlist = m3u8.loads((await world.manager.playlist(egress, None, None)).text)
    whole = [segment for segment in playlist.segments if segment.uri]
    assert [segment.discontinuity for segment in whole].count(True) == 1
    for before, after in pairwise(whole):
        step = (after.program_date_time - before.program_date_time).total_seconds()
        assert step == pytest.approx(before.duration, abs=0.002)
    directory = next((world.directory / "hls").iterdir())
    for init, height in (("init0.mp4", 180), ("init1.mp4", 360)):
        data = (directory / init).read_bytes()
        data += b"".join((directory / s.uri).read_bytes() for s in whole if s.init_section.uri == init)
        path = world.directory / init
        path.write_bytes(data)
        assert ffmpeg_errors(path) == ""
        assert {found for _, found in sizes(path)} == {height}
    assert world.states(egress) == ["starting", "running"]


async def test_a_push_goes_on_with_another_sequence_header(world: World, feeds: LiveFeeds, tmp_path: Path) -> None:
    feeds.start()
    port, path = free_port(), tmp_path / "pushed.flv"
    async with listening(port, path) as server:
        egress = await world.start("rtmp", url=f"rtmp://127.0.0.1:{port}/live/{SECRET}")
        await world.running(egress)
        await until(lambda: size(path) > 40_000)
        feeds.opened[0].go_on_with(BETTER)
        await until(lambda: feeds.opened[0].switches == [HIGH])
        before = size(path)
        await until(lambda: size(path) > before + 100_000)
        await world.manager.stop(egress)
        assert await asyncio.wait_for(server.wait(), 20) == 0
    assert ffmpeg_errors(path) == ""
    assert sizes(path) == {(320, 180), (640, 360)}
    told = counters(path)
    assert told == sorted(told)
    assert len(told) > 60
    with av.open(str(path)) as file:
        times = [packet.dts for packet in file.demux(audio=0) if packet.size]
    assert max(after - before for before, after in pairwise(times)) <= 25  # ms
    assert world.states(egress) == ["starting", "running", "ended"]


async def test_a_layer_whose_keyframe_never_comes_changes_nothing(world: World, feeds: LiveFeeds) -> None:
    feeds.show.silent.add(HIGH)
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    (feed,) = feeds.opened
    asked = feeds.keyframes_asked
    feed.go_on_with(BETTER)
    await until(lambda: feeds.keyframes_asked >= asked + 2)
    feed.go_on_with(STREAMS[0])
    await grown(world, 30_000)
    await world.manager.stop(egress)
    (path,) = files(world)
    assert ffmpeg_errors(path) == ""
    told = counters(path)
    assert told == list(range(told[0], told[0] + len(told)))
    assert feed.switches == []


# --- a real plane -----------------------------------------------------------------------------------------------------


async def on_air(host: Host, show: Show) -> None:
    """The show's layers, as those of one track."""
    began, places = time.monotonic(), {VIDEO: (VIDEO, 0), HIGH: (VIDEO, 1), AUDIO: (AUDIO, 0)}
    while True:
        for _, packet in show.packets(round((time.monotonic() - began) * 1e6), clock_ms):
            host.plane.inject(*places[packet.stream], packet.data)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", ["reference", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("codec", ["h264", "vp8"])
async def test_layers_of_a_plane_s_track(kind: PlaneKind, codec: Literal["h264", "vp8"], tmp_path: Path) -> None:
    show = Show(Look(codec=codec), better=Look(codec=codec, width=640, height=360))
    async with Host(kind) as host:
        video = (PayloadType(VIDEO_PT, codec, 90_000, profile="42e01f/1" if codec == "h264" else ""),)
        audio = (PayloadType(AUDIO_PT, "opus", 48_000),)
        host.plane.submit(
            AddTrack(VIDEO, None, Kind.VIDEO, "", video, (LayerSpec(rid="q"), LayerSpec(rid="h"))),
            AddTrack(AUDIO, None, Kind.AUDIO, "", audio, (LayerSpec(),)),
        )
        feeds = PlaneFeeds(host, show.look.streams)
        manager = EgressManager(EgressSettings(recording_min_free_bytes=1), tmp_path, feeds)
        showing = asyncio.create_task(on_air(host, show))
        numbers = iter(range(100, 200))
        try:
            egress = (await manager.start(EgressRequest("demo", "recording")))["id"]
            await until(lambda: manager.get(egress)["bytes"] > 30_000)
            (feed,) = feeds.feeds
            feed.go_on_with(VIDEO, 1, numbers.__next__)
            feed.go_on_with(VIDEO, 1, numbers.__next__)
            assert feed.wanted_layer(VIDEO) == 1
            await until(lambda: [stream.number for stream in feed.streams] == [100, AUDIO])
            assert set(feed._layers) == {100, AUDIO}  # the other tap is gone
            before = manager.get(egress)["bytes"]
            await until(lambda: manager.get(egress)["bytes"] > before + 60_000)
            feed.go_on_with(VIDEO, 0, numbers.__next__)
            feed.go_on_with(VIDEO, 1, numbers.__next__)  # before its keyframe came, or after
            feed.go_on_with(VIDEO, 0, numbers.__next__)
            await until(lambda: len(manager.get(egress)["files"]) >= 3)
            await manager.stop(egress)
        finally:
            await manager.close()
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing
        paths = sorted((tmp_path / "recordings" / "demo").iterdir())
        assert ffmpeg_errors(*paths) == ""
        assert [sizes(path) for path in paths[:3]] == [{(320, 180)}, {(640, 360)}, {(320, 180)}]
        told = [counter for path in paths for counter in counters(path)]
        assert told == sorted(told)

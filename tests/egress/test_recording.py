"""Recordings: playable after a kill -9, resumed, bounded, and clean whatever the source does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import av
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from costream.painting import read
from costream.tones import detect
from relay.egress.events import EgressChanged, RecordingFileClosed
from relay.egress.mp4 import box
from relay.egress.record import GROWING, recover
from relay.errors import NotFound
from tests.egress.show import AUDIO, VIDEO, LiveFeeds, Look, Rtp, Show
from tests.egress.world import World, ffmpeg_errors, until
from tests.processes import ended


def counters(path: Path) -> list[int]:
    """What the pictures of a file say, in the order in which they are shown."""
    with av.open(str(path)) as file:
        pictures = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
    told = [read(picture) for picture in pictures]
    return [painted.counter for painted in told if painted is not None]


def sizes(path: Path) -> set[tuple[int, int]]:
    with av.open(str(path)) as file:
        return {(frame.width, frame.height) for frame in file.decode(video=0)}


def sound(path: Path) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    with av.open(str(path)) as file:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


def files(world: World) -> list[Path]:
    return sorted((world.directory / "recordings" / "demo").glob("*.mp4"))


async def grown(world: World, least: int) -> None:
    """Until the recording has so many bytes more than now."""
    egress = world.manager.list()[0]["id"]
    now = world.manager.get(egress)["bytes"]
    await until(lambda: world.manager.get(egress)["bytes"] >= now + least)


async def test_a_recording_has_every_picture_and_the_tone(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    await grown(world, 60_000)
    facts = await world.manager.stop(egress)
    (path,) = files(world)
    assert facts["files"] == [path.name]
    assert ffmpeg_errors(path) == ""
    told = counters(path)
    assert told == list(range(told[0], told[0] + len(told)))
    assert len(told) >= 40
    heard = detect(sound(path)[24_000:72_000])
    assert heard is not None
    assert heard.frequency == pytest.approx(feeds.show.look.tone, abs=5)
    closed = next(each for each in world.events if isinstance(each, RecordingFileClosed))
    assert closed.bytes == path.stat().st_size


async def test_a_killed_process_leaves_a_clean_file_and_the_next_goes_on(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("recording")
    hls = await world.start("hls")
    await world.running(egress)
    await world.running(hls)
    await grown(world, 40_000)
    (growing,) = files(world)
    assert growing.name.endswith(GROWING)
    last = feeds.show.video.pictures
    (pid,) = world.pids()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    assert ffmpeg_errors(growing) == ""  # as it lies there
    assert last - counters(growing)[-1] <= 40  # it had all but the last second
    await until(lambda: len(world.manager.get(egress)["files"]) == 2)
    await grown(world, 30_000)
    playlist = await world.manager.playlist(hls, None, None)
    assert "#EXT-X-DISCONTINUITY\n" in playlist.text
    await world.manager.stop(egress)
    first, second = files(world)
    assert [path.name for path in (first, second)] == world.manager.get(egress)["files"]
    told = [(each.name, each.bytes) for each in world.events if isinstance(each, RecordingFileClosed)]
    assert told == [(path.name, path.stat().st_size) for path in (first, second)]
    assert ffmpeg_errors(first, second) == ""
    assert counters(first)[-1] < counters(second)[0]
    assert world.states(egress) == ["starting", "running", "retrying", "running", "ended"]
    assert world.codes(egress) == {"process-died"}


async def test_another_size_goes_into_another_file(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    await grown(world, 30_000)
    feeds.show.video.change(Look(width=480, height=270))
    await until(lambda: len(world.manager.get(egress)["files"]) == 2)
    await grown(world, 30_000)
    await world.manager.stop(egress)
    first, second = files(world)
    assert (sizes(first), sizes(second)) == ({(320, 180)}, {(480, 270)})
    assert ffmpeg_errors(first, second) == ""


async def test_a_full_disk_is_an_event_and_the_rest_goes_on(world: World, feeds: LiveFeeds) -> None:
    world.use(recording_min_free_bytes=1 << 60)
    feeds.start()
    egress = await world.start("recording")
    hls = await world.start("hls")
    await until(lambda: world.codes(egress) == {"disk-full"})
    assert world.manager.get(egress)["state"] == "retrying"
    await world.running(hls)
    assert not files(world)


async def test_a_limit_on_files_is_kept_in_the_middle_of_one(world: World, feeds: LiveFeeds) -> None:
    """The kernel refuses bytes in the middle of a fragment, as a full disk does: what is there stays clean."""
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    (pid,) = world.pids()
    psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (90_001, psutil.RLIM_INFINITY))
    await until(lambda: len(world.manager.get(egress)["files"]) >= 2)
    await world.manager.stop(egress)
    first = files(world)[0]
    assert first.stat().st_size <= 90_001
    assert ffmpeg_errors(*files(world)) == ""
    assert world.codes(egress) == {"disk-full"}


async def test_corrupt_and_missing_packets_cost_pictures_only(world: World, feeds: LiveFeeds) -> None:
    count = 0

    def spoil(packet: Rtp) -> bytes | None:
        nonlocal count
        count += 1
        if count % 23 == 0:
            return None
        if count % 37 == 0:
            return packet.data[:12] + b"\x7c\xff\x00\x55" * 5 if packet.stream == VIDEO else packet.data[:13]
        if count % 41 == 0:
            return b"\x80"
        return packet.data

    feeds.spoil = spoil
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    await grown(world, 60_000)
    await world.manager.stop(egress)
    assert ffmpeg_errors(*files(world)) == ""
    told = [counter for path in files(world) for counter in counters(path)]
    assert told == sorted(set(told))
    assert feeds.keyframes_asked > 0
    assert world.codes(egress) == set()


async def test_absent_sound_is_silence(world: World, feeds: LiveFeeds) -> None:
    feeds.show.silent.add(AUDIO)
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    await grown(world, 40_000)
    await world.manager.stop(egress)
    (path,) = files(world)
    assert ffmpeg_errors(path) == ""
    samples = sound(path)
    assert not samples.any()
    assert len(samples) >= len(counters(path)) / 30 * 48_000 - 48_000


async def test_sources_without_keyframes_are_asked_for_them(tmp_path: Path) -> None:
    feeds = LiveFeeds(Show(Look(gop=0)))
    world = World(feeds, tmp_path)
    try:
        feeds.start()
        egress = await world.start("hls")
        await world.running(egress)

        async def comes_twice() -> bool:
            return (await world.manager.playlist(egress, None, None)).text.count("INDEPENDENT=YES") >= 2

        await until(comes_twice)
        assert feeds.keyframes_asked >= 1
    finally:
        await world.close()
        feeds.stop()


async def test_a_source_that_ends_is_waited_for(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    (feed,) = feeds.opened
    feed.on_end()
    await until(lambda: "retrying" in world.states(egress))
    await until(lambda: world.states(egress)[-1] == "running")
    assert world.codes(egress) == {"no-source"}


async def test_the_last_file_is_told_before_the_end_also_when_the_source_was_away(
    world: World, feeds: LiveFeeds
) -> None:
    feeds.start()
    egress = await world.start("recording")
    hls = await world.start("hls")  # so that the process goes on without the recording
    await world.running(egress)
    (feed,) = feeds.opened
    feed.on_end()
    await until(lambda: "retrying" in world.states(egress))
    await until(lambda: len(world.manager.get(egress)["files"]) == 2)
    await world.running(egress)
    facts = await world.manager.stop(egress)
    told = [each for each in world.events if each.id == egress]
    closed = [each.name for each in told if isinstance(each, RecordingFileClosed)]
    assert closed == facts["files"]
    assert told[-1] == EgressChanged(egress, "demo", "recording", "program", "ended", "", "")
    await world.running(hls)


async def test_what_a_killed_process_left_is_finished_when_its_source_never_returns(
    world: World, feeds: LiveFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise NotFound("it left", code="publication-not-found")

    feeds.start()
    egress = await world.start("recording")
    await world.running(egress)
    await grown(world, 40_000)
    monkeypatch.setattr(world.feeds, "open", refuse)
    (pid,) = world.pids()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: "no-source" in world.codes(egress))
    facts = await world.manager.stop(egress)
    (path,) = files(world)
    assert facts["files"] == [path.name]
    assert ffmpeg_errors(path) == ""
    closed = [each.name for each in world.events if isinstance(each, RecordingFileClosed)]
    assert closed == [path.name]


async def test_no_source_is_said_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise NotFound("no program", code="publication-not-found")

    monkeypatch.setattr(world.feeds, "open", refuse)
    with pytest.raises(NotFound):
        await world.start("hls")
    assert world.manager.list() == []


def test_recovery_cuts_torn_ends(tmp_path: Path) -> None:
    whole = box(b"ftyp", b"") + box(b"moov", b"") + box(b"moof", b"a") + box(b"mdat", b"b")
    for name, tail in {
        "a": b"",
        "b": b"\0\0",
        "c": box(b"moof", b"c"),
        "d": box(b"moof", b"c") + b"\0\0\0\x99mdat",
    }.items():
        (tmp_path / (name + GROWING)).write_bytes(whole + tail)
    (tmp_path / ("e" + GROWING)).write_bytes(whole[:20])
    (tmp_path / ("f" + GROWING)).write_bytes(b"")
    assert [path.name for path in recover(tmp_path)] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {whole}
    assert len(list(tmp_path.iterdir())) == 4

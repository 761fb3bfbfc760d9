"""Segments, parts and playlists: m3u8 reads every state, ffmpeg what is in them; nothing here waits for a clock."""

from __future__ import annotations

import contextlib
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import m3u8
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.egress.audio import AudioLine
from relay.egress.hls import HlsOutput
from relay.egress.media import AudioConfig, AudioUnit, VideoUnit
from relay.egress.messages import AddHls, HlsAdvanced
from relay.egress.mp4 import whole_boxes
from relay.egress.playlist import Playlist
from relay.egress.segmenter import SHORTEST_US, InitReady, PartReady, Segmenter, SegmentReady
from relay.egress.source import Source
from relay.errors import UsageError
from tests.egress.show import STREAMS, VIDEO, Look, Show, VideoLine
from tests.egress.world import ffmpeg_errors

AUDIO = AudioConfig(b"\x11\x90")
PART, SEGMENT, LONGEST = 300_000, 2_000_000, 3_000_000


def units(seconds: float, look: Look | None = None, *, then: Look | None = None) -> list[VideoUnit | AudioUnit]:
    """A show's units; `then`: it goes on with another look."""
    show = Show(look)
    source = Source(STREAMS)
    found = [u for at, p in show.packets(round(seconds * 1e6), lambda: 0) for u in source.receive(p.stream, at, p.data)]
    if then is not None:
        show.video.change(then)
        packets = show.packets(round(2e6 * seconds), lambda: 0)
        found += [unit for at, packet in packets for unit in source.receive(packet.stream, at, packet.data)]
    return found


def wanted(directory: Path, **other: Any) -> AddHls:
    return AddHls("e", str(directory), 300, 2000, 3.0, 3, **other)


@pytest.mark.parametrize("fps", [10, 15, 20, 24, 25, 30, 50, 60])
def test_parts_keep_the_rules_at_usual_frame_rates(fps: int) -> None:
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    events = [event for unit in units(5, Look(fps=fps, gop=2 * fps)) for event in segmenter.take(unit)]
    segments = [[]]  # type: ignore[var-annotated]
    for event in events:
        if isinstance(event, PartReady):
            segments[-1].append(event)
        elif isinstance(event, SegmentReady):
            segments.append([])
    for segment in segments[:2]:
        assert segment[0].independent
        assert all(part.duration <= PART for part in segment)
        assert all(part.duration >= 0.85 * PART for part in segment[1:-1])  # RFC 8216bis, 4.4.4.9
        assert sum(part.duration for part in segment) == pytest.approx(SEGMENT, abs=40_000)


@pytest.mark.parametrize(
    "gaps_ms",
    [[33] * 20 + [450] + [33] * 40, [1000] * 8, [200, 33, 283, 33, 33, 250] * 6, [700, 33, 33, 33] * 5],
    ids=["one late picture", "one a second", "uneven", "bursts"],
)
def test_no_part_is_longer_than_told_when_pictures_come_unevenly(gaps_ms: list[int]) -> None:
    """As of a shared screen, which sends pictures when something changes. Players rely on PART-TARGET and on
    EXT-X-TARGETDURATION (RFC 8216bis, 4.4.3.1 and 4.4.3.7)."""
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    first = next(unit for unit in units(0.2) if isinstance(unit, VideoUnit))
    now, events = first.time, segmenter.take(first)
    position = now * 48 // 1000
    for gap in gaps_ms:
        now += 1000 * gap
        while (sound := AudioUnit(position, b"x")).time < now - 60_000:  # it comes later than pictures
            events += segmenter.take(sound) + segmenter.tick(sound.time)
            position += 1024
        events += segmenter.take(first._replace(time=now, keyframe=False)) + segmenter.tick(now)
    events += segmenter.finish()
    parts = [event for event in events if isinstance(event, PartReady)]
    assert max(part.duration for part in parts) <= PART
    assert max(event.duration for event in events if isinstance(event, SegmentReady)) <= LONGEST
    assert sum(part.pictures for part in parts) == 1 + len(gaps_ms)
    assert all(before.start + before.duration <= after.start for before, after in pairwise(parts))
    assert sum(part.duration for part in parts) >= now - first.time - PART  # sound fills it


@pytest.mark.parametrize(("fps", "gop"), [(5, 10), (7.5, 16), (15, 32), (20, 42), (30, 64)])
def test_no_part_is_of_no_length(fps: float, gop: int) -> None:
    """Frames last no whole number of microseconds, so keyframes come a little later than foreseen, where a part ended;
    sound comes late."""
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    first = next(unit for unit in units(0.2) if isinstance(unit, VideoUnit))
    position, events, pictures = first.time * 48 // 1000, [], round(30 * fps)
    for index in range(pictures):
        now = first.time + int(index * 1e6 / fps)
        while (sound := AudioUnit(position, b"x")).time < now - 60_000:
            events += segmenter.take(sound)
            position += 1024
        events += segmenter.take(first._replace(time=now, keyframe=index % gop == 0))
    parts = [event for event in events if isinstance(event, PartReady)]
    assert SHORTEST_US <= min(part.duration for part in parts) <= max(part.duration for part in parts) <= PART
    assert all(before.start + before.duration == after.start for before, after in pairwise(parts))
    segments = [event for event in events if isinstance(event, SegmentReady)]
    assert len(segments) >= 13
    begins = {segment.start for segment in segments}
    assert all(part.independent for part in parts if part.start in begins)


def test_a_part_is_out_with_its_last_picture() -> None:
    """And not with the next one, which would be a picture later."""
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    count = 0
    for unit in units(1):
        events = segmenter.take(unit)
        count += isinstance(unit, VideoUnit)
        for event in events:
            if isinstance(event, PartReady):
                assert count % 9 == 0
                assert event.pictures == 9


def test_pictures_that_stop_do_not_hold_back_the_sound() -> None:
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    taken = units(3)
    start = taken[0].time
    events = [e for u in taken if not isinstance(u, VideoUnit) or u.time < start + 1_000_000 for e in segmenter.take(u)]
    events += segmenter.tick(start + 3_500_000)
    parts = [event for event in events if isinstance(event, PartReady)]
    assert parts[-1].pictures == 0
    assert sum(part.duration for part in parts) == pytest.approx(3_000_000, abs=PART)
    assert any(isinstance(event, SegmentReady) for event in events)


def test_decoding_times_have_no_gap_when_pictures_come_late(tmp_path: Path) -> None:
    """Every picture is late or early by up to two of its intervals; parts in a row make a clean file."""
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    data = b""
    shifts = [0, 50_000, -20_000, 60_000, 10_000, 0, 30_000]
    last = 0
    for index, unit in enumerate(units(3)):
        if isinstance(unit, VideoUnit):
            last = max(last + 1000, unit.time + shifts[index % len(shifts)])
            moved: VideoUnit | AudioUnit = unit._replace(time=last)
        else:
            moved = unit
        data += b"".join(event.data for event in segmenter.take(moved) if not isinstance(event, SegmentReady))
    path = tmp_path / "show.mp4"
    path.write_bytes(data)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert len(packets) >= 80
    assert all(before.dts + before.duration == after.dts for before, after in pairwise(packets))
    assert all(after.pts - before.pts >= 80 for before, after in pairwise(packets))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400_000), st.booleans()), max_size=60))
def test_no_order_of_units_breaks_the_sums(steps: list[tuple[bool, int, bool]]) -> None:
    """Declared durations follow each other without a gap, whatever the times."""
    first = next(unit for unit in units(0.2) if isinstance(unit, VideoUnit))
    segmenter = Segmenter(AUDIO, PART, SEGMENT, LONGEST)
    now, position, end = first.time, first.time * 48 // 1000, None
    for is_video, step, keyframe in [(True, 0, True), *steps]:
        now += step + 1000
        position += 1024
        unit = first._replace(time=now, keyframe=keyframe) if is_video else AudioUnit(position, b"x")
        for event in [*segmenter.take(unit), *segmenter.tick(now), *(segmenter.finish() if step == 7 else ())]:
            if isinstance(event, InitReady):
                end = None
            elif isinstance(event, PartReady):
                assert 0 < event.duration <= PART
                assert end is None or event.start >= end - 1
                end = event.start + event.duration
                assert [kind for kind, _, _ in whole_boxes(event.data, len(event.data))] == [b"moof", b"mdat"]


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(UsageError):
        Segmenter(AUDIO, 3, 2, 1)


# --- playlists --------------------------------------------------------------------------------------------------------


def check(text: str) -> m3u8.M3U8:
    """What holds in every state of a playlist."""
    playlist = m3u8.loads(text)
    assert playlist.target_duration == 3
    assert playlist.part_inf.part_target == pytest.approx(0.3)
    assert playlist.server_control.can_block_reload == "YES"
    assert playlist.server_control.part_hold_back >= 3 * playlist.part_inf.part_target
    for segment in playlist.segments:
        if segment.uri:
            assert round(segment.duration) <= playlist.target_duration
            if segment.parts:
                assert sum(part.duration for part in segment.parts) == pytest.approx(segment.duration, abs=0.001)
        assert all(part.duration <= 0.31 for part in segment.parts)
    return playlist


def test_every_state_of_a_playlist_can_be_read_and_every_file_is_there(tmp_path: Path) -> None:
    told: list[HlsAdvanced] = []
    taken = units(14)
    output = HlsOutput(wanted(tmp_path), AudioLine().config, True, 1_700_000_000_000_000, told.append)
    seen = 0
    for unit in taken:
        output.take(unit)
        for state in told[seen:]:
            playlist = check(state.text)
            named = [s.uri for s in playlist.segments if s.uri] + [p.uri for s in playlist.segments for p in s.parts]
            named += [each.uri for each in playlist.segment_map]
            assert all((tmp_path / name).is_file() for name in named)
            assert not state.parts or f"part{state.sequence}.{state.parts - 1}.m4s" in named
            assert f'URI="part{state.sequence}.{state.parts}.m4s"' in state.text.splitlines()[-1]
        seen = len(told)
    sequences = [m3u8.loads(state.text).media_sequence for state in told]
    assert sequences == sorted(sequences)
    assert sequences[-1] == 3
    assert len(list(tmp_path.glob("seg*"))) == 6  # twice the window
    whole = tmp_path / "whole.mp4"
    parts = [tmp_path / f"seg{n}.m4s" for n in range(1, 6)]
    whole.write_bytes((tmp_path / "init0.mp4").read_bytes() + b"".join(part.read_bytes() for part in parts))
    assert ffmpeg_errors(whole) == ""
    output.close()
    assert check(told[-1].text).is_endlist
    dates = [segment.program_date_time for segment in m3u8.loads(told[-1].text).segments if segment.uri]
    lengths = [segment.duration for segment in m3u8.loads(told[-1].text).segments if segment.uri]
    assert (dates[1] - dates[0]).total_seconds() == pytest.approx(lengths[0], abs=0.002)


def test_another_size_is_a_discontinuity_with_its_own_init(tmp_path: Path) -> None:
    told: list[HlsAdvanced] = []
    output = HlsOutput(wanted(tmp_path), AUDIO, True, 0, told.append)
    for unit in units(3, then=Look(width=640, height=360)):
        output.take(unit)
    text = told[-1].text
    check(text)
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1
    assert text.count("#EXT-X-MAP") == 2
    assert 'URI="init1.mp4"' in text
    assert told[-1].inits == 2


def test_breaks_that_left_the_list_are_counted() -> None:
    playlist = Playlist(PART, 3.0, 3, 2)
    counts = []
    for number in range(8):
        playlist.init(f"init{number}.mp4")
        playlist.add_part(PART, True, 0.0)
        playlist.end_segment()
        counts.append(m3u8.loads(playlist.render()).discontinuity_sequence)
    assert counts == [0, 0, 0, 1, 2, 3, 4, 5]


def test_one_that_goes_on_after_a_crash_does_not_use_names_again(tmp_path: Path) -> None:
    told: list[HlsAdvanced] = []
    output = HlsOutput(wanted(tmp_path, sequence=7, init=2), AUDIO, True, 0, told.append)
    for unit in units(1):
        output.take(unit)
    playlist = check(told[-1].text)
    assert playlist.media_sequence == 7
    assert "#EXT-X-DISCONTINUITY\n" in told[-1].text
    assert {path.name[:6] for path in tmp_path.glob("*")} == {"init2.", "part7."}


def test_one_that_goes_on_after_a_crash_removes_what_the_one_before_left(tmp_path: Path) -> None:
    """Its playlist names neither the segments that had left it nor the parts of older ones: a stream whose source comes
    and goes would fill the disk."""
    taken = units(16)
    text, last = "", 0
    for _ in range(2):
        told: list[HlsAdvanced] = []
        output = HlsOutput(wanted(tmp_path, text=text, init=last), AUDIO, True, 0, told.append)
        for unit in taken:
            output.take(unit)
        text, last = told[-1].text, told[-1].inits
    names = [path.name for path in tmp_path.glob("*.m4s")]
    oldest = min(int(name.removeprefix("part").removeprefix("seg").split(".")[0]) for name in names)
    assert oldest >= told[-1].sequence - 6  # twice the window
    check(text)


def test_sound_alone_plays_too(tmp_path: Path) -> None:
    told: list[HlsAdvanced] = []
    output = HlsOutput(wanted(tmp_path), AudioLine().config, False, 0, told.append)
    for unit in units(5):
        if isinstance(unit, AudioUnit):
            output.take(unit)
    check(told[-1].text)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes((tmp_path / "init0.mp4").read_bytes() + (tmp_path / "seg0.m4s").read_bytes())
    assert ffmpeg_errors(whole) == ""


def test_the_show_of_these_tests_counts_its_pictures() -> None:
    line = VideoLine(Look(), random.Random(1))
    assert all(packet.stream == VIDEO for packet in line.next(0))
    assert line.pictures == 1


@given(st.lists(st.sampled_from(["part", "segment", "init", "late"]), max_size=60), st.integers(2, 6))
def test_a_playlist_goes_on_after_its_process(moves: list[str], window: int) -> None:
    """Whatever it had come to: the next one says the same, then breaks and counts on."""
    before = Playlist(PART, 3.0, 3, window)
    before.init("init0.mp4")
    wall = 1_700_000_000.0
    for move in moves:
        match move:
            case "init" if not before.parts:
                before.init(f"init{len(moves)}.mp4")
            case "segment" if before.parts:
                before.end_segment()
            case "part" | "late":
                before.add_part(PART if move == "part" else 123_450, move == "part", wall)
                wall += 1
    after = Playlist(PART, 3.0, 3, window)
    names = after.go_on(before.render())
    assert len(names) == before.parts
    told = [line for line in before.render().splitlines() if "PRELOAD" not in line]
    assert [line for line in after.render().splitlines() if "PRELOAD" not in line] == told
    if names:
        after.end_segment()
    after.init("init99.mp4")
    after.add_part(PART, True, wall)
    ended = after.end_segment()[0]
    assert ended == f"seg{before.sequence + bool(names)}.m4s"
    heard = m3u8.loads(after.render())
    assert heard.segments[-1].discontinuity
    breaks = heard.discontinuity_sequence + sum(each.discontinuity for each in heard.segments)
    older = m3u8.loads(before.render())
    open_break = bool(names) and "#EXT-X-DISCONTINUITY\n" in before.render().rpartition("#EXTINF")[2]
    assert breaks == older.discontinuity_sequence + sum(each.discontinuity for each in older.segments) + open_break + 1


@given(st.text(max_size=80), st.text(alphabet='#EXT-X:PARTURI="01234.,m4sinitg\n', max_size=200))
def test_what_is_no_playlist_of_ours_is_refused_or_read(first: str, second: str) -> None:
    head = "#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n"
    for text in (first, second, head + first, head + second):
        with contextlib.suppress(ValueError):
            Playlist(PART, 3.0, 3, 3).go_on(text)

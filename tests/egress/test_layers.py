"""Which layer is taken, and what becomes of pictures and sound where one takes the place of another."""

from __future__ import annotations

import functools
from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.egress.layers import FALL_S, KEPT_S, MOST_STEADY_S, STEADY_S, LayerChoice
from relay.egress.media import AudioConfig, AudioUnit, Unit, VideoUnit
from relay.egress.mp4 import whole_boxes
from relay.egress.segmenter import STALL_US, Event, InitReady, PartReady, Segmenter, SegmentReady
from relay.egress.source import Source, Stream
from relay.errors import UsageError
from tests.egress.show import AUDIO, BETTER, HIGH, STREAMS, VIDEO, Look, Rtp, Show

CONFIG = AudioConfig(b"\x11\x90")
PART, SEGMENT, LONGEST = 300_000, 2_000_000, 3_000_000
LATE = [(0, 0), (20_000, 0), (90_000, 0), (0, 40_000), (10_000, 90_000)]

# --- which one --------------------------------------------------------------------------------------------------------


def test_a_better_layer_is_taken_once_it_is_steady() -> None:
    choice = LayerChoice({0}, 10.0)
    assert choice.choose({0, 1}, 11.0) == 0
    assert choice.choose({0, 1, 2}, 12.0) == 0
    assert choice.choose({0, 1, 2}, 11.0 + STEADY_S) == 1
    assert choice.choose({0, 1, 2}, 12.0 + STEADY_S) == 2


def test_layers_that_start_together_are_one_change() -> None:
    choice = LayerChoice({0}, 0.0)
    taken = [choice.choose({0, 1, 2} if now > 1 else {0}, now / 2) for now in range(20)]
    assert set(taken) == {0, 2}


def test_a_layer_that_falls_silent_is_left_for_the_best_steady_one() -> None:
    choice = LayerChoice({0, 1, 2}, 0.0)
    assert choice.layer == 2
    assert choice.choose({0, 1}, 10.0) == 2
    assert choice.choose({0, 1}, 10.0 + FALL_S) == 1
    assert choice.choose({0, 2}, 10.5) == 1
    assert choice.choose({0, 2}, 10.5 + FALL_S) == 0  # 2 has just begun
    assert choice.choose({2}, 11.0) == 0
    assert choice.choose({2}, 11.0 + FALL_S) == 2  # better than nothing


def test_where_all_fall_silent_the_best_one_is_waited_for() -> None:
    choice = LayerChoice({0, 1, 2}, 0.0)
    for active, now in (({0, 1}, 5.0), ({0}, 5.1), (set[int](), 5.2), ({0}, 30.0), ({0, 1, 2}, 30.1), ({0}, 30.2)):
        assert choice.choose(active, now) == 2
    assert choice.choose({0}, 30.2 + FALL_S) == 0


def test_each_fall_makes_it_more_careful_and_a_long_stay_forgives() -> None:
    choice, now, waits = LayerChoice({0, 1}, 0.0), 0.0, []
    for _ in range(7):
        now += 1.0
        choice.choose({0}, now)
        now += FALL_S
        assert choice.choose({0}, now) == 0
        began = now
        while choice.choose({0, 1}, now) == 0:
            now += 0.5
        waits.append(now - began)
    assert waits == [2 * STEADY_S, 4 * STEADY_S, 8 * STEADY_S, 16 * STEADY_S, *[MOST_STEADY_S] * 3]
    choice.choose({0, 1}, now + KEPT_S)
    now += KEPT_S
    choice.choose({0}, now)
    assert choice.choose({0}, now + FALL_S) == 0
    choice.choose({0, 1}, now + FALL_S)
    assert choice.choose({0, 1}, now + FALL_S + 2 * STEADY_S) == 1


@given(st.lists(st.tuples(st.sets(st.integers(0, 2)), st.floats(0.01, 5)), max_size=60), st.sets(st.integers(0, 2)))
def test_it_does_not_stay_with_silence_and_climbs_only_to_what_is_steady(
    steps: list[tuple[set[int], float]], first: set[int]
) -> None:
    choice, now, since = LayerChoice(first, 0.0), 0.0, dict.fromkeys(first, 0.0)
    silent: float | None = None  # since when others are seen to come and the one that is taken is not
    for active, step in steps:
        now += step
        since = {layer: since.get(layer, now) for layer in active}
        before = choice.layer
        layer = choice.choose(active, now)
        if not active or layer in active:
            silent = None
        else:
            silent = now if silent is None else silent
            assert now - silent < FALL_S
        if before in active and layer != before:
            assert layer > before
            assert now - since[layer] >= STEADY_S


# --- from one to the other --------------------------------------------------------------------------------------------


@functools.cache
def two_layers(seconds: float) -> list[tuple[int, Rtp]]:
    """A show's packets in two layers, with a keyframe in both every second."""
    return list(Show(Look(gop=30), better=Look(width=640, height=360, gop=30)).packets(round(seconds * 1e6), lambda: 0))


@functools.cache
def switched(seconds: float, at: float, late_us: int = 0, keyframe_late_us: int = 0) -> tuple[Source, list[Unit]]:
    """A source that is told at a moment to go on with the better layer, whose packets come so much later; those of its
    keyframes, which are large, later still."""
    source, units, sent = Source(STREAMS), list[Unit](), list[tuple[int, Rtp]]()
    for moment, packet in two_layers(seconds):
        late = (late_us + keyframe_late_us * (moment % 1_000_000 == 0)) * (packet.stream == HIGH)
        sent.append((moment + late, packet))
    for moment, packet in sorted(sent, key=lambda each: each[0]):
        if moment >= at * 1e6 and not source.counts.changes:
            source.follow(BETTER)
        if packet.stream != HIGH or moment >= at * 1e6:
            units += source.receive(packet.stream, moment, packet.data)
    return source, units


def pictures(units: list[Unit]) -> list[VideoUnit]:
    return [unit for unit in units if isinstance(unit, VideoUnit)]


@pytest.mark.parametrize(("late_us", "keyframe_late_us"), LATE)
def test_pictures_go_on_from_the_keyframe_of_the_other_layer(late_us: int, keyframe_late_us: int) -> None:
    source, units = switched(4.0, 1.5, late_us, keyframe_late_us)
    found = pictures(units)
    heights = [unit.parameters.height for unit in found]
    change = heights.index(360)
    assert heights == [180] * change + [360] * (len(found) - change)
    assert found[change].keyframe
    assert 1.9e6 <= found[change].time - found[0].time <= 2.1e6  # its first keyframe after it was asked for
    steps = [after.time - before.time for before, after in pairwise(found)]
    assert min(steps) >= 1_000
    assert max(steps) <= 130_000
    assert source.video == BETTER
    assert (source.lost, source.damaged, source.counts.changes) == (0, 0, 1)
    sound = [unit for unit in units if isinstance(unit, AudioUnit)]
    assert {after.position - before.position for before, after in pairwise(sound)} == {1024}


def test_until_its_keyframe_comes_the_other_one_is_taken_and_it_is_asked_for() -> None:
    source = Source(STREAMS)
    packets = two_layers(1.0)
    for moment, packet in packets[: len(packets) // 2]:
        if packet.stream == VIDEO:
            source.receive(packet.stream, moment, packet.data)
    source.follow(BETTER)
    source.follow(BETTER)
    assert source.keyframes_wanted(1_000_000) == [HIGH]
    assert source.keyframes_wanted(1_100_000) == []
    assert source.video == STREAMS[0]
    source.follow(STREAMS[0])  # it fell silent before
    assert source.keyframes_wanted(1_600_000) == []
    before = source.counts.malformed
    late = [source.receive(packet.stream, moment, packet.data) for moment, packet in packets if packet.stream == HIGH]
    assert not any(late)
    assert source.counts.malformed == before
    assert source.video == STREAMS[0]


def test_a_source_follows_only_what_can_be_its_picture() -> None:
    sound = Source(STREAMS[1:])
    for source, stream in (
        (sound, BETTER),
        (Source(STREAMS), Stream(9, "video", "vp8")),
        (Source(STREAMS), STREAMS[1]),
    ):
        with pytest.raises(UsageError):
            source.follow(stream)


moves = st.tuples(st.sampled_from(["follow", "packet", "tick"]), st.integers(3, 6), st.binary(max_size=40))


@settings(deadline=None, max_examples=60)
@given(st.lists(moves, max_size=30))
def test_no_order_of_streams_and_packets_breaks_a_source(steps: list[tuple[str, int, bytes]]) -> None:
    source, last, now = Source(STREAMS), -1, 0
    keyframes = [packet for _, packet in two_layers(0.02) if packet.stream == HIGH]
    for step, number, data in steps:
        now += 40_000
        units: list[Unit] = []
        match step:
            case "follow":
                source.follow(Stream(number, "video", "h264", 96))
            case "tick":
                units = source.tick(now)
            case _:
                head = pack("!BBHII", 0x80, 96, now // 40_000, now, 1)
                units = source.receive(number, now, head + data)
                for each in keyframes:
                    units += source.receive(number, now, each.data)
        for unit in pictures(units):
            assert unit.time > last
            last = unit.time
    assert source.video is not None


# --- and out of the segmenter -----------------------------------------------------------------------------------------


def cut(units: list[Unit]) -> list[Event]:
    segmenter = Segmenter(CONFIG, PART, SEGMENT, LONGEST)
    return [event for unit in units for event in segmenter.take(unit)] + segmenter.finish()


def sound_of(part: PartReady) -> tuple[int, int]:
    """Where the sound of a part begins in its file, and how many units it has."""
    ((kind, at, size), _) = whole_boxes(part.data, len(part.data))
    assert kind == b"moof"
    moof = part.data[at + 8 : at + size]
    for kind, at, size in whole_boxes(moof, len(moof)):
        traf = moof[at + 8 : at + size]
        if kind == b"traf" and int.from_bytes(traf[12:16], "big") == 2:
            return int.from_bytes(traf[28:36], "big"), int.from_bytes(traf[48:52], "big")
    return -1, 0


@pytest.mark.parametrize(("late_us", "keyframe_late_us"), LATE)
def test_no_sound_is_lost_or_moved_where_the_picture_changes(late_us: int, keyframe_late_us: int) -> None:
    _, units = switched(4.0, 1.5, late_us, keyframe_late_us)
    check_sound(units)


@pytest.mark.parametrize("early_us", [1_000, 20_000, 33_333, 200_000])
@pytest.mark.parametrize("index", range(34, 46))
def test_nor_is_it_wherever_in_a_part_that_happens(index: int, early_us: int) -> None:
    """The picture with the other format comes so long after the one before; some of these were the last of a part."""
    other = next(unit for unit in pictures(switched(4.0, 1.5)[1]) if unit.parameters.height == 360)
    units, last, count = list[Unit](), 0, 0
    for unit in switched(2.0, 9.0)[1]:
        if isinstance(unit, VideoUnit):
            count += 1
            if count == index:
                unit = other._replace(time=last + early_us)
            elif count > index:
                unit = unit._replace(time=max(last + 1000, unit.time), parameters=other.parameters)
            last = unit.time
        units.append(unit)
    check_sound(units)


def check_sound(units: list[Unit]) -> None:
    """All of it is in the parts, once and in its place; their pictures are of two formats."""
    events = cut(units)
    assert sum(isinstance(event, InitReady) for event in events) == 2
    first = pictures(units)[0].time
    told = [unit for unit in units if isinstance(unit, AudioUnit) and unit.time >= first]
    origin, position = 0, told[0].position
    count = end = 0
    for before, event in pairwise([None, *events]):
        if isinstance(event, PartReady):
            if isinstance(before, InitReady):
                origin = event.start
            begins, units_in_it = sound_of(event)
            if units_in_it:
                assert abs(begins + origin * 48 / 1000 - position) < 2
                position += 1024 * units_in_it
                count += units_in_it
            end = event.start + event.duration
    assert count == sum(unit.time < end for unit in told)


@pytest.mark.parametrize(("late_us", "keyframe_late_us"), LATE)
def test_the_parts_of_both_formats_follow_each_other_without_a_gap(late_us: int, keyframe_late_us: int) -> None:
    _, units = switched(4.0, 1.5, late_us, keyframe_late_us)
    parts = [event for event in cut(units) if isinstance(event, PartReady)]
    assert all(before.start + before.duration == after.start for before, after in pairwise(parts))
    assert all(part.duration <= PART + 2_000 for part in parts)
    assert sum(part.pictures for part in parts) == len(pictures(units))


def test_a_change_after_long_silence_of_pictures_has_all_the_sound_between() -> None:
    _, units = switched(8.0, 1.5)
    first = pictures(units)[0].time
    change = next(unit.time for unit in pictures(units) if unit.parameters.height == 360)
    units = [each for each in units if not (isinstance(each, VideoUnit) and first + 500_000 < each.time < change)]
    parts = [event for event in cut(units) if isinstance(event, PartReady)]
    assert all(before.start + before.duration == after.start for before, after in pairwise(parts))
    assert sum(sound_of(part)[1] for part in parts) == sum(isinstance(u, AudioUnit) and u.time >= first for u in units)


def test_a_change_does_not_wait_for_sound_that_never_comes() -> None:
    _, units = switched(4.0, 1.5)
    segmenter = Segmenter(CONFIG, PART, SEGMENT, LONGEST)
    events, change = list[Event](), 0
    for unit in pictures(units):
        change = change or unit.time * (unit.parameters.height == 360)
        events += segmenter.take(unit)
    assert sum(isinstance(event, InitReady) for event in events) == 1
    assert segmenter.tick(change + 2 * STALL_US) == []  # all may be late
    assert segmenter.tick(change + 3 * STALL_US - 1) == []
    events += segmenter.tick(change + 3 * STALL_US)
    assert sum(isinstance(event, InitReady) for event in events) == 2
    events += segmenter.finish()
    assert sum(event.pictures for event in events if isinstance(event, PartReady)) == len(pictures(units))
    assert isinstance(events[-1], SegmentReady)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000), st.booleans()), max_size=60))
def test_no_order_of_formats_and_sound_breaks_the_sums(steps: list[tuple[int, int, bool]]) -> None:
    """0: sound; 1 and 2: pictures of two formats; 3: a tick."""
    _, units = switched(3.0, 1.5)
    forms = [next(u for u in pictures(units) if u.parameters.height == height) for height in (180, 360)]
    segmenter = Segmenter(CONFIG, PART, SEGMENT, LONGEST)
    now, position = forms[0].time, forms[0].time * 48 // 1000
    given_pictures, out, end = 0, 0, None
    for what, step, keyframe in steps:
        now += step
        events: list[Event] = []
        if what == 0:
            while (position + 1024) * 1000 // 48 <= now:
                events += segmenter.take(AudioUnit(position, b"x"))
                position += 1024
        elif what == 3:
            events = segmenter.tick(now)
        else:
            given_pictures += 1
            events = segmenter.take(forms[what - 1]._replace(time=now, keyframe=keyframe))
        for event in events:
            if isinstance(event, PartReady):
                assert event.duration > 0
                assert end is None or event.start >= end  # between two there may be neither pictures nor sound
                end, out = event.start + event.duration, out + event.pictures
    out += sum(event.pictures for event in segmenter.finish() if isinstance(event, PartReady))
    assert out <= given_pictures


def test_the_second_layer_of_these_tests_shows_the_same() -> None:
    streams = {packet.stream for _, packet in two_layers(0.2)}
    assert streams == {VIDEO, AUDIO, HIGH}

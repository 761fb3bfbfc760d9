"""Lips of somebody's own sound and picture in a file: what is bright and loud at one instant is so in the file."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.egress.interleave import Interleaver
from relay.egress.lip_sync import START_US
from relay.egress.media import AudioUnit, Unit, VideoUnit
from relay.egress.segmenter import InitReady, PartReady, Segmenter
from relay.egress.source import Source
from relay.plane.reference.rtcp import ntp_from_wall_us
from relay.plane.reference.rtp import HEADER_LENGTH, build_extensions, parse
from relay.stage.capture import CAPTURE_TIME_ID
from relay.stage.lips import MOST_US, PACE, SENDERS_LOOK_AHEAD_US
from relay.stage.sender_clock import Anchor
from tests.egress.claps import apart
from tests.egress.show import AUDIO, BETTER, HIGH, STREAMS, VIDEO, Look, Rtp, Show
from tests.egress.world import ffmpeg_errors

SECOND = 1_000_000
THEIRS = 1_600_000_000 * SECOND
"""The sender's clock when the show begins, which is a moment of ours that he knows nothing of."""
BEGAN = 7_000 * SECOND
LATE_US = 120_000
PACKET_US = 20_000 + SENDERS_LOOK_AHEAD_US
"""Sound comes so much later than pictures that are sent as fast: a packet is sent when it is whole."""
BY_ARRIVAL_MS = (LATE_US - PACKET_US) / 1000
FPS, RATE = 30, 48_000
ENCODED_US = 90_000
"""A picture leaves before the sound of its moment, which is 20 ms of Opus and two frames of AAC."""
Packets = list[tuple[int, int, Rtp]]
"""(arrival, captured in µs of the show, packet), in the order of their arrivals."""


class Flash:
    """White for a tenth of each second."""

    def frame(self, number: int, clock_ms: int) -> npt.NDArray[np.uint8]:
        picture = np.full((180 * 3 // 2, 320), 128, np.uint8)
        picture[:180] = 235 if number % FPS < FPS // 10 else 16
        return picture


class Beep:
    """Loud for a tenth of each second."""

    def __init__(self) -> None:
        self._sample = 0

    def samples(self, count: int) -> npt.NDArray[np.int16]:
        at = (self._sample + np.arange(count)) % RATE
        self._sample += count
        return (16_000 * np.sin(2 * np.pi * 1000 * at / RATE) * (at < RATE // 10)).astype(np.int16)


@functools.cache
def coded(seconds: float, better: bool) -> list[tuple[int, Rtp]]:
    """A show of claps."""
    show = Show(Look(gop=FPS), seed=3, better=Look(gop=FPS) if better else None)
    show.audio._tone = Beep()  # type: ignore[assignment]
    for line in (show.video, show.better):
        if line is not None:
            line._picture = Flash()  # type: ignore[assignment]
    return list(show.packets(round(seconds * SECOND), lambda: 0))


def clapping(seconds: float, picture_us: int, sound_us: int, *, better: bool = False) -> Packets:
    """A show of claps, of which pictures and sound come so long after they were captured."""
    found: Packets = []
    for moment, packet in coded(seconds, better):
        captured = moment - 20_000 if packet.stream == AUDIO else moment
        late = sound_us if packet.stream == AUDIO else picture_us
        found.append((BEGAN + moment + late, captured, packet))
    return sorted(found, key=lambda each: each[0])


def with_capture_times(packets: Packets) -> Packets:
    def stamped(data: bytes, captured: int) -> bytes:
        block = build_extensions([(CAPTURE_TIME_ID, ntp_from_wall_us(THEIRS + captured).to_bytes(8, "big"))])
        return bytes((data[0] | 0x10,)) + data[1:HEADER_LENGTH] + block + data[HEADER_LENGTH:]

    return [(at, captured, each._replace(data=stamped(each.data, captured))) for at, captured, each in packets]


def reported(packets: Packets, *streams: int) -> list[tuple[int, Anchor]]:
    """What the relay knows by the reports of streams, all of them unless some are named."""
    found = {}
    for _, captured, each in packets:
        if each.stream not in found and (not streams or each.stream in streams):
            packet = parse(each.data, 0)
            assert packet is not None
            found[each.stream] = Anchor(packet.ssrc, packet.timestamp, THEIRS + captured)
    return list(found.items())


Told = Callable[[Source, int], None]
"""Tells a source something, at a moment since the show began."""


def nothing(source: Source, now: int) -> None: ...


def at(moment: int, session: str, anchors: Sequence[tuple[int, Anchor]]) -> Told:
    """Tell what is known of the sender when a moment has come."""
    told: list[int] = []

    def tell(source: Source, now: int) -> None:
        if now >= moment and not told:
            told.append(now)
            source.know_sender(session, anchors)

    return tell


def left(packets: Packets, tell: Told = nothing, source: Source | None = None) -> list[Unit]:
    """What leaves a source, with a tick every 30 ms, as its process has it."""
    source = source or Source(STREAMS)
    found: list[Unit] = []
    ticked = BEGAN
    tell(source, 0)
    for arrival, _, packet in packets:
        while ticked + 30_000 <= arrival:
            ticked += 30_000
            tell(source, ticked - BEGAN)
            found += source.tick(ticked)
        found += source.receive(packet.stream, arrival, packet.data)
    return found + source.tick(ticked + SECOND)


def recording(units: Sequence[Unit], path: Path) -> Path:
    segmenter = Segmenter(Source(STREAMS).audio_config, SECOND, SECOND, 1 << 62)
    events = [event for unit in units for event in segmenter.take(unit)] + segmenter.finish()
    path.write_bytes(b"".join(event.data for event in events if isinstance(event, InitReady | PartReady)))
    assert ffmpeg_errors(path) == ""
    return path


def check_in_order(units: Sequence[Unit]) -> None:
    pictures = [unit.time for unit in units if isinstance(unit, VideoUnit)]
    sound = [unit.position for unit in units if isinstance(unit, AudioUnit)]
    assert all(before < after for before, after in itertools.pairwise(pictures))
    assert {after - before for before, after in itertools.pairwise(sound)} == {1024}


LATER = [(LATE_US, 0), (0, LATE_US), (MOST_US - 20_000, 0), (20_000, 20_000)]
"""Pictures, sound."""


@pytest.mark.parametrize(("picture_us", "sound_us"), LATER)
@pytest.mark.parametrize("by", ["capture times", "reports"])
def test_they_are_together_from_the_first_picture_on(by: str, picture_us: int, sound_us: int, tmp_path: Path) -> None:
    packets = clapping(6, picture_us, sound_us)
    anchors = reported(packets) if by == "reports" else []
    units = left(packets if by == "reports" else with_capture_times(packets), at(0, "s1", anchors))
    check_in_order(units)
    found = apart(recording(units, tmp_path / "alice.mp4"))
    assert max(map(abs, found)) <= 20
    assert abs(median(found)) <= 5
    times = [unit.time for unit in units][60:]
    newest = itertools.accumulate(times, max)
    assert all(before - after <= ENCODED_US for before, after in zip(newest, times, strict=True)), "each waits"


@pytest.mark.parametrize(
    ("session", "streams"), [("", ()), ("s1", (VIDEO,)), ("s1", (AUDIO,))], ids=["two sessions", "picture", "sound"]
)
def test_what_says_nothing_of_both_leaves_it_to_their_arrival(
    session: str, streams: tuple[int, ...], tmp_path: Path
) -> None:
    packets = clapping(6, LATE_US, 0)
    units = left(packets, at(0, session, reported(packets, *streams)))
    found = apart(recording(units, tmp_path / "alice.mp4"))
    assert all(abs(each - BY_ARRIVAL_MS) <= 20 for each in found)


def test_capture_times_of_two_sessions_are_of_two_clocks(tmp_path: Path) -> None:
    units = left(with_capture_times(clapping(6, LATE_US, 0)))
    assert all(abs(each - BY_ARRIVAL_MS) <= 20 for each in apart(recording(units, tmp_path / "alice.mp4")))


@pytest.mark.parametrize(("picture_us", "sound_us"), LATER[:2])
def test_what_is_known_late_is_made_up_for_without_a_gap(picture_us: int, sound_us: int, tmp_path: Path) -> None:
    packets = clapping(12, picture_us, sound_us)
    units = left(packets, at(2 * SECOND, "s1", reported(packets)))
    check_in_order(units)
    times = [unit.time for unit in units if isinstance(unit, VideoUnit)]
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert max(abs(step - SECOND / FPS) for step in steps) <= 2 * 30_000 / PACE + 1, "as two ticks make up for"
    found = apart(recording(units, tmp_path / "alice.mp4"))
    assert abs(found[0] - (picture_us - sound_us - PACKET_US) / 1000) <= 20
    assert max(map(abs, found[-5:])) <= 20


def test_another_session_is_another_clock() -> None:
    """What was made up for stays, until the new one is known."""
    packets = clapping(3, LATE_US, 0)
    source = Source(STREAMS)
    left(packets, at(0, "s1", reported(packets)), source)
    assert source._lips.offset == pytest.approx(LATE_US - PACKET_US, abs=1_000)
    before = source._lips.offset
    source.know_sender("s2", [(number, anchor._replace(ssrc=99)) for number, anchor in reported(packets)])
    assert (source._lips.offset, source._lips.known) == (before, False)


def test_a_base_that_moves_is_not_seen_where_the_clock_is_known() -> None:
    """Pictures find a faster way in the middle."""
    packets = clapping(8, LATE_US, 0)
    sooner = [
        (arrival - (60_000 if each.stream == VIDEO and captured > 4 * SECOND else 0), captured, each)
        for arrival, captured, each in packets
    ]
    units = left(sorted(sooner, key=lambda each: each[0]), at(0, "s1", reported(packets)))
    times = [unit.time for unit in units if isinstance(unit, VideoUnit)]
    assert max(abs(after - before - SECOND / FPS) for before, after in itertools.pairwise(times)) <= 3_000


@pytest.mark.parametrize("later_us", [-30_000, 60_000])
def test_another_layer_s_own_delay_is_not_seen(later_us: int) -> None:
    packets = [
        (arrival + (later_us if each.stream == HIGH else 0), captured, each)
        for arrival, captured, each in clapping(8, LATE_US, 0, better=True)
    ]
    packets.sort(key=lambda each: each[0])
    tell, followed = at(0, "s1", reported(packets)), list[int]()

    def change(source: Source, now: int) -> None:
        tell(source, now)
        if now >= 4 * SECOND and not followed:
            followed.append(now)
            source.follow(BETTER)

    source = Source(STREAMS)
    units = left(packets, change, source)
    assert source.counts.changes == 1
    times = [unit.time for unit in units if isinstance(unit, VideoUnit)]
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    assert gaps[-2] <= SECOND / FPS + 3_000
    assert gaps[-1] <= 2 * SECOND / FPS + 3_000, "a keyframe on its way"


def test_no_picture_waits_for_sound_that_does_not_come() -> None:
    packets = [each for each in clapping(2, 0, 0) if each[2].stream == VIDEO]
    source, first = Source(STREAMS), None
    source.know_sender("s1", reported(packets))
    for arrival, _, packet in packets:
        found = source.receive(VIDEO, arrival, packet.data)
        if found and first is None:
            first = arrival
            assert len(found) == 1 + START_US * FPS // SECOND
    assert first is not None
    assert first - BEGAN == pytest.approx(START_US, abs=SECOND / FPS)


def test_a_reader_s_clock_tells_it_what_may_still_come() -> None:
    packets = clapping(3, LATE_US, 0)
    source = Source(STREAMS)
    assert source.behind == 0
    left(packets, at(0, "s1", reported(packets)), source)
    assert source.behind == pytest.approx(LATE_US - PACKET_US, abs=1_000)


def unit(time: int, is_picture: bool) -> Unit:
    if is_picture:
        return VideoUnit(time, True, None, b"")  # type: ignore[arg-type]
    return AudioUnit(time * RATE // SECOND, b"")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-SECOND, SECOND), st.integers(0, 200_000)), max_size=60),
    st.integers(0, MOST_US),
)
def test_nothing_is_kept_for_longer_than_half_a_second_nor_lost(
    steps: list[tuple[bool, int, int]], behind: int
) -> None:
    waiting, now, came, gone = Interleaver(), BEGAN, dict[int, int](), list[Unit]()
    for is_picture, ahead, step in steps:
        now += step
        one = unit(now + ahead, is_picture)
        came[id(one)] = now
        waiting.put(one, now)
        gone += waiting.take(now, behind)
        kept = came.keys() - set(map(id, gone))
        assert len(waiting) == len(kept)
        assert all(now - came[each] < MOST_US for each in kept)
    gone += waiting.take(now + MOST_US, behind)
    assert len(waiting) == 0
    assert sorted(map(id, gone)) == sorted(came)
    for kind in (VideoUnit, AudioUnit):
        order = [id(each) for each in gone if isinstance(each, kind)]
        assert order == [key for key in came if key in set(order)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1 << 30), st.booleans())
def test_no_clock_turns_pictures_back_or_tears_sound(seed: int, capture: bool) -> None:
    """A sender may say anything, at any time."""
    rng = random.Random(seed)
    packets = clapping(1.5, rng.randrange(400_000), rng.randrange(400_000))
    truth = reported(packets)
    if capture:
        packets = with_capture_times(packets)

    def tell(source: Source, now: int) -> None:
        if rng.random() < 0.3:
            lies = [(n, a._replace(captured=a.captured + rng.randrange(-SECOND, SECOND))) for n, a in truth]
            source.know_sender(rng.choice(["", "s1", "s1", "s2"]), rng.choice([truth, lies, lies[:1], []]))

    units = left(packets, tell)
    check_in_order(units)
    assert sum(isinstance(unit, VideoUnit) for unit in units) == 45

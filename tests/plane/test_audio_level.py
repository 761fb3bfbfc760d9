"""RFC 6464 levels and the loudness that the stage compares."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference.audio_level import MAX_LOUDNESS, SILENCE, AudioLevel, Loudness, parse_audio_level

MS = 1_000


def speak(loudness: Loudness, level: int, start: int, seconds: float, voice: bool = True) -> int:
    """Packets each 20 ms; returns the time after the last."""
    now = start
    while now < start + int(seconds * 1_000_000):
        loudness.add(level, voice, now)
        now += 20 * MS
    return now


def test_parse() -> None:
    assert parse_audio_level(b"\x80") == AudioLevel(0, True)
    assert parse_audio_level(b"\x7f") == AudioLevel(SILENCE, False)
    assert parse_audio_level(b"\x9e\x00") == AudioLevel(30, True)
    assert parse_audio_level(b"") is None


def test_a_speaker_is_heard_within_three_hundred_milliseconds_and_fades_slowly() -> None:
    loudness = Loudness()
    now = speak(loudness, 27, 0, 0.3)
    assert loudness.value(now) > 60 << 8
    now = speak(loudness, 27, now, 3)
    full = loudness.value(now)
    assert 99 << 8 <= full <= 100 << 8
    assert full * 4 // 10 < loudness.value(now + 520 * MS) < full * 6 // 10
    assert loudness.value(now + 7_000 * MS) == 0


def test_voice_beats_noise_of_the_same_level() -> None:
    voice, noise = Loudness(), Loudness()
    now = speak(voice, 40, 0, 1)
    speak(noise, 40, 0, 1, voice=False)
    assert voice.value(now) > noise.value(now) > 0
    now = speak(noise, SILENCE, now, 10, voice=False)
    assert noise.value(now) == 0


def test_the_value_does_not_depend_on_when_it_is_asked() -> None:
    asked, unasked = Loudness(), Loudness()
    now = 0
    for index in range(200):
        now = index * 37 * MS
        asked.add(index % 100, index % 3 > 0, now)
        unasked.add(index % 100, index % 3 > 0, now)
        asked.value(now + 10 * MS)
    assert asked.value(now + MS * 1000) == unasked.value(now + MS * 1000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.booleans(), st.integers(0, 10**8)), max_size=60))
def test_any_story_stays_in_range(story: list[tuple[int, bool, int]]) -> None:
    loudness, now = Loudness(), 0
    for level, voice, pause in story:
        now += pause
        loudness.add(level, voice, now)
        assert 0 <= loudness.value(now) <= MAX_LOUDNESS


@given(st.binary(max_size=4))
def test_any_extension_is_read(body: bytes) -> None:
    read = parse_audio_level(body)
    assert (read is None) == (not body)
    assert read is None or (0 <= read.level <= 127)

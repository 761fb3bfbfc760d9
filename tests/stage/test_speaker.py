"""Who speaks, in steps of 100 ms of virtual time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.stage.speaker import NEVER, SpeakerDetector, SpeakerSettings


class Talk:
    """Feeds levels every 100 ms and notes who became the speaker when."""

    def __init__(self) -> None:
        self.detector = SpeakerDetector()
        self.now = 0.0
        self.changes: list[tuple[float, str | None]] = []

    def go(self, seconds: float, **levels: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 3)
            if self.detector.heard(levels, self.now):
                self.changes.append((self.now, self.detector.speaker))


def test_the_first_who_speaks_becomes_the_speaker_after_the_attack() -> None:
    talk = Talk()
    talk.go(1.0, a=20, b=20)
    assert talk.detector.speaker is None
    talk.go(1.0, a=95, b=20)
    assert talk.detector.speaker == "a"
    assert talk.detector.speaking == {"a"}
    assert len(talk.changes) == 1
    assert 1.3 <= talk.changes[0][0] <= 1.8


def test_a_cough_changes_nothing() -> None:
    talk = Talk()
    talk.go(3.0, a=95, b=20)
    talk.go(0.2, a=95, b=120)
    talk.go(2.0, a=95, b=20)
    assert talk.changes == [talk.changes[0]]


def test_silence_keeps_the_last_speaker_until_another_speaks() -> None:
    talk = Talk()
    talk.go(2.0, a=95)
    talk.go(10.0, a=10, b=10)
    assert talk.detector.speaker == "a"
    assert talk.detector.speaking == frozenset()
    talk.go(1.0, a=10, b=90)
    assert talk.detector.speaker == "b"


def test_over_a_speaker_one_has_to_be_louder_for_longer() -> None:
    talk = Talk()
    talk.go(3.0, a=90, b=10)
    talk.go(5.0, a=90, b=93)
    assert talk.detector.speaker == "a"
    talk.go(0.5, a=90, b=105)
    assert talk.detector.speaker == "a"
    talk.go(1.0, a=90, b=105)
    assert talk.detector.speaker == "b"


def test_changes_are_a_second_apart_at_least() -> None:
    talk = Talk()
    for _ in range(20):
        talk.go(0.8, a=100, b=0)
        talk.go(0.8, a=0, b=100)
    times = [at for at, _ in talk.changes]
    assert times
    assert all(later - earlier >= 0.999 for earlier, later in pairwise(times))


def test_a_hissing_microphone_does_not_speak() -> None:
    talk = Talk()
    talk.go(30.0, hiss=80, b=20)
    before = len(talk.changes)
    talk.go(2.0, hiss=80, b=95)
    assert talk.detector.speaker == "b"
    talk.go(20.0, hiss=80, b=20)
    assert talk.detector.speaker == "b"
    assert len(talk.changes) == before + 1


def test_one_who_speaks_without_a_pause_stays_the_speaker() -> None:
    talk = Talk()
    talk.go(1.0, a=30)
    talk.go(60.0, a=95)
    assert talk.detector.speaking == {"a"}


def test_who_leaves_is_forgotten() -> None:
    talk = Talk()
    talk.go(2.0, a=95, b=20)
    talk.detector.keep(["b"])
    assert talk.detector.speaker is None
    assert talk.detector.last_spoke("a") == NEVER
    talk.go(1.0, b=95)
    assert talk.detector.speaker == "b"
    talk.detector.forget("b")
    assert talk.detector.speaker is None


def test_without_measurements_nobody_is_heard() -> None:
    talk = Talk()
    talk.go(2.0, a=95)
    talk.detector.tick(talk.now + 0.4)
    assert talk.detector.speaking == {"a"}
    talk.detector.tick(talk.now + 0.6)
    assert talk.detector.speaking == frozenset()
    assert talk.detector.speaker == "a"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(-5, 200), max_size=3), max_size=120))
def test_whatever_is_measured_changes_keep_their_distance(levels: list[dict[str, int]]) -> None:
    detector, last = SpeakerDetector(SpeakerSettings()), NEVER
    for step, each in enumerate(levels):
        now = step * 0.1
        before = detector.speaker
        if detector.heard({name: float(level) for name, level in each.items()}, now):
            assert detector.speaker != before
            assert detector.speaker in detector.speaking
            assert now - last >= 1.0 - 1e-6
            last = now
        else:
            assert detector.speaker == before

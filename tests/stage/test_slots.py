"""The slot policy: pins, the speaker, stability; and what must hold whatever comes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.stage.slots import Candidate, SlotState, Voices, assign

QUIET = Voices()


def camera(name: str, order: int = 0, *, live: bool = True, spoke: float = float("-inf")) -> Candidate:
    return Candidate(f"{name}-v", "video", name, order, live, spoke)


def voice(name: str, order: int = 0, *, spoke: float = float("-inf")) -> Candidate:
    return Candidate(f"{name}-a", "audio", name, order, True, spoke)


def video(index: int, shows: str | None = None, pin: str | None = None, *, paused: bool = False) -> SlotState:
    return SlotState(index, "video", pin, paused, shows)


def audio(index: int, shows: str | None = None) -> SlotState:
    return SlotState(index, "audio", None, False, shows)


def test_empty_slots_fill_by_speaker_then_last_speech_then_join_order() -> None:
    cameras = [camera("a", 0), camera("b", 1, spoke=5.0), camera("c", 2, spoke=3.0), camera("d", 3, live=False)]
    slots = [video(0), video(1), video(2), video(3)]
    assert assign(slots, cameras, Voices("c")) == {0: "c-v", 1: "b-v", 2: "a-v", 3: "d-v"}


def test_one_slot_follows_the_speaker() -> None:
    cameras = [camera("a", 0), camera("b", 1)]
    assert assign([video(0, "a-v")], cameras, Voices("b")) == {0: "b-v"}
    assert assign([video(0, "b-v")], cameras, QUIET) == {0: "b-v"}


def test_a_new_speaker_who_is_shown_moves_nothing() -> None:
    cameras = [camera("a", 0), camera("b", 1), camera("c", 2)]
    slots = [video(0, "b-v"), video(1, "a-v")]
    assert assign(slots, cameras, Voices("a")) == {0: "b-v", 1: "a-v"}


def test_a_new_speaker_replaces_whoever_was_silent_longest() -> None:
    cameras = [camera("a", 0, spoke=9.0), camera("b", 1, spoke=2.0), camera("c", 2)]
    slots = [video(0, "a-v"), video(1, "b-v")]
    assert assign(slots, cameras, Voices("c")) == {0: "a-v", 1: "c-v"}


def test_pins_win_and_take_their_publication_from_another_slot() -> None:
    cameras = [camera("a", 0), camera("b", 1), camera("c", 2)]
    slots = [video(0, "a-v"), video(1, "b-v", pin="a-v")]
    assert assign(slots, cameras, Voices("c")) == {0: "c-v", 1: "a-v"}


def test_a_pin_that_cannot_be_played_gives_way_meanwhile() -> None:
    assert assign([video(0, pin="gone")], [camera("a")], QUIET) == {0: "a-v"}
    assert assign([video(0, pin="a-v")], [camera("a")], QUIET, lambda _i, _p: False) == {0: None}


def test_backstage_shows_only_by_a_pin() -> None:
    hidden = replace(camera("h"), by_pin=True)
    assert assign([video(0)], [hidden], Voices("h")) == {0: None}
    assert assign([video(0, pin="h-v")], [hidden], QUIET) == {0: "h-v"}
    assert assign([video(0, "h-v")], [hidden], QUIET) == {0: None}


def test_a_muted_camera_gives_way_and_is_kept_when_nothing_else_is_there() -> None:
    muted = camera("a", 0, live=False)
    assert assign([video(0, "a-v")], [muted, camera("b", 1)], QUIET) == {0: "b-v"}
    assert assign([video(0, "a-v")], [muted], QUIET) == {0: "a-v"}


def test_a_paused_slot_keeps_what_it_shows_and_fills_last() -> None:
    cameras = [camera("a", 0), camera("b", 1)]
    assert assign([video(0, "a-v", paused=True), video(1)], cameras, Voices("a")) == {0: "a-v", 1: "b-v"}
    assert assign([video(0, paused=True), video(1)], [camera("a")], QUIET) == {0: None, 1: "a-v"}


def test_slots_with_the_wrong_codec_are_passed_over() -> None:
    cameras = [camera("a", 0), camera("b", 1)]
    fits = lambda index, publication: (index, publication) != (0, "a-v")  # noqa: E731
    assert assign([video(0), video(1)], cameras, Voices("a"), fits) == {0: "b-v", 1: "a-v"}


def test_enough_audio_slots_play_all() -> None:
    voices = [voice("a", 0), voice("b", 1)]
    assert assign([audio(0), audio(1), audio(2)], voices, QUIET) == {0: "a-a", 1: "b-a", 2: None}


def test_too_few_audio_slots_play_those_who_are_heard() -> None:
    voices = [voice("a", 0, spoke=9.0), voice("b", 1, spoke=1.0), voice("c", 2, spoke=10.0)]
    heard = Voices("a", frozenset({"a", "c"}))
    assert assign([audio(0, "a-a"), audio(1, "b-a")], voices, heard) == {0: "a-a", 1: "c-a"}
    # Nobody who is being heard is cut off for another, but for the active speaker.
    all_speak = frozenset({"a", "b", "c"})
    assert assign([audio(0, "a-a")], voices, Voices("a", all_speak)) == {0: "a-a"}
    assert assign([audio(0, "a-a")], voices, Voices("c", all_speak)) == {0: "c-a"}


_NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def _scenes(draw: st.DrawFn) -> tuple[list[SlotState], list[Candidate], Voices]:
    candidates = [
        Candidate(
            f"{name}-{kind[0]}",
            kind,
            name,
            order,
            draw(st.booleans()),
            draw(st.sampled_from([float("-inf"), 1.0, 2.0, 3.0])),
            draw(st.integers(0, 5)) == 0,
        )
        for order, name in enumerate(draw(st.lists(st.sampled_from(_NAMES), unique=True)))
        for kind in ("video", "audio")
        if draw(st.booleans())
    ]
    ids = [each.id for each in candidates]
    known = st.one_of(st.none(), st.sampled_from([*ids, "gone"]))
    slots = [
        SlotState(index, draw(st.sampled_from(["video", "audio"])), draw(known), draw(st.booleans()), draw(known))
        for index in range(draw(st.integers(0, 6)))
    ]
    voices = Voices(draw(st.sampled_from([None, *_NAMES])), draw(st.frozensets(st.sampled_from(_NAMES))))
    return slots, candidates, voices


@settings(max_examples=300, deadline=None)
@given(_scenes())
def test_what_always_holds(scene: tuple[list[SlotState], list[Candidate], Voices]) -> None:
    slots, candidates, voices = scene
    result = assign(slots, candidates, voices)
    by_id = {each.id: each for each in candidates}
    assert set(result) == {slot.index for slot in slots}
    shown = [publication for publication in result.values() if publication is not None]
    assert len(shown) == len(set(shown)), "nothing is played twice"
    for slot in slots:
        publication = result[slot.index]
        if publication is not None:
            assert by_id[publication].kind == slot.kind
            assert not by_id[publication].by_pin or publication == slot.pin
        pinnable = slot.pin in by_id and by_id[slot.pin].kind == slot.kind  # type: ignore[index]
        rivals = [each for each in slots if each.pin == slot.pin and each.kind == slot.kind and each.index < slot.index]
        if pinnable and not rivals:
            assert publication == slot.pin, "pins are respected"
    for kind in ("video", "audio"):
        places = sum(slot.kind == kind for slot in slots)
        usable = [each for each in candidates if each.kind == kind and not each.by_pin]
        playing = [each for each in shown if by_id[each].kind == kind]
        assert len(playing) >= min(places, len(usable)), "no slot is idle while something waits"


@settings(max_examples=300, deadline=None)
@given(_scenes())
def test_an_assignment_is_stable(scene: tuple[list[SlotState], list[Candidate], Voices]) -> None:
    slots, candidates, voices = scene
    result = assign(slots, candidates, voices)
    settled = [replace(slot, shows=result[slot.index]) for slot in slots]
    assert assign(settled, candidates, voices) == result
    # Without a new voice nothing moves either: who is shown stays.
    silent = assign(settled, candidates, QUIET)
    live = {each.id for each in candidates if each.live and not each.by_pin}
    for index, publication in result.items():
        if publication in live:
            assert silent[index] == publication


@settings(max_examples=200, deadline=None)
@given(_scenes())
def test_the_speaker_is_shown_when_a_slot_is_free_to(scene: tuple[list[SlotState], list[Candidate], Voices]) -> None:
    slots, candidates, voices = scene
    result = assign(slots, candidates, voices)
    for kind in ("video", "audio"):
        theirs = [
            each.id
            for each in candidates
            if (each.kind, each.identity) == (kind, voices.speaker) and each.live and not each.by_pin
        ]
        pinnable = {each.id for each in candidates if each.kind == kind}
        free = any(slot.kind == kind and not slot.paused and slot.pin not in pinnable for slot in slots)
        if theirs and free:
            assert set(theirs) & set(result.values())

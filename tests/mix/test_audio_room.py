"""What a room in virtual time mixes, for whom, and what changes in it (`tests.mix.audio_show`)."""

from __future__ import annotations

import numpy as np
import pytest

from relay.mix.audio.messages import (
    AnchorInput,
    CloseMix,
    CommandRefused,
    InputReport,
    InputsReported,
    RemoveInput,
    SetGain,
    SpeakerChanged,
    WaitForPicture,
    WaitForPictures,
)
from relay.plane.reference.rtp import parse
from tests.mix.audio_show import LATENCY, Show, steady
from tests.mix.audio_world import (
    FRAME,
    TICK_US,
    amplitude_of,
    residue,
    roughest,
)


@pytest.mark.parametrize("channels", [1, 2])
def test_both_tones_are_there_at_their_levels_without_a_click(channels: int) -> None:
    show = Show(channels)
    show.join("ann", 440, 0.2)
    show.join("bob", 1000, 0.1, gain=0.5)
    ear = show.listen("program")
    show.run(150)
    sound = steady(ear, 20, 145)
    assert amplitude_of(sound, 440) == pytest.approx(0.2, rel=0.1)
    assert amplitude_of(sound, 1000) == pytest.approx(0.05, rel=0.1)
    assert residue(sound, [440, 1000]) <= 0.001
    assert roughest(sound, [(440, 0.2), (1000, 0.05)]) <= 1.6
    assert not any(ear.jumps())


def test_sound_is_in_the_mix_within_three_frames() -> None:
    show = Show()
    show.join("ann", 440)
    ear = show.listen("program")
    show.run(30)
    loud = np.flatnonzero(np.abs(ear.hear()) > 0.1)[0]
    assert loud <= (LATENCY + 1) * FRAME


def test_who_is_muted_fades_and_comes_back() -> None:
    show = Show()
    show.join("ann", 440, 0.3)
    show.join("bob", 1000, 0.1)
    ear = show.listen("program")
    show.run(60)
    show.room.change(SetGain("show", "ann", 1.0, True, 0.015))
    show.run(60)
    show.room.change(SetGain("show", "ann", 1.0, False, 0.1))
    show.run(60)
    sound = ear.hear()
    assert amplitude_of(sound[20 * FRAME : 58 * FRAME], 440) == pytest.approx(0.3, rel=0.1)
    assert amplitude_of(sound[64 * FRAME : 118 * FRAME], 440) <= 0.001
    assert amplitude_of(sound[64 * FRAME : 118 * FRAME], 1000) == pytest.approx(0.1, rel=0.1)
    assert amplitude_of(sound[130 * FRAME : 178 * FRAME], 440) == pytest.approx(0.3, rel=0.1)
    assert roughest(sound[20 * FRAME :], [(440, 0.3), (1000, 0.1)]) <= 1.6


def test_who_leaves_fades_out_and_who_joins_fades_in() -> None:
    show = Show()
    show.join("ann", 440, 0.3)
    ear = show.listen("program")
    show.run(50)
    show.room.change(RemoveInput("show", "ann"))
    show.join("bob", 700, 0.3)
    show.run(50)
    sound = ear.hear()
    assert amplitude_of(sound[60 * FRAME : 98 * FRAME], 440) <= 0.001
    assert amplitude_of(sound[60 * FRAME : 98 * FRAME], 700) == pytest.approx(0.3, rel=0.1)
    assert roughest(sound[20 * FRAME :], [(440, 0.3), (700, 0.3)]) <= 1.6


def test_gains_and_another_source_of_somebody_make_no_click() -> None:
    show = Show()
    show.join("ann", 440, 0.2)
    show.join("bob", 1000, 0.1)
    ear, own = show.listen("program"), show.listen("bob", exclude=("bob",))
    show.run(50)
    for gain, seconds in ((0.25, 0.0), (1.5, 0.5), (1.0, 0.0)):
        show.room.change(SetGain("show", "ann", gain, False, seconds))
        show.run(40)
    show.join("ann", 700, 0.2)  # in the place of the one before, which fades out
    show.run(50)
    for listener, more in ((ear, [(1000.0, 0.1)]), (own, [])):
        sound = listener.hear()[20 * FRAME :]
        assert roughest(sound, [(440, 0.3), (700, 0.2), *more]) <= 1.6
        assert amplitude_of(sound[35 * FRAME : 65 * FRAME], 440) == pytest.approx(0.05, rel=0.1)
        assert amplitude_of(sound[-30 * FRAME :], 440) <= 0.001
        assert amplitude_of(sound[-30 * FRAME :], 700) == pytest.approx(0.2, rel=0.1)


def test_a_fade_goes_on_in_other_hands() -> None:
    """Whoever mutes, changes a gain or leaves while a mixer is replaced is faded all the same."""
    show = Show()
    show.join("ann", 440, 0.2)
    show.join("bob", 1000, 0.1)
    show.join("eve", 700, 0.1)
    ear = show.listen("program")
    show.run(60)
    show.room.change(SetGain("show", "ann", 1.0, True, 0.1))
    show.run(2)  # in the middle of the fade
    show.room.change(RemoveInput("show", "eve"))
    show.room = show.room.rescued()
    show.run(60)
    sound = ear.hear()[20 * FRAME :]
    assert roughest(sound, [(440, 0.2), (1000, 0.1), (700, 0.1)]) <= 3
    for hz in (440, 700):
        assert amplitude_of(sound[-40 * FRAME :], hz) <= 0.001
    assert amplitude_of(sound[-40 * FRAME :], 1000) == pytest.approx(0.1, rel=0.1)
    assert not any(ear.jumps())


def test_nobody_hears_himself_who_asked_for_one_sound() -> None:
    show = Show()
    tones = {"ann": 440.0, "bob": 1000.0, "eve": 1700.0}
    for identity, hz in tones.items():
        show.join(identity, hz, 0.15)
    ears = {identity: show.listen(identity, exclude=(identity,)) for identity in tones}
    show.run(100)
    for identity, ear in ears.items():
        sound = steady(ear, 20, 98)
        for other, hz in tones.items():
            loud = amplitude_of(sound, hz)
            assert loud <= 0.0005 if other == identity else loud == pytest.approx(0.15, rel=0.2), (identity, other)


def test_who_asked_for_one_sound_hears_none_of_his_tracks_whatever_becomes_of_them() -> None:
    """His screen's sound comes later; both are muted, replaced and taken away, each with a fade."""
    show = Show()
    show.join("ann", 440, 0.15)
    show.join("bob", 1000, 0.15)
    ear = show.listen("ann", exclude=("ann", "ann/screen"))
    show.run(30)
    show.join("ann/screen", 1700, 0.15)
    show.run(30)
    show.room.change(SetGain("show", "ann", 1.0, True, 0.1))
    show.run(20)
    show.room.change(SetGain("show", "ann", 1.0, False, 0.1))
    show.join("ann/screen", 1700, 0.15)
    show.run(30)
    show.room.change(RemoveInput("show", "ann"))
    show.room.change(RemoveInput("show", "ann/screen"))
    show.run(40)
    sound = ear.hear()
    for begin in range(20, 145):  # short pieces: a fade lasts for 15 ms
        piece = sound[begin * FRAME : (begin + 2) * FRAME]
        assert amplitude_of(piece, 1000) == pytest.approx(0.15, rel=0.2), begin
        assert max(amplitude_of(piece, 440), amplitude_of(piece, 1700)) <= 0.004, begin


def test_who_is_silent_shares_the_programs_packets_and_gets_his_own_when_he_speaks() -> None:
    show = Show()
    show.join("ann", 440, 0.2)
    show.join("bob", 1000, 0.2)
    show.amplitudes["bob"] = 0.0
    program, ear = show.listen("program"), show.listen("bob", exclude=("bob",))
    show.run(60)
    assert show.payloads["bob"][30:] == show.payloads["program"][30:]
    del show.amplitudes["bob"]
    show.run(60)
    assert all(a != b for a, b in zip(show.payloads["bob"][70:], show.payloads["program"][70:], strict=True))
    show.amplitudes["bob"] = 0.0
    show.run(60)
    assert show.payloads["bob"][150:] == show.payloads["program"][150:]
    sound = ear.hear()[20 * FRAME : 175 * FRAME]
    assert amplitude_of(sound, 1000) <= 0.002
    assert amplitude_of(sound, 440) == pytest.approx(0.2, rel=0.1)
    assert residue(sound, [440]) <= 0.002
    assert roughest(sound, [(440, 0.2)]) <= 2.5
    assert amplitude_of(program.hear()[70 * FRAME : 118 * FRAME], 1000) == pytest.approx(0.2, rel=0.1)


def test_only_what_somebody_hears_is_encoded() -> None:
    show = Show()
    show.join("ann", 440)
    show.run(5)
    assert show.room.tick(show.number, show.number * TICK_US) == []
    show.listen("program")
    show.run(5)
    assert len(show.payloads["program"]) == 5
    show.room.change(CloseMix("show", "program"))
    show.run(5)
    assert len(show.payloads["program"]) == 5


def test_who_speaks_is_told_with_the_delay_of_each_input() -> None:
    show = Show()
    show.join("ann", 440)
    show.join("bob", 1000)
    show.amplitudes["ann"] = 0.0
    show.run(120)
    assert show.told(SpeakerChanged) == [SpeakerChanged("show", "bob")]
    report = show.told(InputsReported)[-1]
    assert isinstance(report, InputsReported)
    levels = {one.identity: one.level for one in report.inputs}
    assert levels["bob"] == pytest.approx(127 - 17, abs=1)
    assert levels["ann"] <= 40
    assert all(5 <= one.delay_ms <= 60 and one.flowing and not one.lost for one in report.inputs)


def test_a_room_waits_for_its_pictures_while_it_has_any_and_forgets_it_in_no_hands() -> None:
    show = Show()
    show.join("ann", 440)
    show.run(100)

    def delay() -> float:
        show.run(100)
        report = show.told(InputsReported)[-1]
        assert isinstance(report, InputsReported)
        return report.inputs[0].delay_ms

    assert delay() <= 60
    show.room.change(WaitForPictures("show", 120))
    assert 110 <= delay() <= 145
    show.room = show.room.rescued()
    show.join("bob", 1000)
    show.run(100)
    report = show.told(InputsReported)[-1]
    assert isinstance(report, InputsReported)
    assert all(110 <= one.delay_ms <= 145 for one in report.inputs)
    show.room.change(WaitForPictures("show", 0))
    show.run(200)
    assert delay() <= 60


def test_one_waits_for_his_own_picture_and_tells_how_late_his_sound_is() -> None:
    show = Show()
    show.join("ann", 440)
    show.join("bob", 1000)
    show.run(100)
    show.room.change(WaitForPicture("show", "bob", 120))
    newest = parse(show.people["ann"][0].packet(), 0)
    assert newest is not None
    show.room.change(AnchorInput("show", "ann", newest.ssrc, newest.timestamp, 77_000_000))
    show.run(100)

    def reports() -> dict[str, InputReport]:
        told = show.told(InputsReported)[-1]
        assert isinstance(told, InputsReported)
        return {one.identity: one for one in told.inputs}

    assert reports()["ann"].delay_ms <= 60
    assert 110 <= reports()["bob"].delay_ms <= 145
    lag = reports()["ann"].report_lag
    assert lag is not None
    assert abs(lag + 77_000_000 - 1100 * TICK_US) < 40_000, "ann's packet of tick 1100, captured at 77 s"
    assert reports()["ann"].capture_lag is reports()["bob"].report_lag is None
    show.room = show.room.rescued()
    show.run(100)
    assert reports()["ann"].report_lag == lag
    assert 110 <= reports()["bob"].delay_ms <= 145
    show.room.change(WaitForPicture("show", "bob", 0))
    show.run(400)
    assert reports()["bob"].delay_ms <= 60
    show.room.change(AnchorInput("show", "nobody", 1, 2, 3))
    show.run(1)
    assert [event.command for event in show.told(CommandRefused)] == ["AnchorInput"]  # type: ignore[union-attr]


def test_a_room_goes_on_in_other_hands_without_a_gap() -> None:
    show = Show()
    show.join("ann", 440, 0.2)
    show.join("bob", 1000, 0.1)
    ear, own = show.listen("program"), show.listen("bob", exclude=("bob",))
    show.run(60)
    show.room = show.room.rescued()
    show.run(60)
    for listener, tones in ((ear, [(440.0, 0.2), (1000.0, 0.1)]), (own, [(440.0, 0.2)])):
        sound = steady(listener, 20, 118)
        assert not any(listener.jumps())
        assert roughest(sound, tones) <= 3
        assert residue(sound, [hz for hz, _ in tones]) <= 0.01
        quiet = [at for at in range(0, len(sound) - 480, 480) if np.abs(sound[at : at + 480]).max() < 0.02]
        assert len(quiet) <= 2  # 20 ms

"""What a room does with loss, damage, silence and too much (`tests.mix.audio_show`)."""

from __future__ import annotations

import random

import numpy as np
import pytest

from relay.mix.audio.input import packet_queue
from relay.mix.audio.messages import (
    AddInput,
    CommandRefused,
    InputDamaged,
    InputRefused,
    InputReturned,
    InputStopped,
    RemoveInput,
    SetGain,
)
from tests.mix.audio_show import Show, steady
from tests.mix.audio_world import (
    FRAME,
    TICK_US,
    Publisher,
    amplitude_of,
    residue,
    roughest,
    rtp,
)


@pytest.mark.parametrize("voice", [False, True])
def test_two_percent_loss_leaves_the_tones_and_no_click(voice: bool) -> None:
    dice = random.Random(7)
    show = Show()
    show.join("ann", 440, 0.2, voice=voice)
    show.join("bob", 1000, 0.1)
    ear = show.listen("program")
    show.run(10)
    show.network = lambda identity, packet: None if identity == "ann" and dice.random() < 0.02 else packet
    show.run(490)
    sound = steady(ear, 20, 495)
    assert amplitude_of(sound, 440) == pytest.approx(0.2, rel=0.1)
    assert residue(sound, [440, 1000]) <= 0.01
    assert roughest(sound, [(440, 0.2), (1000, 0.1)]) <= (6 if voice else 3)  # a jump to nothing makes some 80
    counts = show.room.inputs["ann"].jitter.counts
    assert counts.lost >= 5
    assert counts.recovered >= 5


def test_redundancy_brings_back_what_concealment_cannot_know() -> None:
    """The tone changes with the very packet that is lost: only its redundant copy knows of the new one."""
    heard = []
    for lost in (False, True):
        show = Show(1)
        show.join("ann", 300, 0.3, voice=True)
        ear = show.listen("program")
        show.run(50)
        show.people["ann"][0].hz = 800
        if lost:
            show.network = lambda _, __: None
        show.run(1)
        show.network = lambda _, packet: packet
        show.run(30)
        heard.append(ear.hear())
    whole, repaired = heard
    begin = next(at for at in range(48 * FRAME, len(whole), 240) if amplitude_of(whole[at : at + 480], 800) > 0.15)
    assert amplitude_of(repaired[begin : begin + 480], 800) >= 0.5 * amplitude_of(whole[begin : begin + 480], 800)


def test_damaged_packets_cost_only_themselves_and_are_told() -> None:
    dice = random.Random(3)
    show = Show()
    show.join("ann", 440, 0.2)
    show.join("bob", 1000, 0.2)
    ear = show.listen("program")
    show.run(20)

    def damage(identity: str, packet: bytes) -> bytes:
        if identity == "bob" or dice.random() > 0.1:
            return packet
        return dice.choice([b"", packet[:7], packet[:12], dice.randbytes(60), packet[:12] + dice.randbytes(40)])

    show.network = damage
    show.run(200)
    sound = steady(ear, 25, 215)
    assert amplitude_of(sound, 1000) == pytest.approx(0.2, rel=0.1)
    assert np.isfinite(sound).all()
    told = show.told(InputDamaged)
    assert told
    assert all(event.identity == "ann" for event in told)  # type: ignore[union-attr]


def test_silent_and_absent_inputs_are_told_and_the_mix_goes_on() -> None:
    show = Show()
    show.join("ann", 440)
    show.room.change(AddInput("show", "ghost", 9), packet_queue())
    ear = show.listen("program")
    show.run(160)
    assert show.told(InputStopped) == [InputStopped("show", "ghost")]
    show.network = lambda _, __: None
    show.run(150)
    assert InputStopped("show", "ann") in show.events
    assert InputReturned("show", "ann") not in show.events
    show.network = lambda _, packet: packet
    show.run(100)
    assert InputReturned("show", "ann") in show.events
    sound = ear.hear()
    assert np.abs(sound[200 * FRAME : 300 * FRAME]).max() <= 0.001
    assert amplitude_of(sound[350 * FRAME : 400 * FRAME], 440) == pytest.approx(0.2, rel=0.1)
    assert roughest(sound[20 * FRAME :], [(440, 0.2)]) <= 2
    assert not any(ear.jumps())


def test_the_seventeenth_is_refused_and_the_sixteen_play_on() -> None:
    show = Show()
    for number in range(17):
        show.join(f"p{number}", 300 + 100 * number, 0.03)
    ear = show.listen("program")
    show.run(80)
    assert show.told(InputRefused) == [InputRefused("show", "p16", "16 are mixed already")]
    sound = steady(ear, 20, 78)
    for number in range(17):
        loud = amplitude_of(sound, 300 + 100 * number)
        assert loud <= 0.002 if number == 16 else loud == pytest.approx(0.03, rel=0.15)


def test_sixteen_who_shout_at_once_stay_below_full_scale() -> None:
    show = Show()
    for number in range(16):
        show.join(f"p{number}", 200 + 37 * number, 0.9)
    ear = show.listen("program")
    show.run(60)
    assert np.abs(ear.hear()).max() <= 1.0


def test_a_wrong_command_is_told_and_changes_nothing() -> None:
    show = Show()
    show.join("ann", 440)
    show.run(2)
    show.room.change(SetGain("show", "nobody", 1.0, False, 0.02))
    show.room.change(SetGain("show", "ann", -1.0, False, 0.02))
    show.room.change(RemoveInput("show", "nobody"))
    show.run(1)
    assert [event.command for event in show.told(CommandRefused)] == ["SetGain", "SetGain", "RemoveInput"]  # type: ignore[union-attr]
    assert list(show.room.inputs) == ["ann"]


def test_a_payload_type_that_is_not_opus_is_passed_over() -> None:
    show = Show()
    queue = packet_queue()
    show.room.change(AddInput("show", "ann", 1, payload_type=111), queue)
    publisher = Publisher(440)
    ear = show.listen("program")
    for number in range(50):
        queue.append((show.number * TICK_US, publisher.packet()))
        queue.append((show.number * TICK_US, rtp(1, number, number * 160, b"\xd5" * 160, payload_type=8)))
        show.run(1)
    assert amplitude_of(steady(ear, 20, 48), 440) == pytest.approx(0.2, rel=0.1)

"""What a program's workers are told of the senders' clocks, and how long sound and pictures wait then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.edge.plan import TrackPlan
from relay.link.messages import MAX_WAIT_MS, SoundWait
from relay.mix.audio.messages import InputReport
from relay.mix.video.program import Source
from relay.node.clocks import TrackClocks
from relay.node.lips import REPEAT_US, ProgramLips
from relay.node.local import LocalTrack
from relay.node.program_inputs import Picture, Voice
from relay.node.programs import Pools, longer_us
from relay.node.sound import AUDIO_TYPE
from relay.plane.contract import Feedback, Kind, LayerSpec
from relay.settings import MixSettings
from relay.stage.document import PROGRAM
from relay.stage.lips import MOST_US
from relay.stage.sender_clock import Anchor
from tests.stage.rooms import GUEST, new_room, publish

FPS = 30
LEAST_MS = 60
ANN = GUEST.identity


@dataclass
class Pool:
    """Either pool: writes down what it is told."""

    anchors: list[tuple[Any, ...]] = field(default_factory=list)
    waits: dict[str, int] = field(default_factory=dict)

    def anchor_input(self, room: str, *anchor: Any) -> None:
        self.anchors.append(anchor)

    def wait_for_picture(self, room: str, identity: str, more_ms: int) -> None:
        self.waits[identity] = more_ms

    def set_delay(self, room: str, identity: str, delay: int) -> None:
        self.waits[identity] = delay


class World:
    """A guest with camera and microphone, of whose streams everything is known."""

    def __init__(self, session: str = "s1") -> None:
        self.now = 5_000_000
        self.video, self.audio, self.troubles = Pool(), Pool(), list[str]()
        pools = SimpleNamespace(
            video=self.video, audio=self.audio, settings=MixSettings(), count_trouble=self.troubles.append
        )
        self.state, _ = publish(new_room(), GUEST)
        (camera,) = self.state.publications.values()
        self.camera = camera
        self.sound_from(camera.session if session == "s1" else session)
        self.clocks = TrackClocks(dict)
        for track, ssrc in ((1, 70), (2, 80)):
            self.clocks.senders.linked(track, 0, Anchor(ssrc, 3000, 10**15))
        self.pictures = {ANN: Picture(ANN, Source(1, 0, "vp8"))}
        self.voices = {ANN: Voice(2, 111, False)}
        self.lips = ProgramLips("demo", cast(Pools, pools), self.clocks, self.voices, lambda: self.now)

    def sound_from(self, session: str) -> None:
        sound = replace(self.camera, id="sound", kind="audio", source="microphone", codec="opus", session=session)
        self.state = replace(self.state, publications={self.camera.id: self.camera, sound.id: sound})

    def update(self) -> None:
        self.lips.update(self.state, self.pictures)

    def hear(self, seconds: int, lag: int | None, delay_ms: float = LEAST_MS) -> None:
        for _ in range(seconds):
            self.now += 1_000_000
            self.update()
            heard = InputReport(ANN, 50.0, True, delay_ms, 2.0, 100, 0, 0, 0, None, lag)
            self.lips.sound_told(heard, FPS)


def track() -> LocalTrack:
    """The program's sound."""
    plan = TrackPlan("", Kind.AUDIO, (AUDIO_TYPE,), (LayerSpec(),), Feedback(), PROGRAM, "")
    return LocalTrack((PROGRAM, "audio", PROGRAM), 9, "p", "program~n1", plan, "opus")


def test_workers_hear_of_a_line_at_once_again_now_and_then_and_when_it_is_of_another_layer() -> None:
    world = World()
    world.update()
    world.update()
    assert world.video.anchors == [(ANN, 70, 3000, 10**15)]
    assert world.audio.anchors == [(ANN, 80, 3000, 10**15)]
    world.now += REPEAT_US
    world.update()
    assert len(world.video.anchors) == len(world.audio.anchors) == 2
    world.clocks.senders.linked(1, 2, Anchor(72, 9000, 10**15))
    world.pictures[ANN] = Picture(ANN, Source(1, 2, "vp8"))
    world.update()
    assert world.video.anchors[2:] == [(ANN, 72, 9000, 10**15)]
    assert len(world.audio.anchors) == 2


def test_sound_waits_for_a_picture_that_comes_later_and_no_longer_than_it_comes() -> None:
    world = World()
    world.update()
    world.lips.picture_lags(ANN, "report", 130_000)
    world.hear(2, 10_000)
    assert world.audio.waits[ANN] == 40, "40 ms in a second"
    world.hear(4, 10_000, LEAST_MS + 120)
    assert world.audio.waits[ANN] == 120
    assert world.video.waits[ANN] == pytest.approx(1000 * LEAST_MS - longer_us(FPS), abs=3000)
    del world.pictures[ANN]
    world.update()
    assert world.audio.waits[ANN] == 0
    world.hear(1, 10_000)  # told before it knew
    assert world.audio.waits[ANN] == 0


def test_a_picture_waits_for_sound_that_comes_later() -> None:
    world = World()
    world.update()
    world.lips.picture_lags(ANN, "report", 10_000)
    world.hear(5, 90_000, 62.0)
    assert world.audio.waits[ANN] == 0
    assert world.video.waits[ANN] == 62_000 - longer_us(FPS) + 80_000


def test_streams_of_two_sessions_are_not_compared() -> None:
    """His camera is a telephone's, his microphone is another device's: two clocks, nobody knows by how much apart."""
    world = World("another")
    world.update()
    assert world.video.anchors == world.audio.anchors == []
    world.lips.picture_lags(ANN, "report", 130_000)
    world.hear(4, 10_000)
    assert world.audio.waits[ANN] == 0
    assert world.video.waits[ANN] == 1000 * LEAST_MS


def test_lags_of_a_session_that_is_over_are_not_compared_with_those_of_the_next() -> None:
    world = World()
    world.update()
    world.lips.picture_lags(ANN, "report", 130_000)
    world.camera = replace(world.camera, session="s9")
    world.sound_from("s9")
    world.hear(4, 10_000)
    assert world.audio.waits[ANN] == 0


def test_a_line_that_is_not_believed_any_more_is_not_followed_and_changes_nothing() -> None:
    """Workers have the old one still, and go on to tell what follows from it."""
    world = World()
    world.update()
    world.lips.picture_lags(ANN, "report", 130_000)
    world.hear(4, 10_000)
    known = world.clocks.senders.anchor(2, 0)
    world.clocks.senders.linked(2, 0, None)
    told = len(world.video.anchors)
    for lag in (200_000, 400_000, 700_000):
        world.hear(2, 10_000)
        world.lips.picture_lags(ANN, "report", lag)
    assert (world.audio.waits[ANN], world.troubles, len(world.video.anchors)) == (120, [], told)
    world.clocks.senders.linked(2, 0, known)
    world.hear(2, 10_000)
    assert world.audio.waits[ANN] == 120, "the picture's lag has to be told anew"
    world.lips.picture_lags(ANN, "report", 110_000)
    world.hear(2, 10_000)
    assert world.audio.waits[ANN] == 100


def test_capture_times_need_no_reports() -> None:
    world = World()
    world.clocks.senders.forget(1)
    world.update()
    assert world.video.anchors == world.audio.anchors == []
    world.lips.picture_lags(ANN, "capture", 70_000)
    world.now += 1_000_000
    for _ in range(4):
        world.now += 1_000_000
        world.lips.sound_told(InputReport(ANN, 50.0, True, LEAST_MS, 2.0, 100, 0, 0, 0, 10_000, None), FPS)
    assert world.audio.waits[ANN] == 60


def test_what_cannot_be_of_one_moment_is_counted_once_and_left_to_arrival() -> None:
    world = World()
    world.update()
    world.lips.picture_lags(ANN, "report", MOST_US + 20_000)
    world.hear(5, 10_000)
    assert world.troubles == ["apart"]
    assert world.audio.waits[ANN] == 0
    world.lips.picture_lags(ANN, "report", 10_000)
    world.hear(1, 10_000)
    world.lips.picture_lags(ANN, "report", -MOST_US)
    world.hear(2, 10_000)
    assert world.troubles == ["apart", "apart"]


def test_other_nodes_are_told_how_long_sound_waits_and_no_small_change() -> None:
    world, sound = World(), track()
    world.update()
    assert sound.offer("demo").waits == ()
    world.hear(1, None, 96.4)
    sound.waits = world.lips.waits
    assert (sound.note_waits(), sound.note_waits()) == (True, False)
    assert sound.offer("demo").waits == (SoundWait(participant=ANN, ms=96),)
    world.hear(1, None, 100.0)
    assert not sound.note_waits()
    world.hear(1, None, 10_000.0)
    assert sound.note_waits()
    assert sound.offer("demo").waits == (SoundWait(participant=ANN, ms=MAX_WAIT_MS),)
    world.pictures.clear()
    world.update()
    assert sound.note_waits()
    assert sound.offer("demo").waits == ()


def test_nobody_waits_any_more_when_the_program_ends() -> None:
    world = World()
    world.update()
    world.lips.picture_lags(ANN, "report", 130_000)
    world.hear(4, 10_000)
    world.lips.close()
    assert world.audio.waits[ANN] == 0

"""One input of a program, with packets and times by hand."""

from __future__ import annotations

import itertools

import av
import pytest

from costream.painting import Painted, TestPicture, read
from relay.mix.video.encoder import Encoder, Shape
from relay.mix.video.inputs import HEAL_US, LAG_STEP_US, Input
from relay.mix.video.messages import InputSpec, InputTrouble, KeyframeNeeded, LagMeasured
from relay.mix.video.packets import Packetizer
from relay.process.control import Message

START_US = 1_000_000
FRAME_US = 66_667
DELAY_US = 30_000
SILENCE_US = 1_500_000


class Line:
    """A VP8 publisher and the input that shows it, a frame at a time."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.now = START_US
        self.input = Input("s", InputSpec("ann", "Ann", 1, "vp8"), DELAY_US, SILENCE_US, self.now, self.told.append)
        self._encoder = Encoder(Shape("vp8", 320, 180, 15, 300_000, 1_000_000))
        self._packets = Packetizer("vp8", 7, 96, 100)
        self._picture = TestPicture(320, 180, 1)
        self._counter = 0

    def frame(self, keyframe: bool = False, nonsense: bool = False) -> None:
        """A frame comes and is shown."""
        self.send(keyframe, nonsense)
        self.now += FRAME_US
        self.look(self.now + DELAY_US)

    def send(self, keyframe: bool = False, nonsense: bool = False) -> None:
        """A frame comes."""
        painted = av.VideoFrame.from_ndarray(self._picture.frame(self._counter, 0), format="yuv420p")
        data, _ = self._encoder.encode(painted, keyframe)
        if nonsense:  # the frame's first byte says that it is a keyframe, its start code that it is none
            data = b"\x10\x02\x00" + bytes(len(data))
        for packet in self._packets.packets(data, (self.now - START_US) * 9 // 100, 0):
            self.input.receive(packet, self.now)
        self._counter += 1

    def look(self, due: int) -> None:
        """The output frame of `due` is made."""
        if self.input.due(due):
            self.input.decode()
        self.input.content(due, 0)
        self.input.check(self.now)

    def shown(self) -> Painted | None:
        picture = self.input.content(self.now, 0).picture
        return None if picture is None else read(picture.to_ndarray()[: picture.height])

    def faults(self) -> list[str]:
        return [message.fault for message in self.told if isinstance(message, InputTrouble)]

    def asked(self) -> int:
        return sum(isinstance(message, KeyframeNeeded) for message in self.told)


def test_keyframes_are_asked_for_again_some_time_after_a_fault_that_was_noticed() -> None:
    """Damage that no decoder notices stays in the picture for as long as others refer to it."""
    line = Line()
    line.frame(keyframe=True)
    for _ in range(30):
        line.frame()
    assert line.asked() == 0
    line.frame(nonsense=True)
    assert line.faults() == ["corrupt"]
    while not line.asked():
        line.frame()
    line.frame(keyframe=True)
    healed, start = line.asked(), line.now
    while line.now < start + HEAL_US[-1] + 1_000_000:
        line.frame()
    assert line.asked() == healed + len(HEAL_US)


def test_what_came_just_before_an_input_would_have_been_silent_is_decoded() -> None:
    """What comes after it refers to it; without it pictures would be noise that no decoder notices."""
    line = Line()
    line.frame(keyframe=True)
    for _ in range(5):
        line.frame()
    line.now += SILENCE_US - FRAME_US  # after the last frame's arrival
    line.send()
    line.now += DELAY_US // 3
    line.look(line.now)  # not due yet
    for _ in range(5):
        line.frame()
    seen = line.shown()
    assert seen is not None
    assert seen.counter == 11
    assert line.asked() == 0
    assert line.faults() == []


def test_an_input_of_which_nothing_comes_is_silent_and_goes_on_where_it_was() -> None:
    line = Line()
    line.frame(keyframe=True)
    for _ in range(5):
        line.frame()
    line.now += SILENCE_US
    line.look(line.now)
    assert line.faults() == ["silent"]
    assert line.shown() is None
    line.send()
    line.look(line.now)  # at once
    seen = line.shown()
    assert seen is not None
    assert seen.counter == 6
    assert line.asked() == 0


def test_how_late_pictures_come_is_told_by_capture_times_and_by_reports_when_it_changes() -> None:
    line = Line()
    line.frame(keyframe=True)
    for second in range(3):
        line.input.anchor(7, 15 * second * 6000, 10**15 + second * 1_000_000)
        for _ in range(15):
            line.frame()
    line.input.anchor(7, 0, 10**15 - 20_000)  # the reports say another thing now
    line.input.anchor(7, 0, 10**15 - 20_000)
    for _ in range(15):
        line.frame()
    for _ in range(75):
        line.frame()
    line.input.anchor(8, 0, 0)  # of another stream
    for _ in range(30):
        line.frame()
    told = [message for message in line.told if isinstance(message, LagMeasured)]
    by_reports = [each.lag + 10**15 for each in told if each.told == "report"]
    assert by_reports == [pytest.approx(1_000_000, abs=100), *[pytest.approx(1_020_000, abs=100)] * 2]
    # Every frame says that it was taken at the same time: so that comes to be later and later.
    by_capture = [each.lag for each in told if each.told == "capture"]
    assert len(by_capture) >= 5
    assert all(later - sooner >= LAG_STEP_US for sooner, later in itertools.pairwise(by_capture))

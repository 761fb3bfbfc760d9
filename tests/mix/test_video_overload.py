"""A stage whose encoder is slower than the machine allows: what it gives up, in which order, and what a viewer gets.

The clock is the test's: an encoder's work moves it on, by so much for each pixel. Pictures and packets are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from relay.ids import sync_id_at
from relay.mix.video.assembly import AccessUnit, Assembler
from relay.mix.video.decoder import Decoder
from relay.mix.video.encoder import Encoder, Encoders, Shape
from relay.mix.video.messages import ChangeLayout, PlanChanged, StageMeasured, StageSpec
from relay.mix.video.page import Page
from relay.mix.video.stage import Stage
from relay.process.control import Message
from relay.stage.layout import MAX_CHANGES, Layout, LayoutChange, OverlayChange, Overlays, SyncLog

FPS, WIDTH, HEIGHT = 30, 256, 144
TICKS = 90_000 // FPS
FEWER_THEN_SMALLER = [(15, WIDTH), (10, WIDTH), (7.5, WIDTH), (7.5, 192), (7.5, 128)]


class Slow(Encoder):
    """Takes `work.cost_us` for a whole picture."""

    def __init__(self, shape: Shape, work: Work) -> None:
        super().__init__(shape)
        self._work = work

    def encode(self, picture: Any, keyframe: bool) -> tuple[bytes, bool]:
        shape = self.shape
        self._work.now += self._work.cost_us * shape.width * shape.height // (WIDTH * HEIGHT)
        return super().encode(picture, keyframe)


class Work:
    """A stage on a machine with one core."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.cost_us = 2_000
        self.told: list[Message] = []
        self.packets: list[bytes] = []
        self.page = Page.create()
        self._hands = ThreadPoolExecutor(1)
        spec = StageSpec(
            stage="s", place=0, stream=1, width=WIDTH, height=HEIGHT, fps=FPS, codec="h264", bitrate=300_000,
            keyframe_ms=2000, payload_type=102, ssrc=7, epoch=self.now, timestamp=0, wall_offset=0, sequence=100,
            picture_id=0, delay=0, silence=10**9, hold=0, cores=1, layouts=(LayoutChange(0, Layout()),),
            overlays=(OverlayChange(0, Overlays()),),
        )  # fmt: skip
        encoders = Encoders(lambda shape: Slow(shape, self))
        self.stage = Stage(
            spec, self.now, self._send, self.told.append, self.page, self._hands, encoders, lambda: self.now
        )

    def _send(self, stream: int, now: int, packets: list[bytes]) -> None:
        self.packets += packets

    def run(self, seconds: float) -> None:
        end = self.now + round(seconds * 1e6)
        while self.now < end:
            self.now = max(self.now, self.stage.next_at)
            self.stage.tick(self.now)

    def plans(self) -> list[tuple[float, int]]:
        """Frames a second and width of each plan that was told."""
        return [(each.fps, each.width) for each in self.told if isinstance(each, PlanChanged)]

    def measured(self) -> StageMeasured:
        return [each for each in self.told if isinstance(each, StageMeasured)][-1]

    def units(self) -> list[AccessUnit]:
        assembler = Assembler("h264")
        found = [unit for packet in self.packets for unit in assembler.receive(packet, 0)]
        assert not assembler.lost  # sequence numbers go on
        return found

    def close(self) -> None:
        self.stage.close()
        self._hands.shutdown()
        self.page.close()


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work()
    yield made
    made.close()


def test_frames_are_given_up_first_and_pixels_only_when_that_is_not_enough(work: Work) -> None:
    work.run(3)
    assert work.plans() == []
    work.cost_us = 45_000  # a third more than there is
    work.run(8)
    assert work.plans() == FEWER_THEN_SMALLER[: len(work.plans())]
    assert work.plans()[-1] == (10, WIDTH)
    assert work.measured().skipped == 0
    assert work.measured().lateness_p95 <= 50_000  # half of a frame's time
    work.cost_us = 200_000
    work.run(12)
    assert work.plans() == FEWER_THEN_SMALLER
    assert work.measured().skipped == 0
    assert work.measured().lateness_p95 <= 66_667


def test_a_viewer_sees_one_stream_go_on_and_all_of_it_comes_back(work: Work) -> None:
    work.run(2)
    work.cost_us = 200_000
    work.run(14)
    assert work.plans() == FEWER_THEN_SMALLER
    work.cost_us = 1_000
    work.run(70)
    assert work.plans()[len(FEWER_THEN_SMALLER) :] == [(7.5, 192), (7.5, WIDTH), (10, WIDTH), (15, WIDTH), (30, WIDTH)]
    assert [each.degraded for each in work.told if isinstance(each, PlanChanged)] == [True] * 9 + [False]
    decoder, width, sizes = Decoder("h264"), 0, []
    units = work.units()
    for unit in units:
        (picture,) = decoder.decode(unit.data, 0)
        if picture.width != width:
            assert unit.keyframe
            sizes.append(picture.width)
        width = picture.width
    assert sizes == [WIDTH, 192, 128, 192, WIDTH]
    times = [unit.timestamp for unit in units]
    assert all(after > before and not (after - before) % TICKS for before, after in pairwise(times))
    assert times[-1] - times[-20] == 19 * TICKS


def test_more_changes_than_may_wait_end_nothing(work: Work) -> None:
    """The relay's log goes by its clock. A worker that stood still is behind, and has some that the relay let go of."""
    log, last = SyncLog(LayoutChange(0, Layout())), Layout("speaker", ("last",))
    for number in range(1, 2 * MAX_CHANGES + 1):
        soon = sync_id_at(work.now + 1000 * number)
        log.advance(soon - 50)  # for the relay the one before has come into effect
        change = LayoutChange(soon, last if number == 2 * MAX_CHANGES else Layout("speaker", (f"p{number}",)))
        log.add(change)
        work.stage.change(ChangeLayout("s", change))
    work.run(1)
    assert work.stage._layouts.log.changes == (change,)
    assert change.layout == last

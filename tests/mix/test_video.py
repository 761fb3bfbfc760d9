"""The program's picture, with real codecs, a real plane and real worker processes."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from relay.errors import BadRequest, Conflict, NotFound
from relay.ids import make_sync_id, sync_id_milliseconds
from relay.mix.layout import MAX_INPUTS, Box, Layout, Overlays, Rectangle, Score, Timer, cells
from relay.mix.video import events
from relay.mix.video.assembly import VideoCodec
from relay.mix.video.program import Source
from relay.plane.contract import RequestKeyframe
from tests.mix.video_world import FPS, HEIGHT, SMALL, WIDTH, opened, shows, until

LEFT, RIGHT = Box(0, 90, 320, 180), Box(320, 90, 320, 180)


async def test_two_inputs_are_side_by_side_with_advancing_counters() -> None:
    async with opened() as world:
        first, second = world.publish("h264"), world.publish("vp8")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        assert world.pool.add_input("s", "ann", "Ann", first.source)
        assert world.pool.add_input("s", "bob", "Bob", second.source)
        await until(lambda: len(shows(viewer, LEFT, first.track)) > 20 and len(shows(viewer, RIGHT, second.track)) > 20)
        for box, one in ((LEFT, first), (RIGHT, second)):
            counters = shows(viewer, box, one.track)
            assert counters == sorted(counters)
            assert len(set(counters)) > 10
        assert viewer.frames[-1].luma.shape == (HEIGHT, WIDTH)
        assert {event.identity for event in world.event(events.InputShown)} == {"ann", "bob"}
        stamps = [frame.timestamp for frame in viewer.frames]
        assert all(0 < (b - a) % (1 << 32) <= 90_000 for a, b in pairwise(stamps))


async def test_a_vp8_program_of_a_vp8_input() -> None:
    async with opened() as world:
        one = world.publish("vp8", 640, 360)
        program, viewer = world.program("vp8")
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", one.source)
        await until(lambda: len(set(shows(viewer, Box(0, 0, WIDTH, HEIGHT), one.track))) > 10)


async def test_a_layout_change_is_on_exactly_the_frame_of_its_sync_id() -> None:
    async with opened() as world:
        first, second = world.publish("h264"), world.publish("h264")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", first.source)
        world.pool.add_input("s", "bob", "", second.source)
        await until(lambda: shows(viewer, LEFT, first.track) and shows(viewer, RIGHT, second.track))
        start = len(viewer.frames)
        now = sync_id_milliseconds(world.pool.sync_id())
        swapped, custom = now + 400, now + 800
        halves = (Rectangle("bob", 0, 0, 0.5, 0.5), Rectangle("ann", 0.5, 0.5, 0.5, 0.5))
        world.pool.set_layout("s", Layout("custom", rectangles=halves), make_sync_id(custom, 0))
        world.pool.set_layout("s", Layout(order=("bob", "ann")), make_sync_id(swapped, 0))
        await until(lambda: viewer.frames[-1].sync_ms > custom + 300)
        for frame in viewer.frames[start:]:
            left, right = frame.mark(LEFT), frame.mark(RIGHT)
            marks = [mark.publisher if mark else None for mark in (left, right)]
            if frame.sync_ms < swapped:
                assert marks == [first.track, second.track]
            elif frame.sync_ms < custom:
                assert marks == [second.track, first.track]
            else:
                top, bottom = frame.mark(Box(0, 0, 320, 180)), frame.mark(Box(320, 180, 320, 180))
                assert top is not None
                assert bottom is not None
                assert (top.publisher, bottom.publisher) == (second.track, first.track)


async def test_cells_move_when_the_change_is_animated() -> None:
    async with opened() as world:
        one = world.publish("h264")
        program, viewer = world.program()
        whole = Layout("custom", rectangles=(Rectangle("ann", 0, 0, 0.5, 0.5),))
        world.pool.open_stage("s", program, whole)
        world.pool.add_input("s", "ann", "", one.source)
        await until(lambda: shows(viewer, Box(0, 0, 320, 180), one.track))
        there = Layout("custom", rectangles=(Rectangle("ann", 0.5, 0.5, 0.5, 0.5),))
        world.pool.set_layout("s", there, animate=9)
        target = Box(320, 180, 320, 180)
        start = len(viewer.frames)
        await until(lambda: len(shows(viewer, target, one.track)) > 3)
        moving = [f for f in viewer.frames[start:] if not f.mark(target) and not f.mark(Box(0, 0, 320, 180))]
        assert 5 <= len(moving) <= 9
        middle = moving[4].mark(Box(160, 90, 320, 180))
        assert middle is not None
        assert middle.publisher == one.track


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_worker_is_replaced_and_the_timeline_goes_on(how: signal.Signals) -> None:
    async with opened(SMALL.model_copy(update={"hang_ms": 500})) as world:
        one = world.publish("h264", 640, 360)
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", one.source)
        await until(lambda: len(viewer.frames) > 15 and len(world.pool.workers) == 2 and world.event(events.InputShown))
        await until(lambda: len(world.event(events.WorkerStarted)) >= 2)
        first = world.pool.worker_of("s")
        os.kill(int(first.removeprefix("local:")), how)
        await until(lambda: world.event(events.StageMoved))
        lost = world.event(events.WorkerLost)
        assert [event.stages for event in lost] == [("s",)]
        assert world.pool.worker_of("s") not in ("", first)
        frames = len(viewer.frames)
        shown = len(shows(viewer, Box(0, 0, WIDTH, HEIGHT), one.track))
        await until(lambda: len(shows(viewer, Box(0, 0, WIDTH, HEIGHT), one.track)) > shown + 10)
        steps = [(b - a) & 0xFFFF for a, b in pairwise(viewer.sequences)]
        assert set(steps) == {1}
        around = viewer.frames[frames - 1 : frames + 1]
        assert around[1].keyframe
        assert all(frame.mark(Box(0, 0, WIDTH, HEIGHT)) for frame in viewer.frames[frames:])  # never an empty one
        ticks = (around[1].timestamp - around[0].timestamp) % (1 << 32)
        assert ticks % (90_000 // FPS) == 0
        gap_ms = around[1].sync_ms - around[0].sync_ms
        assert abs(ticks / 90 - gap_ms) < 2
        print(f"{how.name}: without a picture for {gap_ms} ms")


async def test_who_has_no_picture_gets_a_tile_and_who_falls_silent_too() -> None:
    async with opened(SMALL.model_copy(update={"silence_ms": 300})) as world:
        one = world.publish("h264")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "Ann Able", one.source)
        world.pool.add_input("s", "bob", "Bob Baker")
        await until(lambda: shows(viewer, LEFT, one.track))
        cell = viewer.frames[-1].luma[90:270, 320:640]
        assert cell.max() > 200  # initials
        assert cell.std() > 10
        assert viewer.frames[-1].mark(RIGHT) is None
        await one.stop()
        await until(lambda: world.event(events.InputTroubled, identity="ann", fault="silent"))
        before = len(viewer.frames)
        await until(lambda: len(viewer.frames) > before + 5)
        assert viewer.frames[-1].mark(LEFT) is None
        again = world.publish("vp8")
        world.pool.add_input("s", "ann", "Ann Able", again.source)
        await until(lambda: shows(viewer, LEFT, again.track))


async def test_an_input_changes_its_size_and_shape_in_the_middle() -> None:
    async with opened() as world:
        one = world.publish("h264", 640, 360)
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", one.source)
        whole = Box(0, 0, WIDTH, HEIGHT)
        await until(lambda: shows(viewer, whole, one.track))
        one.resize(320, 240)
        letterboxed = Box(80, 0, 480, 360)
        await until(
            lambda: len(shows(viewer, letterboxed, one.track)) > 2 * FPS
        )  # of one fault, events are a second apart
        assert viewer.frames[-1].luma[:, :72].max() < 40
        one.resize(480, 270)
        start = len(viewer.frames)
        await until(lambda: len(shows(viewer, whole, one.track, start)) > 5)
        details = [event.detail for event in world.event(events.InputTroubled, fault="resized")]
        assert details == ["to 320x240", "to 480x270"]


@pytest.mark.parametrize("codec", ["h264", "vp8"])
async def test_a_corrupt_input_costs_only_its_cell(codec: VideoCodec) -> None:
    dice = random.Random(7)

    def spoil(packet: bytes) -> bytes:
        spoiled = bytearray(packet)
        for _ in range(20):
            spoiled[dice.randrange(min(20, len(spoiled) - 1), len(spoiled))] = dice.randrange(256)
        return bytes(spoiled)

    async with opened() as world:
        bad, good = world.publish(codec), world.publish("h264")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "bad", "", bad.source)
        world.pool.add_input("s", "good", "", good.source)
        await until(lambda: shows(viewer, LEFT, bad.track) and shows(viewer, RIGHT, good.track))
        bad.spoil = spoil
        await until(lambda: world.event(events.InputTroubled, identity="bad", fault="corrupt"))
        start = len(viewer.frames)
        await until(lambda: len(viewer.frames) > start + 15)
        assert len(set(shows(viewer, RIGHT, good.track, start))) > 5
        bad.spoil = lambda packet: packet
        await until(lambda: len(set(shows(viewer, LEFT, bad.track, start))) > 5)
        assert not world.event(events.WorkerLost)
        assert not world.event(events.InputTroubled, identity="good")


async def test_a_keyframe_is_asked_for_until_one_comes_and_after_loss() -> None:
    async with opened() as world:
        one = world.publish("vp8")
        await until(lambda: one.counter > 3)  # its first keyframe is gone
        one.mute_keyframes = True
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", one.source)
        await until(lambda: world.asked.count(one.track) >= 3)
        assert not world.event(events.InputShown)
        one.mute_keyframes = False
        whole = Box(0, 0, WIDTH, HEIGHT)
        await until(lambda: shows(viewer, whole, one.track))
        asked = world.asked.count(one.track)
        lost = iter([True])
        one.spoil = lambda packet: b"" if next(lost, False) else packet
        await until(lambda: world.event(events.InputTroubled, identity="ann", fault="lost"))
        await until(lambda: world.asked.count(one.track) > asked)
        start = len(viewer.frames)
        await until(lambda: len(shows(viewer, whole, one.track, start)) > 5)


async def test_a_clock_jump_is_told_and_the_input_goes_on() -> None:
    async with opened() as world:
        one = world.publish("h264")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", one.source)
        whole = Box(0, 0, WIDTH, HEIGHT)
        await until(lambda: len(shows(viewer, whole, one.track)) > 5)
        for shift in (90_000 * 3600, 17):
            one.shift = shift
            start = len(viewer.frames)
            await until(lambda start=start: len(set(shows(viewer, whole, one.track, start))) > 2 * FPS)
        assert len(world.event(events.InputTroubled, fault="clock_jumped")) == 2


async def test_the_seventeenth_input_is_refused_and_a_gone_track_too() -> None:
    async with opened() as world:
        one = world.publish("h264")
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        world.pool.add_input("s", "ann", "", one.source)
        for number in range(MAX_INPUTS - 1):
            assert world.pool.add_input("s", f"guest{number}", f"Guest {number}")
        assert not world.pool.add_input("s", "late", "Late")
        assert [event.identity for event in world.event(events.InputRefused)] == ["late"]
        gone = world.track("h264")
        world.remove(gone)
        assert not world.pool.add_input("s", "guest3", "Guest 3", Source(gone, 0, "h264"))
        assert [event.identity for event in world.event(events.InputRefused)] == ["late", "guest3"]
        first = cells(Layout(), tuple(map(str, range(MAX_INPUTS))), WIDTH, HEIGHT)[0].box
        await until(lambda: shows(viewer, first, one.track))


async def test_score_and_timer_are_drawn_and_go() -> None:
    async with opened() as world:
        program, viewer = world.program()
        timer = Timer(int(time.time() * 1000) + 60_000)
        world.pool.open_stage("s", program, overlays=Overlays(score=Score(3, 1, "Red", "Blue"), timer=timer))
        await until(lambda: len(viewer.frames) > 3)
        assert viewer.frames[-1].luma[:16].mean() > 60
        world.pool.set_overlays("s", Overlays(score=Score(1, 9, "Red", "Blue")))
        await until(lambda: viewer.frames[-1].luma[24:36].max() < 40)
        assert viewer.frames[-1].luma[:16].mean() > 60
        world.pool.set_overlays("s", Overlays())
        await until(lambda: viewer.frames[-1].luma.max() < 40)


async def test_viewers_get_the_keyframes_that_they_ask_for() -> None:
    async with opened() as world:
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        await until(lambda: len(viewer.frames) > 3)
        count = sum(frame.keyframe for frame in viewer.frames)
        world.plane.submit(RequestKeyframe(program.track, 0))
        await until(lambda: sum(frame.keyframe for frame in viewer.frames) > count)


async def test_wrong_wishes_are_refused_and_change_nothing() -> None:
    async with opened() as world:
        program, viewer = world.program()
        world.pool.open_stage("s", program)
        with pytest.raises(Conflict):
            world.pool.open_stage("s", program)
        with pytest.raises(BadRequest, match="multiple of 32"):
            world.pool.open_stage("t", replace(program, width=1000))
        with pytest.raises(BadRequest, match="leaves the picture"):
            world.pool.set_layout("s", Layout("custom", rectangles=(Rectangle("a", 0.6, 0, 0.5, 1),)))
        with pytest.raises(NotFound):
            world.pool.set_layout("t", Layout())
        await until(lambda: len(viewer.frames) > 3)
        assert world.pool.stages == ["s"]

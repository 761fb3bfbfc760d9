"""Workers behind links, with everything but Ray: their pictures, their ends, and what both sides say."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import pytest

from relay.errors import PeerError
from relay.mix.layout import Box
from relay.mix.video import events
from relay.mix.video.assembly import VideoCodec
from relay.workers.trust import PairAuthority
from relay.workers.words import Begin, Prepared
from tests.mix.video_world import HEIGHT, SMALL, WIDTH, Viewer, World, held, opened, shows, until
from tests.workers.in_process import InProcesses, MortalHost, check_numbers, check_successor

WHOLE = Box(0, 0, WIDTH, HEIGHT)


async def begin(world: World, codec: VideoCodec = "h264") -> tuple[int, Viewer]:
    one = world.publish(codec, 640, 360)
    program, viewer = world.program(codec)
    world.pool.open_stage("s", program)
    world.pool.add_input("s", "ann", "", one.source)
    await until(lambda: len(set(shows(viewer, WHOLE, one.track))) > 10)
    return one.track, viewer


@pytest.mark.parametrize("codec", ["h264", "vp8"])
@pytest.mark.parametrize("how", ["worker", "machine"])
async def test_a_worker_behind_links_makes_the_picture_and_another_goes_on(codec: VideoCodec, how: str) -> None:
    executor = InProcesses()
    async with opened(SMALL, executor) as world:
        track, viewer = await begin(world, codec)
        await until(lambda: len(world.event(events.WorkerStarted)) >= 2)
        frames = len(viewer.frames)
        if how == "worker":
            os.kill(executor.started[0].host.worker, signal.SIGKILL)
        else:
            await executor.started[0].host.lose()
        await until(lambda: world.event(events.StageMoved))
        frames = max(frames, len(viewer.frames))
        assert [event.stages for event in world.event(events.WorkerLost)] == [("s",)]
        shown = len(shows(viewer, WHOLE, track))
        await until(lambda: len(shows(viewer, WHOLE, track)) > shown + 10)
        check_successor(viewer, frames)
        print(world.event(events.WorkerLost), world.event(events.StageMoved))


async def test_a_worker_that_hangs_is_replaced() -> None:
    executor = InProcesses()
    async with opened(SMALL, executor) as world:
        track, viewer = await begin(world)
        await until(lambda: len(world.event(events.WorkerStarted)) >= 2)
        os.kill(executor.started[0].host.worker, signal.SIGSTOP)
        await until(lambda: world.event(events.StageMoved))
        assert [event.reason for event in world.event(events.WorkerLost)] == ["it hangs"]
        shown = len(shows(viewer, WHOLE, track))
        await until(lambda: len(shows(viewer, WHOLE, track)) > shown + 10)
        check_numbers(viewer.sequences)


async def test_inputs_come_and_go_and_a_viewer_gets_the_keyframe_he_needs() -> None:
    async with opened(SMALL, InProcesses()) as world:
        first, viewer = await begin(world)
        second = world.publish("vp8")
        world.pool.add_input("s", "bob", "Bob", second.source)
        right = Box(320, 90, 320, 180)
        await until(lambda: len(shows(viewer, right, second.track)) > 5)
        world.pool.remove_input("s", "bob")
        start = len(viewer.frames)
        await until(lambda: len(shows(viewer, WHOLE, first, start)) > 5)
        (program,) = (stage.program.track for stage in world.pool._stages.values())
        start = len(viewer.frames)
        assert world.pool.request_keyframe(program)
        await until(lambda: any(frame.keyframe for frame in viewer.frames[start:]))


async def test_a_host_of_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.workers.host.release", lambda: "0.0.1")
    executor = InProcesses()
    async with opened(SMALL, executor) as world:
        await until(lambda: world.event(events.WorkerLost))
        assert "has costream 0.0.1, this relay" in world.event(events.WorkerLost)[0].reason
        assert not world.event(events.WorkerStarted)


async def test_words_for_a_host_that_is_never_placed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: MortalHost) -> Prepared:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(MortalHost, "prepare", never)
    monkeypatch.setattr("relay.workers.stand_in.MAX_UNTOLD", 20)
    async with opened(SMALL, InProcesses()) as world:
        program, _ = world.program()
        world.pool.open_stage("s", program)
        for _ in range(30):
            world.pool.request_keyframe(program.track)
        await until(lambda: world.event(events.WorkerLost))
        assert world.event(events.WorkerLost)[0].reason == "20 words wait for its host"


async def test_a_host_says_what_was_wrong_with_its_words() -> None:
    trust, host = PairAuthority(), MortalHost()
    prepared = await host.prepare()
    certificate = trust.far(prepared.public_key)
    try:
        await host.begin(Begin(certificate, trust.pem, ("127.0.0.1", 9), "h264,64,64,10,100000,1000", "", 0.1))
        assert (await host.hear()).still < 10_000_000  # while it imports it has not hung since its machine began
        with pytest.raises(PeerError, match="cannot be read"):
            await host.tell(b"\0\0\0\x02{}")
    finally:
        await host.stop()


async def test_nothing_is_left_of_workers_behind_links() -> None:
    gc.collect()
    before = held()
    await one_program()
    gc.collect()
    after = held()
    assert (after[0], after[2]) == (before[0], before[2])  # threads are the loop's own, for looking names up


async def one_program() -> None:
    """Of its own, so that nothing keeps the plane."""
    async with opened(SMALL, InProcesses()) as world:
        await begin(world)

"""A program's sound through a real plane: packets of tracks go out by a tap ring, and the mix is a track again."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time

import pytest

from relay.mix.audio.messages import Event, ProcessReplaced
from relay.mix.audio.pool import AudioPool
from relay.mix.audio.ports import TrackSink, TrackSource
from relay.plane import native_missing, open_plane
from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, PayloadType, PlaneConfig
from relay.settings import MixAudioSettings
from tests.mix.audio_world import PAYLOAD_TYPE, Listener, Publisher, amplitude_of

OPUS = (PayloadType(PAYLOAD_TYPE, "opus", 48_000),)
ANN, BOB, PROGRAM = 1, 2, 3
HEAR = 100  # tap of the program for the test
NATIVE = pytest.mark.skipif(bool(native_missing()), reason="the native plane is not built")


@pytest.mark.parametrize("kind", ["reference", pytest.param("native", marks=NATIVE)])
async def test_two_tracks_become_one_and_stay_it_when_the_process_is_killed(kind: str) -> None:
    plane = open_plane(kind, PlaneConfig(), "127.0.0.1", 0)  # type: ignore[arg-type]
    listener, events = Listener(), list[Event]()
    plane.on_taps = lambda taps: [listener.take(packet, arrival) for _, packet, arrival in taps]  # type: ignore[func-returns-value]
    plane.start()
    for track in (ANN, BOB, PROGRAM):
        plane.submit(AddTrack(track, None, Kind.AUDIO, "", OPUS, (LayerSpec(),)))
    plane.submit(AddTap(HEAR, PROGRAM, 0))
    numbers = itertools.count(1)
    pool = AudioPool(MixAudioSettings(), plane, events.append)
    people = {ANN: Publisher(440, ssrc=1), BOB: Publisher(1000, ssrc=2)}

    async def speak() -> None:
        due = time.monotonic()
        while True:
            for track, one in people.items():
                plane.inject(track, 0, one.packet())
            due += 0.02
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def hear(packets: int) -> None:
        goal = len(listener.packets) + packets
        async with asyncio.timeout(30):
            while len(listener.packets) < goal:
                await asyncio.sleep(0.01)

    def both() -> list[bool]:
        sound = listener.hear()[-40 * 960 :]
        return [0.1 <= amplitude_of(sound, hz) <= 0.25 for hz in (440, 1000)]

    talk = asyncio.create_task(speak())
    try:
        await pool.start()
        pool.open_room("show")
        pool.add_input("show", "ann", TrackSource(plane.submit, lambda: next(numbers), ANN))
        pool.add_input("show", "bob", TrackSource(plane.submit, lambda: next(numbers), BOB))
        pool.open_mix("show", "program", TrackSink(PROGRAM), payload_type=PAYLOAD_TYPE)
        await hear(80)
        assert both() == [True, True]
        assert pool.pid is not None
        os.kill(pool.pid, signal.SIGKILL)
        await hear(80)
        assert [type(event) for event in events].count(ProcessReplaced) == 1
        assert both() == [True, True]
        pool.remove_input("show", "ann")
        await hear(60)
        assert both() == [False, True]
        pool.close_mix("show", "program")
        await asyncio.sleep(0.1)
        heard = len(listener.packets)
        await asyncio.sleep(0.2)
        assert len(listener.packets) == heard
    finally:
        await pool.stop()
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        plane.close()

"""A real plane, a real pool of workers, publishers that paint counters, and a viewer who reads what they painted."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from costream.painting import Painted, TestPicture, read
from relay.mix.executor import Executor
from relay.mix.layout import Box
from relay.mix.video import events
from relay.mix.video.assembly import AccessUnit, Assembler, VideoCodec
from relay.mix.video.decoder import Decoder
from relay.mix.video.encoder import Encoder, Shape
from relay.mix.video.packets import NTP_EPOCH_S, Packetizer
from relay.mix.video.pool import VideoPool
from relay.mix.video.program import Program, Source
from relay.plane import open_plane
from relay.plane.contract import (
    AddTap,
    AddTrack,
    Event,
    KeyframeRequested,
    Kind,
    LayerSpec,
    PayloadType,
    PlaneConfig,
    RemoveTrack,
)
from relay.plane.reference import rtp
from relay.settings import MixVideoSettings

PATIENCE = 30.0  # seconds: only a hang takes so long
H264, VP8 = PayloadType(102, "h264", 90_000, None, "42e01f/1"), PayloadType(96, "vp8", 90_000)
PAYLOAD_TYPES: dict[VideoCodec, PayloadType] = {"h264": H264, "vp8": VP8}
WIDTH, HEIGHT, FPS = 640, 360, 15
SMALL = MixVideoSettings(width=WIDTH, height=HEIGHT, fps=FPS, bitrate_bps=800_000)


class Seen(NamedTuple):
    """A frame of the program as a viewer decodes it."""

    timestamp: int
    sync_ms: int
    keyframe: bool
    luma: npt.NDArray[np.uint8]
    at: float
    marks: dict[Box, Painted | None]
    """What was read already: who looks for something again and again must not take the time of what he waits for."""

    def mark(self, box: Box) -> Painted | None:
        """What is painted in a cell."""
        if box not in self.marks:
            height, width = self.luma.shape
            region = box.x / width, box.y / height, box.width / width, box.height / height
            self.marks[box] = read(self.luma, region)
        return self.marks[box]


class Publisher:
    """Paints, encodes and injects; a keyframe when asked for."""

    def __init__(self, world: World, track: int, codec: VideoCodec, width: int, height: int, fps: int) -> None:
        self.world, self.track, self.codec, self.fps = world, track, codec, fps
        self.packets = Packetizer(codec, 1000 + track, PAYLOAD_TYPES[codec].number, 65_000)
        self.counter = 0
        self.shift = 0
        self.wants = True
        self.mute_keyframes = False
        self.spoil: Callable[[bytes], bytes] = lambda packet: packet
        self.resize(width, height)
        self.task = asyncio.create_task(self._run())

    @property
    def source(self) -> Source:
        return Source(self.track, 0, self.codec)

    def resize(self, width: int, height: int) -> None:
        self.picture = TestPicture(width, height, self.track)
        self.encoder = Encoder(Shape(self.codec, width, height, self.fps, 600_000, 1_000_000))

    def send(self) -> None:
        """One frame."""
        painted = self.picture.frame(self.counter, int(time.monotonic() * 1000))
        frame = av.VideoFrame.from_ndarray(painted, format="yuv420p")
        wanted, self.wants = self.wants and not self.mute_keyframes, False
        data, _ = self.encoder.encode(frame, wanted)
        timestamp = (self.counter * 90_000 // self.fps + self.shift) % (1 << 32)
        for packet in self.packets.packets(data, timestamp, time.time_ns() // 1000):
            spoiled = self.spoil(packet)
            if spoiled:
                self.world.plane.inject(self.track, 0, spoiled)
        self.counter += 1

    async def _run(self) -> None:
        start = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, start + number / self.fps - time.monotonic()))
            self.send()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Viewer:
    """Decodes a program as it comes from its tap."""

    def __init__(self, codec: VideoCodec) -> None:
        self.assembler, self.decoder = Assembler(codec), Decoder(codec)
        self.sequences: list[int] = []
        self.frames: list[Seen] = []
        self.times: list[float] = []

    def take(self, data: bytes, arrival: int) -> None:
        packet = rtp.parse(data, arrival)
        assert packet is not None
        self.sequences.append(packet.seq)
        for unit in self.assembler.receive(data, arrival):
            for picture in self.decoder.decode(unit.data, 0):
                self.frames.append(self._seen(unit, picture))

    def _seen(self, unit: AccessUnit, picture: Any) -> Seen:
        assert unit.capture is not None
        sync_ms = (unit.capture * 1_000_000 + (1 << 31) >> 32) // 1000 - NTP_EPOCH_S * 1000
        luma = picture.to_ndarray()[: picture.height].copy()
        return Seen(unit.timestamp, sync_ms, unit.keyframe, luma, unit.arrival / 1e6, {})


class World:
    """See the module's text. Use `opened`."""

    def __init__(self, settings: MixVideoSettings, executor: Executor | None) -> None:
        self.plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
        self.handles = itertools.count(1)
        self.events: list[events.VideoEvent] = []
        self.publishers: dict[int, Publisher] = {}
        self.viewers: dict[int, Viewer] = {}
        self.asked: list[int] = []
        self.plane.on_events = self._on_events
        self.plane.on_taps = self._on_taps
        self.plane.start()
        self.pool = VideoPool(self.plane, self.handle, settings, self.events.append, executor=executor)

    def handle(self) -> int:
        return next(self.handles)

    def track(self, codec: VideoCodec) -> int:
        track = self.handle()
        self.plane.submit(AddTrack(track, None, Kind.VIDEO, "", (PAYLOAD_TYPES[codec],), (LayerSpec(),)))
        return track

    def publish(self, codec: VideoCodec, width: int = 320, height: int = 180, fps: int = FPS) -> Publisher:
        track = self.track(codec)
        made = self.publishers[track] = Publisher(self, track, codec, width, height, fps)
        return made

    def program(self, codec: VideoCodec = "h264", **fields: Any) -> tuple[Program, Viewer]:
        """A track for a program, and who watches it."""
        track, tap = self.track(codec), self.handle()
        viewer = self.viewers[tap] = Viewer(codec)
        self.plane.submit(AddTap(tap, track, 0))
        return Program(track, PAYLOAD_TYPES[codec].number, codec=codec, **fields), viewer

    def remove(self, track: int) -> None:
        self.plane.submit(RemoveTrack(track))

    def event(self, kind: type, **fields: object) -> list[Any]:
        """The events of a kind with these fields."""
        found = [event for event in self.events if isinstance(event, kind)]
        return [one for one in found if all(getattr(one, name) == value for name, value in fields.items())]

    def _on_events(self, told: list[Event]) -> None:
        for event in told:
            if isinstance(event, KeyframeRequested):
                self.asked.append(event.track)
                if event.track in self.publishers:
                    self.publishers[event.track].wants = True
                else:
                    self.pool.request_keyframe(event.track)

    def _on_taps(self, tapped: list[tuple[int, bytes, int]]) -> None:
        for tap, packet, arrival in tapped:
            if tap in self.viewers:
                self.viewers[tap].take(packet, arrival)

    async def close(self) -> None:
        await asyncio.gather(*(one.stop() for one in self.publishers.values()))
        await self.pool.stop()
        self.plane.close()


@asynccontextmanager
async def opened(settings: MixVideoSettings = SMALL, executor: Executor | None = None) -> AsyncIterator[World]:
    world = World(settings, executor)
    try:
        await world.pool.start()
        yield world
    finally:
        await world.close()


async def until(done: Callable[[], object], patience: float = PATIENCE) -> None:
    async with asyncio.timeout(patience):
        while not done():
            await asyncio.sleep(0.005)


def shows(viewer: Viewer, box: Box, publisher: int, after: int = 0) -> list[int]:
    """The counters of a publisher that were seen in a cell, from frame `after` on."""
    marks = (frame.mark(box) for frame in viewer.frames[after:])
    return [mark.counter for mark in marks if mark is not None and mark.publisher == publisher]


def held() -> tuple[int, int, int]:
    """Open descriptors, threads and child processes of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(children)

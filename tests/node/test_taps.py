"""Egress of a simulcast publication on a real node: the best layer that comes is taken, whenever it comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import av
import pytest

from relay.cluster import RedisStore
from relay.edge.plan import TrackPlan
from relay.egress.events import EgressRequest
from relay.egress.layers import STEADY_S
from relay.errors import BadRequest
from relay.node import Node
from relay.node.local import LocalTrack
from relay.node.room import HostedRoom
from relay.plane.contract import Feedback, Kind, LayerSpec, PayloadType
from relay.settings import NodeSettings, dev_settings
from relay.stage.document import RoomChange, RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.publications import start_publication
from tests.egress.show import AUDIO, AUDIO_PT, HIGH, VIDEO, VIDEO_PT, Look, Show, clock_ms
from tests.egress.test_recording import counters, sizes
from tests.egress.world import ffmpeg_errors, until

ALICE = Actor("alice", Role.OWNER)
RECORD = EgressRequest("demo", "recording", "alice")
Codec = Literal["h264", "vp8"]


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    given = {
        "media.port": 0,
        "media.plane": "reference",
        "node.state_dir": str(tmp_path),
        "egress.recording_min_free_bytes": 1,
        "room.empty_room_ttl_s": 300.0,
    }
    return dev_settings(environ={}, overrides=given)


class OnAir:
    """A show in two layers, as tracks that the node injects; nothing of the better layer is sent until `better`."""

    def __init__(self, node: Node, codec: Codec) -> None:
        self.node, self.codec = node, codec
        self.show = Show(Look(codec=codec), better=Look(codec=codec, width=640, height=360))
        self.show.silent.add(HIGH)
        self._places: dict[int, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def better(self, *, comes: bool) -> None:
        (self.show.silent.discard if comes else self.show.silent.add)(HIGH)

    async def start(self, *, pictures: bool = True) -> None:
        room = await self.node._rooms.open("demo")
        profile = "42e01f/1" if self.codec == "h264" else ""
        video = self._track(Kind.VIDEO, "camera", PayloadType(VIDEO_PT, self.codec, 90_000, profile=profile), "q", "h")
        audio = self._track(Kind.AUDIO, "microphone", PayloadType(AUDIO_PT, "opus", 48_000), "")
        room.inject(audio)
        self._places = {AUDIO: (audio.handle, 0)}
        self._camera = video
        if pictures:
            self.picture(room)
        self._task = asyncio.create_task(self._run())

    def picture(self, room: HostedRoom) -> None:
        """The camera is on from now on."""
        room.inject(self._camera)
        self._places |= {VIDEO: (self._camera.handle, 0), HIGH: (self._camera.handle, 1)}

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _track(self, kind: Kind, source: Literal["camera", "microphone"], form: PayloadType, *rids: str) -> LocalTrack:
        def register(track: LocalTrack) -> Callable[[RoomState], RoomChange]:
            return lambda state: start_publication(
                state, ALICE, time.time(), publication=track.publication, kind=kind.value, source=source,
                codec=form.codec, node=self.node.node_id, session="show", layers=track.active_rids,  # type: ignore[arg-type]
            )  # fmt: skip

        layers = tuple(LayerSpec(rid=rid) for rid in rids)
        plan = TrackPlan("", kind, (form,), layers, Feedback(), source, "")
        handle = next(self.node._handles)
        return LocalTrack(("alice", kind.value, source), handle, f"alice-{kind.value}", "show", plan, register=register)

    async def _run(self) -> None:
        began = time.monotonic()
        while True:
            for _, packet in self.show.packets(round((time.monotonic() - began) * 1e6), clock_ms):
                if packet.stream in self._places:
                    self.node._plane.inject(*self._places[packet.stream], packet.data)
            await asyncio.sleep(0.005)


@pytest.fixture
async def on_air(node: Node, request: pytest.FixtureRequest) -> AsyncIterator[OnAir]:
    shown = OnAir(node, request.param)
    await shown.start()
    await until(lambda: len(node.knows("demo")["publications"]) == 2)  # type: ignore[index]
    yield shown
    await shown.stop()


@pytest.mark.parametrize("on_air", ["h264", "vp8"], indirect=True)
async def test_a_recording_climbs_to_a_layer_that_starts_later_and_falls_back(
    node: Node, store: RedisStore, on_air: OnAir, tmp_path: Path
) -> None:
    started = (await node.egress.start_egress(RECORD))["id"]

    def facts() -> dict[str, object]:
        return next(each for each in node.egress.facts() if each["id"] == started)

    def written(count: int, least: int) -> bool:
        """Whether the recording has so many files, and the last one so many bytes."""
        found = sorted((tmp_path / "recordings" / "demo").glob("*.mp4"))
        return len(found) == count and found[-1].stat().st_size >= least

    await until(lambda: written(1, 10_000))
    on_air.better(comes=True)
    came = time.monotonic()
    await until(lambda: written(2, 60_000))
    assert time.monotonic() - came >= STEADY_S
    on_air.better(comes=False)
    await until(lambda: written(3, 10_000))
    ended = await node.egress.stop_egress(started)
    paths = [tmp_path / "recordings" / "demo" / name for name in ended["files"]]
    assert [sizes(path) for path in paths] == [{(320, 180)}, {(640, 360)}, {(320, 180)}]
    assert ffmpeg_errors(*paths) == ""
    told = [counter for path in paths for counter in counters(path)]
    assert told == sorted(told)
    assert (facts()["restarts"], facts()["error"]) == (0, None)


async def test_a_camera_that_comes_after_the_microphone_is_recorded(node: Node, tmp_path: Path) -> None:
    """So does a host's who comes back, and a program's picture: sound is there first."""
    shown = OnAir(node, "h264")
    await shown.start(pictures=False)
    try:
        await until(lambda: len(node.knows("demo")["publications"]) == 1)  # type: ignore[index]
        started = (await node.egress.start_egress(RECORD))["id"]
        files = tmp_path / "recordings" / "demo"
        await until(lambda: bool(list(files.glob("*.mp4"))))
        shown.picture(await node._rooms.open("demo"))
        await until(lambda: len(list(files.glob("*.mp4"))) == 2)
        await until(lambda: max(files.glob("*.mp4")).stat().st_size > 20_000)
        ended = await node.egress.stop_egress(started)
    finally:
        await shown.stop()
    heard, seen = [files / name for name in ended["files"]]
    with av.open(str(heard)) as file:
        assert [each.type for each in file.streams] == ["audio"]
    assert sizes(seen) == {(320, 180)}
    assert ffmpeg_errors(heard, seen) == ""


async def test_a_source_that_has_just_begun_is_taken_whole(node: Node, tmp_path: Path) -> None:
    """Both tracks are agreed on, sound comes at once, and the camera takes a moment."""
    shown = OnAir(node, "h264")
    await shown.start()
    room = await node._rooms.open("demo")
    for stream in (VIDEO, HIGH):
        place = shown._places.pop(stream)
        asyncio.get_running_loop().call_later(0.5, shown._places.__setitem__, stream, place)
    try:
        await until(lambda: bool(next(each for each in room.local_tracks() if each.key[1] == "audio").codec))
        started = (await node.egress.start_egress(RECORD))["id"]
        await until(lambda: any(each["bytes"] > 20_000 for each in node.egress.facts()))
        ended = await node.egress.stop_egress(started)
    finally:
        await shown.stop()
    (name,) = ended["files"]
    assert sizes(tmp_path / "recordings" / "demo" / name) == {(320, 180)}


@pytest.mark.parametrize("on_air", ["vp8"], indirect=True)
async def test_vp8_is_recorded_and_neither_played_as_hls_nor_pushed(node: Node, on_air: OnAir) -> None:
    for source in ("alice", "alice-video"):
        with pytest.raises(BadRequest) as refused:
            await node.egress.start_egress(EgressRequest("demo", "hls", source))
        assert refused.value.code == "codec-not-taken"
        assert "VP8" in str(refused.value)
    sound = await node.egress.start_egress(EgressRequest("demo", "hls", "alice-audio"))
    assert [each["id"] for each in node.egress.facts()] == [sound["id"]]

"""From audience to stage: a viewer of the program by HLS who accepts an invitation goes on by slots without a gap."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from relay.cluster import EmbeddedServer, RedisStore
from relay.egress.events import EgressRequest
from relay.egress.manager import EgressManager
from relay.egress.plane_feed import PlaneFeed, Tapped
from relay.egress.source import Stream
from relay.metrics import Metrics
from relay.node import Node
from relay.plane.contract import AddTrack, Kind, LayerSpec, PayloadType
from relay.settings import EgressSettings, NodeSettings, dev_settings
from relay.stage import seats
from relay.stage.document import RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.publications import start_publication
from relay.stage.room import changing, create
from signaling.app import create_app
from signaling.nodes import LocalNodes
from signaling.tokens import mint
from tests.egress.local import LocalEgress
from tests.egress.show import AUDIO, AUDIO_PT, VIDEO_PT, Show, clock_ms
from tests.egress.world import until
from tests.interop.clients.chromium import Tab, launched

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

OLGA = Actor("olga", Role.OWNER)
FPS = 30
WEB = Path(__file__).resolve().parents[2] / "web"
FADE_MS = 150
MOST_LATE_S = 0.1

# Notes what each picture says as it is shown: [source, counter, when it is on the screen].
NOTE = """() => {
    const frames = (window.frames = []);
    const canvas = document.createElement('canvas');
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const follow = (video, source) => video.requestVideoFrameCallback(function next(_, { expectedDisplayTime }) {
        [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
        context.drawImage(video, 0, 0);
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        const told = painting.read(data, canvas.width, canvas.height);
        if (told) frames.push([source, told.counter, expectedDisplayTime]);
        video.requestVideoFrameCallback(next);
    });
    follow(costream.video, 'program');
    const timer = setInterval(() => {
        const tile = costream.tiles?.tiles[0];
        if (!tile || window.states) return;
        window.states = [];
        follow(tile.video, 'slot');
        costream.handover.addEventListener('state', ({ detail: { state, apart } }) => {
            window.states.push([state, performance.now(), apart]);
        });
    }, 5);
    const publish = costream.publish.bind(costream);
    costream.publish = (api) => { window.publishNow = () => publish(api); }; // after what is measured here
}"""


class OnAir:
    """A show whose tracks are on the node's plane as somebody's camera and microphone."""

    def __init__(self, node: Node, store: RedisStore) -> None:
        self.node, self.store = node, store
        self.show = Show()
        self.plane = node._plane
        self.video, self.audio = next(node._handles), next(node._handles)
        self.latest = 0.0
        """Seconds by which a packet was sent too late: moments are told by when packets come."""

    async def start(self) -> None:
        room = await self.node._rooms.open("demo")
        h264 = PayloadType(VIDEO_PT, "h264", 90_000, profile="42e01f/1")
        opus = PayloadType(AUDIO_PT, "opus", 48_000)
        for handle, kind, codec, source, form in (
            (self.video, Kind.VIDEO, "h264", "camera", h264),
            (self.audio, Kind.AUDIO, "opus", "microphone", opus),
        ):
            self.plane.submit(AddTrack(handle, None, kind, "", (form,), (LayerSpec(),)))
            self.node._rooms._track_changed(handle, room)

            def begin(state: RoomState, kind: Any = kind.value, codec: Any = codec, source: Any = source) -> Any:
                return start_publication(
                    state, OLGA, time.time(), publication=f"olga-{kind}", kind=kind, source=source, codec=codec,
                    node=self.node.node_id, session="show", layers=("",),
                )  # fmt: skip

            await self.store.change("demo", changing(begin))
            room.live.publication_local(f"olga-{kind.value}", handle, kind, (), form, time.monotonic())
            room.live.on_layer_started(handle, 0, time.monotonic())

    async def run(self) -> None:
        began = time.monotonic()
        while True:
            due = time.monotonic() - began
            for moment, packet in self.show.packets(round(due * 1e6), clock_ms):
                self.latest = max(self.latest, due - moment / 1e6)
                self.plane.inject(self.audio if packet.stream == AUDIO else self.video, 0, packet.data)
            await asyncio.sleep(0.004)

    async def open(self, room: str, source: str, on_end: Callable[[], None]) -> PlaneFeed:
        """The feed of an egress: taps of both tracks."""
        taps = next(self.node._handles), next(self.node._handles)
        layers = [
            Tapped(Stream(taps[0], "video", "h264", VIDEO_PT), self.video, 0),
            Tapped(Stream(taps[1], "audio", "opus", AUDIO_PT), self.audio, 0),
        ]
        return PlaneFeed(self.plane, layers, on_end)


@dataclass
class Stage:
    settings: NodeSettings
    on_air: OnAir
    store: RedisStore
    url: str

    def token(self, identity: str, role: str) -> str:
        return mint(self.settings.auth.keys, room="demo", identity=identity, role=role, ttl_s=3600, now=time.time())


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A node with a host on air, its HLS, and the app in front of both."""
    async with contextlib.AsyncExitStack() as stack:
        server = EmbeddedServer()
        await server.start()
        stack.push_async_callback(server.stop)
        store = RedisStore(server.url, socket_timeout_s=5.0)
        stack.push_async_callback(store.close)
        overrides = {"media.port": 0, "rate.api_per_minute": 60_000, "room.empty_room_ttl_s": 600.0}
        settings = dev_settings(environ={}, overrides=overrides)
        state, _ = create(Actor("test", Role.SERVICE), "demo", time.time())
        await store.create("demo", state.to_json())
        node = Node(settings, store, Metrics(), node_id="n1", version="test", advertised=["127.0.0.1"])
        await node.start()
        stack.push_async_callback(node.shut_down)
        on_air = OnAir(node, store)
        await on_air.start()
        manager = EgressManager(EgressSettings(), tmp_path, on_air, node="n1")
        stack.push_async_callback(manager.close)
        showing = asyncio.create_task(on_air.run())
        stack.callback(showing.cancel)
        await manager.start(EgressRequest("demo", "hls"))
        yield Stage(settings, on_air, store, await stack.enter_async_context(serving(settings, store, node, manager)))


@contextlib.asynccontextmanager
async def serving(settings: NodeSettings, store: RedisStore, node: Node, manager: EgressManager) -> AsyncIterator[str]:
    own, node.egress = node.egress, LocalEgress(manager)  # type: ignore[assignment]
    app = create_app(settings, store, LocalNodes(node), Metrics(), pages_directory=WEB)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        node.egress = own
        server.should_exit = True
        await task


async def handed_over(tab: Tab) -> tuple[float, list[tuple[str, int, float]]]:
    """When the slots began to come up, and all frames that were shown."""
    await until(lambda: tab.page.evaluate("window.publishNow !== undefined"), 90)
    await tab.page.wait_for_timeout(1500)
    states = await tab.page.evaluate("window.states")
    (live,) = (at for state, at, _ in states if state == "live")
    (apart,) = (apart for state, _, apart in states if state == "live")
    print(f"\nmoments apart when it changed over: {apart:.0f} ms")
    return live - FADE_MS, [tuple(each) for each in await tab.page.evaluate("window.frames")]


async def test_who_accepts_an_invitation_sees_no_gap(stage: Stage) -> None:
    async with launched() as chromium:
        tab = await chromium.tab(f"{stage.url}/watch.html#room=demo&mode=hls&token={stage.token('vera', 'viewer')}")
        await until(lambda: tab.page.evaluate("window.costream?.player.shownAt ?? null"))
        await tab.page.wait_for_timeout(4000)  # the player settles at its distance from the edge
        await tab.page.evaluate(NOTE)
        stage.on_air.latest = 0.0
        await stage.store.change("demo", changing(lambda state: seats.invite(state, OLGA, "vera", time.time())))
        await tab.page.wait_for_selector("#accept", state="visible")
        await tab.page.click("#accept")
        try:
            changed, frames = await handed_over(tab)
        except AssertionError as error:
            facts = await tab.page.evaluate("[window.states, document.body.innerText, window.frames?.slice(-5)]")
            raise AssertionError(f"{error}; {facts}; {tab.errors}") from None
        late = stage.on_air.latest
        assert await tab.page.evaluate("costream.tile.isConnected") is False
        await tab.page.evaluate("publishNow()")

        async def on_stage() -> bool:
            state = RoomState.from_json(await stage.store.read("demo"))
            return any(each.identity == "vera" and each.state == "live" for each in state.publications.values())

        await until(on_stage)
        assert not [error for error in tab.errors if "Failed to load resource" not in error], tab.errors
    if late > MOST_LATE_S:
        pytest.skip(f"this machine sent packets {late:.2f} s late: nobody can tell their moments")
    judge(changed, frames)


def judge(changed: float, frames: list[tuple[str, int, float]]) -> None:
    """The same moment on both sides of the change, and all that is shown goes forward."""
    program = [(counter, at) for source, counter, at in frames if source == "program" and at <= changed + FADE_MS]
    slot = [(counter, at) for source, counter, at in frames if source == "slot" and at >= changed]
    if sum(at > changed - 1000 for _, at in program) < FPS / 2:
        pytest.skip("this machine shows too few pictures a second to tell one moment from the next")
    apart = [
        counter - (at - was) * FPS / 1000 - before
        for counter, at in slot[:10]
        for before, was in program
        if abs(at - was) <= FADE_MS
    ]
    print(f"pictures apart while both were shown: {min(apart):.1f} to {max(apart):.1f}")
    assert abs(statistics.median(apart)) <= 3
    last, first = [each for each in program if each[1] <= changed][-1], slot[0]
    missing = first[0] - last[0] - (first[1] - last[1]) * FPS / 1000
    print(f"pictures missing at the change: {missing:.1f} of {first[0] - last[0]}")
    assert abs(missing) <= 3
    shown = [counter for counter, at in program if at <= changed] + [counter for counter, _ in slot]
    steps = [after - before for before, after in pairwise(shown)]
    print(f"steps of what was shown: {min(steps)} to {max(steps)}")
    assert min(steps) >= -3, "it jumped back"
    assert slot[-1][0] - slot[0][0] >= 20, "the slots do not go on"

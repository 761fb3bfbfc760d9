"""hls.js in Chromium plays the program by LL-HLS on the watch page: its pictures are read back."""

from __future__ import annotations

import os
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.egress.show import BETTER, STREAMS, LiveFeeds, Look, Show
from tests.egress.world import World, serving, until
from tests.interop.clients.chromium import Tab, launched

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

READ = """() => {
    const { video, player } = window.costream ?? {};
    if (!video?.videoWidth) return null;
    const canvas = document.createElement('canvas');
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const told = painting.read(pixels, canvas.width, canvas.height);
    return told && { ...told, now: Date.now() % (1 << 24), shownAt: player.shownAt, latency: player.latency,
        width: video.videoWidth, rate: video.playbackRate };
}"""
HEARD = """async () => {
    const { video } = window.costream;
    video.muted = false;
    window.listening ??= (() => {
        const context = new AudioContext();
        const analyser = context.createAnalyser();
        analyser.fftSize = 8192;
        context.createMediaElementSource(video).connect(analyser);
        analyser.connect(context.destination);
        return { context, analyser };
    })();
    const { context, analyser } = window.listening;
    const levels = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(levels);
    const best = levels.reduce((best, level, index) => level > levels[best] ? index : best, 0);
    return levels[best] > -60 ? best * context.sampleRate / analyser.fftSize : null;
}"""


async def told(tab: Tab) -> dict[str, Any] | None:
    told: dict[str, Any] | None = await tab.page.evaluate(READ)
    return told


async def test_hls_js_plays_counters_and_tone(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("hls")
    async with serving(world.manager) as web, launched() as chromium:
        address = f"{web.url}/watch.html#room=demo&mode=hls&token={web.token('vera', 'viewer')}"
        tab = await chromium.tab(address)
        try:
            first = await until(lambda: told(tab))
        except AssertionError as error:
            notice = await tab.page.evaluate("document.body.innerText")
            raise AssertionError(f"{error}; the page says {notice!r}, its log {tab.errors}") from None
        await tab.page.wait_for_timeout(5000)  # the player settles at its distance from the edge
        seen = []
        for _ in range(40):
            await tab.page.wait_for_timeout(100)
            if (now := await told(tab)) is not None:
                seen.append(now)
        counters = [each["counter"] for each in seen]
        assert len(seen) >= 30
        assert counters == sorted(counters)
        assert len(set(counters)) > len(seen) // 2
        assert counters[-1] > first["counter"]
        behind = [(each["now"] - each["clockMs"]) % (1 << 24) for each in seen]
        print(f"\nglass to glass by LL-HLS: median {statistics.median(behind):.0f} ms, max {max(behind)} ms")
        dated = [each["shownAt"] % (1 << 24) - each["clockMs"] for each in seen if each["shownAt"]]
        print(f"EXT-X-PROGRAM-DATE-TIME less the painted clock: median {statistics.median(dated):.0f} ms")
        frequency = await until(lambda: tab.page.evaluate(HEARD))
        assert frequency == pytest.approx(feeds.show.look.tone, abs=12)
        assert not [error for error in tab.errors if "Failed to load resource" not in error], tab.errors
    assert world.states(egress) == ["starting", "running"]


async def test_a_killed_process_and_another_size_do_not_stop_the_player(world: World, feeds: LiveFeeds) -> None:
    feeds.start()
    egress = await world.start("hls")
    async with serving(world.manager) as web, launched() as chromium:
        tab = await chromium.tab(f"{web.url}/watch.html#room=demo&mode=hls&token={web.token('vera', 'viewer')}")
        await until(lambda: told(tab))

        async def shows(since: int, width: int) -> bool:
            now = await told(tab)
            return now is not None and now["counter"] > since and now["width"] == width

        for number in (1, 2):  # the second time there are breaks before it
            (pid,) = world.pids()
            killed = feeds.show.video.pictures
            os.kill(pid, signal.SIGKILL)
            await until(lambda since=killed + 30: shows(since, 320))  # type: ignore[misc]
            feeds.show.video.change(Look(width=480, height=270))
            changed = feeds.show.video.pictures
            await until(lambda since=changed + 30: shows(since, 480))  # type: ignore[misc]
            assert world.manager.get(egress)["restarts"] == number
            feeds.show.video.change(Look())


async def test_another_layer_goes_on_playing(tmp_path: Path) -> None:
    feeds = LiveFeeds(Show(Look(), better=Look(width=640, height=360)))
    world = World(feeds, tmp_path)
    try:
        feeds.start()
        egress = await world.start("hls")
        async with serving(world.manager) as web, launched() as chromium:
            tab = await chromium.tab(f"{web.url}/watch.html#room=demo&mode=hls&token={web.token('vera', 'viewer')}")
            await until(lambda: told(tab))
            for stream, width in ((BETTER, 640), (STREAMS[0], 320)):
                feeds.opened[0].go_on_with(stream)
                since = feeds.show.video.pictures

                async def shows(since: int = since, width: int = width) -> bool:
                    now = await told(tab)
                    return now is not None and now["counter"] > since + 60 and now["width"] == width

                await until(shows)
            assert await tab.page.evaluate("!costream.video.paused && !costream.video.error")
            frequency = await until(lambda: tab.page.evaluate(HEARD))
            assert frequency == pytest.approx(feeds.show.look.tone, abs=12)
        assert world.states(egress) == ["starting", "running"]
    finally:
        await world.close()
        feeds.stop()

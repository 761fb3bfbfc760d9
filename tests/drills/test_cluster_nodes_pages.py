"""The watch page on a cluster: it goes to another node by itself, also when the one that served it is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from drills import ownership
from drills.cluster import Cluster
from tests.drills.fabrics import left, need
from tests.drills.shows import PATIENCE_S, Show
from tests.interop.clients.chromium import Tab, launched
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

RECORD = """() => {
    let shown = -1, at = performance.now();
    window.record = { gap: 0, count: 0 };
    setInterval(() => {
        const frames = [...document.querySelectorAll('#stage video')]
            .reduce((sum, video) => sum + video.getVideoPlaybackQuality().totalVideoFrames, 0);
        if (frames === shown) return;
        const now = performance.now();
        if (shown >= 0) window.record.gap = Math.max(window.record.gap, now - at);
        window.record.count += 1;
        [shown, at] = [frames, now];
    }, 5);
}"""
FORGET = "() => { Object.assign(window.record, { gap: 0, count: 0 }); }"
NODE = "() => window.costream.viewer.id?.split('~')[0]"


async def until(ask: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not await ask():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


async def plays_at(tab: Tab, nodes: set[str]) -> float:
    """Wait until the page shows 30 more pictures, from one of these nodes; the longest time without one, in ms."""

    async def there() -> bool:
        return await tab.page.evaluate(NODE) in nodes and await tab.page.evaluate("() => window.record.count") >= 30

    await tab.page.evaluate("() => { window.record.count = 0; }")
    await until(there, f"pictures from {nodes}; the page says {await tab.page.text_content('#state')}, {tab.errors}")
    return float(await tab.page.evaluate("() => window.record.gap"))


async def watching(made: Show, member: str, page: Callable[[str], Awaitable[Tab]]) -> Tab:
    tab = await page(made.cluster.page("watch", made.room, f"{made.room}-page", "viewer", member))
    await tab.page.evaluate(RECORD)
    await plays_at(tab, {"relay-a", "relay-b", "relay-c"})
    return tab


async def test_the_watch_page_goes_to_another_node() -> None:
    need("tun")
    need_client("wrtc")
    need_client("chromium")
    async with launched() as chromium:
        with Cluster(relays=3, signaling=1, kind="tun") as cluster:
            made = Show(cluster)
            made.publish("h1", "relay-b", "signaling-1")
            tab = await watching(made, "relay-a", lambda url: chromium.tab(url, helpers=False))
            await plays_at(tab, {"relay-a"})
            await tab.page.evaluate(FORGET)
            draining = cluster["relay-a"].process
            assert draining is not None
            draining.signal(signal.SIGTERM)
            gap = await plays_at(tab, {"relay-b", "relay-c"})
            print(f"watch page, its relay drains: {gap:.0f} ms without a picture")
            cluster["relay-a"].stop()

            second = await tab.page.evaluate(NODE)
            cluster["relay-a"].start()
            cluster.wait_until_healthy(PATIENCE_S)
            if second == "relay-b":  # where the host is, too: he has to come back as well
                print("the page is where the host is")
            await tab.page.evaluate("() => window.costream.viewer.api.learn()")
            await tab.page.evaluate(FORGET)
            cluster[second].kill()
            gap = await plays_at(tab, {"relay-a", "relay-b", "relay-c"} - {second})
            print(f"watch page, {second} killed (it answered the page's calls): {gap:.0f} ms without a picture")

            served = await watching(made, "signaling-1", lambda url: chromium.tab(url, helpers=False))
            third = await served.page.evaluate(NODE)
            await served.page.evaluate(FORGET)
            cluster[third].kill()
            gap = await plays_at(served, {"relay-a", "relay-b", "relay-c"} - {second, third})
            print(f"watch page from signaling, {third} killed: {gap:.0f} ms without a picture")
            assert [error for error in tab.errors + served.errors if "Failed to load" not in error] == []
    assert left(ownership.this_process().tag) == []

"""A player that knows nothing of low latency plays the same address: ffmpeg, which takes whole segments."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2

from tests.egress.show import LiveFeeds
from tests.egress.test_recording import counters
from tests.egress.world import FFMPEG, World, ffmpeg_errors, serving, until


async def test_whole_segments_play_without_any_of_the_rest(world: World, feeds: LiveFeeds, tmp_path: Path) -> None:
    feeds.start()
    await world.start("hls")
    path = tmp_path / "seen.mkv"
    async with serving(world.manager) as web, httpx2.AsyncClient(trust_env=False, base_url=web.url) as client:
        headers = {"Authorization": f"Bearer {web.token('vera', 'viewer')}"}
        url = (await client.get("/v1/rooms/demo/hls", headers=headers)).json()["url"]

        async def has_three() -> bool:
            return (await client.get(url)).text.count("#EXTINF") >= 3

        await until(has_three)
        player = await asyncio.create_subprocess_exec(
            FFMPEG, "-v", "error", "-i", web.url + url, "-t", "5", "-c", "copy", str(path),
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(player.communicate(), 60)
        finally:
            if player.returncode is None:
                player.kill()
                await player.wait()
    assert (player.returncode, said) == (0, b"")
    assert ffmpeg_errors(path) == ""
    seen = counters(path)
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert len(seen) >= 130

"""Encoders publish through a relay to Chromium, which decodes what they send: pictures in order, the right tone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.clients.chromium import Chromium
from tests.interop.clients.datachannel import ObsLike
from tests.interop.clients.ffmpeg import Ffmpeg
from tests.interop.clients.process import ClientProcess
from tests.interop.clients.whip_client import WhipClient
from tests.interop.relays import Relay, Room, eventually, tone_of

PUBLISHER = 9
SHAPE: dict[str, Any] = {"width": 320, "height": 180, "fps": 20}


async def check(chromium: Chromium, room: Room, client: ClientProcess, codec: str) -> None:
    """A viewer who is there sees and hears the client; the API knows what it sends."""
    tab = await chromium.tab(room.relay.http)
    viewer = await tab.view(room.whep, room.token("viewer", "viewer"))
    (slot,) = await alive(client, tab.until(lambda: tab.slots(viewer), lambda slots: len(slots[0].seen) > 30, 40))
    assert slot.publishers == [PUBLISHER]
    counters = [painted.counter for _, painted in slot.seen]
    assert counters == sorted(counters)
    assert len(slot.seen) > 0.8 * slot.frames
    assert (slot.width, slot.height) == (320, 180)
    await tab.until(lambda: tab.heard(viewer), lambda tones: tones[0] and abs(tones[0][0] - tone_of(PUBLISHER)) < 6, 20)
    assert {(p["kind"], p["codec"]) for p in await room.publications("host")} == {("audio", "opus"), ("video", codec)}
    (session,) = await room.sessions("host")
    assert session["packets_in"] > 0
    assert session["state"] == "publishing"


async def alive(client: ClientProcess, work: Any) -> Any:
    """Await `work`; on failure tell the client's last lines too."""
    try:
        return await work
    except AssertionError as error:
        raise AssertionError(f"{error}\nthe client ({client.exit_code}) said:\n{client.tail()}") from error


@pytest.mark.parametrize("profile", ["high", "baseline"])
async def test_ffmpeg(chromium: Chromium, room: Room, profile: str) -> None:
    token = room.token("host", "guest")
    async with Ffmpeg(
        room.whip, token, publisher=PUBLISHER, profile=profile, tone=tone_of(PUBLISHER), **SHAPE
    ) as client:
        await check(chromium, room, client, "h264")
    assert client.exit_code == 0, client.tail()
    await eventually(lambda: room.sessions("host"), lambda found: not found)


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_whip_client(chromium: Chromium, relay_with: Callable[..., Relay], codec: str) -> None:
    relay = relay_with(lan=True)
    room = await relay.room()
    token = room.token("host", "guest")
    async with WhipClient(
        room.whip, token, publisher=PUBLISHER, codec=codec, tone=tone_of(PUBLISHER), **SHAPE
    ) as client:
        await check(chromium, room, client, codec.lower())
    assert client.exit_code == 0, client.tail()
    metrics = (await room.request("GET", "/metrics")).text
    assert re.search(r'_count\{method="PATCH",route="/whip/[^"]*",status="204"\} [1-9]', metrics), "nothing trickled"
    await eventually(lambda: room.sessions("host"), lambda found: not found)


@pytest.mark.parametrize("profile", ["high", "baseline"])
async def test_obs_like(chromium: Chromium, room: Room, profile: str) -> None:
    options = {"publisher": PUBLISHER, "profile": profile, "tone": int(tone_of(PUBLISHER)), **SHAPE}
    async with ObsLike(room.whip, room.token("host", "guest"), **options) as client:
        await client.connected()
        await check(chromium, room, client, "h264")
    deleted = client.last("deleted")
    assert deleted
    assert deleted["status"] == 200
    assert client.exit_code == 0, client.tail()
    assert await room.sessions("host") == []


async def test_one_viewer_sees_hosts_of_different_codecs(chromium: Chromium, room: Room) -> None:
    encoder = Ffmpeg(room.whip, room.token("host", "guest"), publisher=PUBLISHER, profile="baseline", **SHAPE)
    host = room.host(1)
    await host.start()
    try:
        await host.connected()
        async with encoder:
            tab = await chromium.tab(room.relay.http)
            viewer = await tab.view(room.whep, room.token("viewer", "viewer"), videos=1, audios=0)
            (session,) = await eventually(lambda: room.sessions("viewer"), lambda found: found)
            for who, publisher in (("h1", 1), ("host", PUBLISHER), ("h1", 1)):
                (publication,) = await eventually(lambda of=who: room.publications(of, "video"), lambda found: found)  # type: ignore[misc]
                await room.ask("PATCH", f"/v1/sessions/{session['id']}/slots/0", {"publication": publication["id"]})
                await tab.until(
                    lambda: tab.slots(viewer),
                    lambda slots, p=publisher: [x.publisher for _, x in slots[0].seen[-10:]] == [p] * 10,  # type: ignore[misc]
                    30,
                )
            (slot,) = await tab.slots(viewer)
            assert slot.publishers[-3:] == [1, PUBLISHER, 1]
    finally:
        await asyncio.shield(host.stop())

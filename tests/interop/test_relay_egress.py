"""What a host publishes leaves a relay as people ask for it by REST: recorded, pushed, played, told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tests.egress.test_chromium import told
from tests.egress.test_recording import counters, sizes
from tests.egress.test_rtmp import free_port, listening, size
from tests.egress.world import ffmpeg_errors
from tests.interop.clients.chromium import Chromium
from tests.interop.clients.ffmpeg import Ffmpeg
from tests.interop.relays import Relay, Room, eventually, is_advancing
from tests.webhooks.receiver import Receiver

PUBLISHER = 9
SECRET = "live_123456_secret"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def relay(relay_with: Callable[..., Relay]) -> Relay:
    return relay_with(egress__recording_min_free_bytes=1, egress__allow_private_targets=True)


@pytest.fixture
async def host(room: Room) -> AsyncIterator[Ffmpeg]:
    """Somebody on air, as `host`."""
    shape = {"width": 320, "height": 180, "fps": 20}
    async with Ffmpeg(room.whip, room.token("host", "guest"), publisher=PUBLISHER, **shape) as client:  # type: ignore[arg-type]
        await eventually(lambda: room.publications("host"), lambda found: len(found) == 2)
        yield client


def processes(relay: Relay) -> list[psutil.Process]:
    """Those of egress that live now."""
    children = psutil.Process(relay.process.pid).children(recursive=True)
    return [child for child in children if "relay.egress" in child.cmdline()]


async def reach(room: Room, egress: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    found: dict[str, Any] = await eventually(lambda: room.ask("GET", f"egress/{egress}"), holds, 40)
    return found


async def test_a_recording_is_clean_after_a_kill_and_told_to_webhooks(
    relay: Relay, room: Room, host: Ffmpeg, receiver: Receiver
) -> None:
    hook = await room.ask("POST", "/v1/webhooks", {"url": receiver.url, "events": ["egress.*"]}, expect=201)
    receiver.secrets.append(hook["secret"])
    started = await room.ask("POST", "egress", {"kind": "recording", "source": "host"}, expect=201)
    egress = started["id"]
    await reach(room, egress, lambda facts: facts["state"] == "running" and facts["pictures"] > 60)
    (process,) = processes(relay)
    os.kill(process.pid, signal.SIGKILL)
    again = await reach(room, egress, lambda facts: facts["restarts"] == 1 and len(facts["files"]) == 2)
    await reach(room, egress, lambda facts: facts["pictures"] > again["pictures"] + 60)
    ended = await room.ask("DELETE", f"egress/{egress}")
    assert (ended["state"], ended["error"]) == ("ended", None)
    paths = [relay.directory / "state" / "recordings" / room.id / name for name in ended["files"]]
    assert ffmpeg_errors(*paths) == ""
    shown = [counter for path in paths for counter in counters(path)]
    assert len(shown) > 120
    assert is_advancing(shown)
    await eventually(lambda: asyncio.to_thread(processes, relay), lambda left: not left)
    listed = (await room.ask("GET", "egress"))["egress"]
    assert [each["id"] for each in listed] == [egress]
    wanted = ["egress.starting", "egress.running", "egress.retrying", "egress.file", "egress.ended"]
    await eventually(lambda: asyncio.to_thread(receiver.types), lambda types: set(types) == set(wanted))
    assert all(each.verified for each in receiver.got)


async def test_a_push_reaches_an_rtmp_server(relay: Relay, room: Room, host: Ffmpeg, tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "pushed.flv"
    body = {"kind": "rtmp", "source": "host", "url": f"rtmp://127.0.0.1:{port}/live/{SECRET}"}
    async with listening(port, path) as server:
        started = await room.ask("POST", "egress", body, expect=201)
        await room.ask("POST", "egress", body, expect=409)
        await reach(room, started["id"], lambda facts: facts["state"] == "running" and size(path) > 60_000)
        ended = await room.ask("DELETE", f"egress/{started['id']}")
        assert await asyncio.wait_for(server.wait(), 20) == 0
    assert ended["target"] == f"rtmp://127.0.0.1:{port}/live/…"
    assert ffmpeg_errors(path) == ""
    assert is_advancing(counters(path))
    assert SECRET not in relay.log.read_text(errors="replace")


async def test_chromium_plays_a_hosts_hls(relay: Relay, room: Room, host: Ffmpeg, chromium: Chromium) -> None:
    await room.ask("POST", "egress", {"kind": "hls", "source": "host"}, expect=201)
    tab = await chromium.tab(f"{room.page('watch', 'vera', 'viewer')}&mode=hls&source=host")
    first = await eventually(lambda: told(tab), lambda seen: seen, 60)
    later = await eventually(lambda: told(tab), lambda seen: seen and seen["counter"] > first["counter"] + 40, 60)
    assert (later["publisher"], later["width"]) == (PUBLISHER, 320)
    assert not [error for error in tab.errors if "Failed to load resource" not in error], tab.errors


async def test_a_relay_that_stops_ends_its_files(relay: Relay, room: Room, host: Ffmpeg) -> None:
    started = await room.ask("POST", "egress", {"kind": "recording", "source": "host"}, expect=201)
    await reach(room, started["id"], lambda facts: facts["pictures"] > 40)
    left = processes(relay)
    assert relay.stop() == 0
    assert not [process for process in left if process.is_running()]
    (path,) = (relay.directory / "state" / "recordings" / room.id).glob("*.mp4")
    assert ffmpeg_errors(path) == ""


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_what_chromium_sends_in_layers_is_recorded_at_its_best(
    relay: Relay, chromium: Chromium, codec: str
) -> None:
    room = await relay.room(codecs=["opus", codec.lower()])
    studio = await chromium.tab(relay.http, bypass_csp=True)
    shape = {"width": 960, "height": 540, "fps": 15}
    await studio.publish(
        room.whip, room.token("host", "guest"), publisher=PUBLISHER, tone=500, codec=codec, simulcast=True, **shape
    )
    await eventually(lambda: room.publications("host"), lambda found: len(found) == 2)
    started = await room.ask("POST", "egress", {"kind": "recording", "source": "host"}, expect=201)
    directory = relay.directory / "state" / "recordings" / room.id

    def best() -> bool:
        """Whether the newest file is of the best layer, and has some seconds."""
        found = sorted(directory.glob("*.mp4"))
        return bool(found) and found[-1].stat().st_size > 100_000 and sizes(found[-1]) == {(960, 540)}

    await eventually(lambda: asyncio.to_thread(best), lambda yes: yes, 90)
    if codec == "VP8":
        for body in ({"kind": "hls"}, {"kind": "rtmp", "url": "rtmp://127.0.0.1/live/key"}):
            problem = await room.ask("POST", "egress", body | {"source": "host"}, expect=400)
            assert "h264" in problem["detail"]
    ended = await room.ask("DELETE", f"egress/{started['id']}")
    assert (ended["restarts"], ended["error"]) == (0, None)
    paths = [directory / name for name in ended["files"]]
    assert ffmpeg_errors(*paths) == ""
    assert is_advancing([counter for path in paths for counter in counters(path)])

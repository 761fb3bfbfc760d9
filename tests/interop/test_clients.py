"""Every client against a loopback endpoint with a real peer behind it: marks and tones arrive, sessions are DELETEd."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from costream.synthetic import Show, SyntheticHost
from costream.whip import Endpoint, Refused
from tests.interop.clients import requirements
from tests.interop.clients.chromium import Chromium
from tests.interop.clients.datachannel import ObsLike
from tests.interop.clients.ffmpeg import Ffmpeg
from tests.interop.clients.loopback import Loopback, Received
from tests.interop.clients.painting import Painted, TestPicture, cells, read
from tests.interop.clients.process import ClientProcess
from tests.interop.clients.whip_client import WhipClient
from tests.interop.clients.wrtc_client import Watcher

TOKEN = "header.payload.signature"


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def arrived(endpoint: Loopback, pictures: int = 30) -> bool:
    return bool(endpoint.sessions) and len(endpoint.sessions[-1].painted) >= pictures and bool(heard(endpoint))


def heard(endpoint: Loopback) -> float:
    tone = endpoint.sessions[-1].heard()
    return tone.frequency if tone else 0.0


def check(session: Received, publisher: int, tone: float) -> None:
    """The pictures are the publisher's, in order, nearly all readable, and the sound is the tone."""
    counters = [painted.counter for painted in session.painted]
    assert {painted.publisher for painted in session.painted} == {publisher}
    assert counters == sorted(counters)
    assert len(counters) >= 0.9 * session.frames, session.summary()
    sound = session.heard()
    assert sound
    assert sound.frequency == pytest.approx(tone, abs=3)
    assert sound.purity > 0.8
    assert session.token == TOKEN


def check_counted(session: Received, fps: int) -> None:
    """The pictures' RTP times follow from their counters alone, but for rounding: no clock was read for them."""
    shifts = {at - painted.counter * 90_000 // fps for at, painted in zip(session.times, session.painted, strict=True)}
    assert max(shifts) - min(shifts) <= 1, shifts


async def test_synthetic_host_publishes_and_deletes(loopback: Loopback) -> None:
    async with SyntheticHost(loopback.whip, TOKEN, Show(publisher=9, tone=660.0)) as host:
        await host.connected()
        await until(lambda: arrived(loopback))
        assert host.counter >= 30
    check(loopback.sessions[0], 9, 660.0)
    assert loopback.sessions[0].deleted
    await host.stop()  # twice does no harm


async def test_synthetic_host_offers_three_layers(layered_loopback: Loopback) -> None:
    show = Show(publisher=9, simulcast=True, width=1280, height=720, audio=False)
    async with SyntheticHost(layered_loopback.whip, TOKEN, show, gather=False) as host:
        await host.connected()

        for _ in range(150):
            layers = {s["rid"] for s in await host.stats() if s.get("rid") and (s.get("frames_sent") or 0) > 0}
            if len(layers) == 3:
                break
            await asyncio.sleep(0.2)
        assert layers == {"q", "h", "f"}


async def test_synthetic_host_is_refused_cleanly(loopback: Loopback) -> None:
    host = SyntheticHost(loopback.origin + "/nowhere", TOKEN)
    with pytest.raises(Refused) as refusal:
        await host.start()
    assert refusal.value.status == 405
    with pytest.raises(ValueError, match="wrtc has no H264"):
        await SyntheticHost(loopback.whip, TOKEN, Show(codec="H264")).start()
    assert not loopback.sessions


async def test_watcher_sees_and_hears_each_slot(loopback: Loopback) -> None:
    async with Watcher(loopback.whep, TOKEN, videos=2, audios=1) as watcher:
        await watcher.until(lambda: all(len(slot.seen) > 20 for slot in watcher.videos) and watcher.audios[0].heard())
        assert [slot.publishers for slot in watcher.videos] == [[2], [3]]
        assert watcher.audios[0].heard().frequency == pytest.approx(500, abs=3)
        assert watcher.videos[0].counters(2) == sorted(watcher.videos[0].counters(2))
        assert {s["kind"] for s in await watcher.stats("inbound-rtp")} == {"audio", "video"}
        assert watcher.first_frame_at > watcher.posted_at
    assert loopback.sessions[0].deleted


async def test_watcher_says_what_it_saw_when_waiting_in_vain(loopback: Loopback) -> None:
    async with Watcher(loopback.whep, TOKEN) as watcher:
        with pytest.raises(AssertionError, match=r"video 1: .* frames"):
            await watcher.until(lambda: False, 0.5)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Files of a self-signed certificate and its key."""
    files = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*make, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


async def test_https_with_a_self_signed_certificate(certificate: tuple[str, str]) -> None:
    async with Loopback(certificate=certificate) as endpoint:
        async with Watcher(endpoint.whep, TOKEN, audios=0) as watcher:
            await watcher.until(lambda: watcher.videos[0].latest)
        async with Endpoint(endpoint.whep, TOKEN) as strict:
            with pytest.raises(Exception, match=r"(?i)certificate"):
                await strict.offer("v=0")


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_chromium_publishes(chromium: Chromium, loopback: Loopback, codec: str) -> None:
    tab = await chromium.tab(loopback.origin)
    options = {"publisher": 321, "width": 640, "height": 360, "codec": codec, "tone": 523}
    publisher = await tab.publish(loopback.whip, TOKEN, **options)
    await until(lambda: arrived(loopback))
    check(loopback.sessions[0], 321, 523)
    assert f"{codec}/90000" in loopback.sessions[0].offer
    assert await tab.unpublish(publisher) == 200
    assert loopback.sessions[0].deleted


async def test_chromium_sends_three_layers(chromium: Chromium, layered_loopback: Loopback) -> None:
    tab = await chromium.tab(layered_loopback.origin)
    await tab.publish(layered_loopback.whip, TOKEN, publisher=5, simulcast=True, tone=0)
    layers = await tab.until(tab.layers, lambda layers: len(layers) == 3, 30)
    assert {rid: layer["frameWidth"] for rid, layer in layers.items()} == {"q": 320, "h": 640, "f": 1280}
    session = layered_loopback.sessions[0]
    await until(lambda: session.painted)
    assert session.painted[0].publisher == 5


async def test_chromium_watches_slots(chromium: Chromium, loopback: Loopback) -> None:
    tab = await chromium.tab(loopback.origin)
    viewer = await tab.view(loopback.whep, TOKEN, videos=2, audios=1)
    await tab.until(lambda: tab.slots(viewer), lambda slots: all(len(slot.seen) > 10 for slot in slots))
    assert [slot.publishers for slot in await tab.slots(viewer, clear=True)] == [[2], [3]]
    rates = await tab.until(lambda: tab.rates(viewer), lambda rates: all(sum(rate.values()) > 5 for rate in rates))
    assert [list(rate) for rate in rates] == [[2], [3]]
    (tone,) = await tab.until(lambda: tab.heard(viewer), lambda tones: tones[0] and abs(tones[0][0] - 500) < 6)
    assert tone
    assert any(s["kind"] == "video" and s["framesDecoded"] > 0 for s in await tab.viewer_stats(viewer))
    picture = await tab.screenshot("watching")
    assert picture.stat().st_size > 1000
    assert await tab.unview(viewer) == 200


async def test_javascript_and_python_paint_the_same_mark(chromium: Chromium, loopback: Loopback) -> None:
    tab = await chromium.tab(loopback.origin)
    for painted in (Painted(0, 0, 0), Painted(65535, 1, 12_345_678), Painted(513, 0xFFFFFF, 0xFFFFFF)):
        named = {"publisher": painted.publisher, "counter": painted.counter, "clockMs": painted.clock_ms}
        bits = await tab.page.evaluate("p => painting.cells(p)", named)
        assert bits == cells(painted).reshape(-1).tolist()
        drawn = await tab.page.evaluate(
            """p => { const canvas = Object.assign(document.createElement('canvas'), {width: 80, height: 48});
                const context = canvas.getContext('2d'); painting.paint(context, 80, 48, p);
                return [...context.getImageData(0, 0, 80, 48).data]; }""",
            named,
        )
        assert read(np.array(drawn, np.uint8).reshape(48, 80, 4)) == painted
        luma = TestPicture(80, 48, painted.publisher).frame(painted.counter, painted.clock_ms)[:48]
        pixels = np.repeat(luma.reshape(-1), 4).tolist()
        assert await tab.page.evaluate("d => painting.read(Uint8ClampedArray.from(d), 80, 48)", pixels) == named
    assert await tab.page.evaluate("() => painting.read(new Uint8ClampedArray(80 * 48 * 4), 80, 48)") is None


@pytest.mark.parametrize("profile", ["high", "baseline"])
async def test_ffmpeg_publishes(loopback: Loopback, profile: str) -> None:
    async with Ffmpeg(loopback.whip, TOKEN, publisher=56, profile=profile, tone=550.0) as ffmpeg:
        await ffmpeg.until(lambda: arrived(loopback))
    check(loopback.sessions[0], 56, 550.0)
    assert "a=setup:passive" in loopback.sessions[0].offer
    assert ffmpeg.exit_code == 0, ffmpeg.tail()
    assert loopback.sessions[0].deleted


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_whip_client_publishes_and_trickles(loopback: Loopback, codec: str) -> None:
    async with WhipClient(loopback.whip, TOKEN, publisher=57, codec=codec, tone=480.0) as client:
        try:
            await client.until(lambda: arrived(loopback))
        except AssertionError as error:
            error.add_note(f"painted {client.counter}; {[each.summary() for each in loopback.sessions]}")
            raise
    check(loopback.sessions[0], 57, 480.0)
    check_counted(loopback.sessions[0], fps=30)
    assert loopback.sessions[0].patches
    assert client.exit_code == 0, client.tail()
    assert loopback.sessions[0].deleted


@pytest.mark.parametrize("profile", ["high", "baseline"])
async def test_obs_like_publishes(loopback: Loopback, profile: str) -> None:
    async with ObsLike(loopback.whip, TOKEN, publisher=58, profile=profile, tone=620) as client:
        await client.connected()
        await client.until(lambda: arrived(loopback) and client.counter)
    session = loopback.sessions[0]
    check(session, 58, 620)
    assert "a=candidate" not in session.offer
    assert not session.patches
    assert client.last("deleted")["status"] == 200
    assert client.exit_code == 0, client.tail()


async def test_a_client_that_ends_too_early_tells_its_last_lines() -> None:
    async with ClientProcess(["sh", "-c", "echo for this reason >&2; exit 7"]) as client:
        with pytest.raises(AssertionError, match=r"(?s)ended with 7.*for this reason"):
            await client.until(lambda: False)


async def test_a_client_that_does_not_end_is_killed() -> None:
    client = ClientProcess(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    await client.start()
    assert await client.stop(seconds=0.3) == -9


def test_a_missing_client_skips_by_name_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "find", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Debian package chromium"):
        requirements.need("chromium")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="simple-whip-client"):
        requirements.need("whip-client")


def test_setting_up_twice_installs_nothing(tmp_path: Path) -> None:
    script = ["bash", str(Path(__file__).with_name("setup.sh"))]
    first = subprocess.run(script, check=True, capture_output=True, text=True, timeout=600)
    if first.stderr:
        requirements.missing(first.stderr)
    called = tmp_path / "called"
    for name in ("apt-get", "cc"):
        trap = tmp_path / name
        trap.write_text(f"#!/bin/sh\necho {name} >> {called}\nexit 1\n")
        trap.chmod(0o755)
    finished = requirements.DATACHANNEL_VENV / "complete"
    stamp = finished.stat().st_mtime_ns if finished.exists() else 0
    path = f"{tmp_path}:{os.environ['PATH']}"
    again = subprocess.run(script, check=True, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert (again.stdout, again.stderr) == ("", "")
    assert not called.exists()
    assert (finished.stat().st_mtime_ns if finished.exists() else 0) == stamp

"""The project's own pages in Chromium over HTTPS with its fake camera and microphone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.clients.chromium import Chromium, Tab
from tests.interop.relays import Relay, Room, eventually, token

PLAYING = """() => [...document.querySelectorAll('#stage .tile')]
    .filter((tile) => !tile.hidden && tile.querySelector('video').videoWidth > 0)
    .map((tile) => ({
        name: tile.querySelector('.name').textContent,
        time: tile.querySelector('video').currentTime,
        frames: tile.querySelector('video').getVideoPlaybackQuality().totalVideoFrames,
    }))"""

SOUNDING = """() => window.costream.viewer.health().then((all) =>
    [...all.values()].filter((slot) => slot.kind === 'audio' && slot.received > 50).length)"""


@pytest.fixture
async def room(relay: Relay) -> Room:
    """VP8 in one small layer is what three browsers on two cores can do."""
    return await relay.room(codecs=["opus", "vp8"])


async def studio(chromium: Chromium, room: Room, identity: str, role: str = "guest") -> Tab:
    """Open the studio and go live with the fake devices."""
    tab = await chromium.tab(room.page("studio", identity, role), helpers=False)
    return await join(tab)


async def join(tab: Tab) -> Tab:
    await tab.page.wait_for_function("() => document.getElementById('preview').videoWidth > 0", timeout=30_000)
    await tab.page.select_option("#layers", "1")
    await tab.page.click("#go")
    await tab.page.wait_for_selector("#studio:not([hidden])", timeout=30_000)
    return tab


async def watch(chromium: Chromium, room: Room, identity: str = "viewer") -> Tab:
    return await chromium.tab(room.page("watch", identity, "viewer"), helpers=False)


async def tiles(tab: Tab) -> dict[str, int]:
    """The visible tiles that have a picture: name and frames shown so far."""
    return {tile["name"]: tile["frames"] for tile in await tab.page.evaluate(PLAYING)}


async def playing(tab: Tab, *names: str, seconds: float = 30.0) -> None:
    """Wait until exactly these tiles are there, and all of them show ten pictures more than they did."""
    first = await eventually(lambda: tiles(tab), lambda told: set(told) == set(names), seconds)
    await eventually(
        lambda: tiles(tab),
        lambda told: set(told) == set(names) and all(told[name] >= first[name] + 10 for name in names),
        seconds,
    )


def faults(*tabs: Tab) -> list[str]:
    """What went wrong in the pages, but for the refusals that a browser writes to its console by itself."""
    return [error for tab in tabs for error in tab.errors if "Failed to load resource" not in error]


async def person(tab: Tab, identity: str, action: str) -> None:
    """Press a button in the studio's list of people."""
    await tab.page.click(f'#people li[data-identity="{identity}"] button[data-action="{action}"]', timeout=20_000)


async def test_two_hosts_and_a_viewer(chromium: Chromium, room: Room) -> None:
    alice, bob = await studio(chromium, room, "alice", "owner"), await studio(chromium, room, "bob")
    viewer = await watch(chromium, room)
    await playing(alice, "you", "bob")
    await playing(bob, "you", "alice")
    await playing(viewer, "alice", "bob")
    await viewer.page.evaluate("() => { window.firstConnection = window.costream.viewer.pc; }")
    await eventually(lambda: viewer.page.evaluate(SOUNDING), lambda count: count == 2)

    before = {p["id"] for p in await room.publications("alice")}
    await bob.page.click("#leave")
    await playing(viewer, "alice")
    await playing(alice, "you")
    await bob.page.reload()
    await join(bob)
    await playing(viewer, "alice", "bob")
    await playing(alice, "you", "bob")
    assert {p["id"] for p in await room.publications("alice")} == before
    assert await viewer.page.evaluate("() => window.costream.viewer.negotiations") == 1
    assert await viewer.page.evaluate("() => window.firstConnection === window.costream.viewer.pc")
    assert await viewer.page.evaluate("() => window.firstConnection.connectionState") == "connected"
    assert await viewer.page.text_content("#state") == "live"
    assert faults(alice, bob, viewer) == []


async def test_a_viewer_is_invited_muted_and_kicked(chromium: Chromium, room: Room) -> None:
    alice = await studio(chromium, room, "alice", "owner")
    vera = await watch(chromium, room, "vera")
    await playing(vera, "alice")
    await person(alice, "vera", "invite")
    await vera.page.wait_for_selector("#invitation:not([hidden])", timeout=20_000)
    assert await vera.page.text_content("#inviter") == "alice"
    await vera.page.click("#accept")
    await vera.page.wait_for_url("**/studio.html**", timeout=20_000)
    await join(vera)
    await playing(alice, "you", "vera")
    await playing(vera, "you", "alice")

    await person(alice, "vera", "mute")
    (audio,) = await eventually(
        lambda: room.publications("vera", "audio"), lambda found: [p["muted"] for p in found] == [True]
    )
    assert audio["muted"]
    await alice.page.wait_for_selector('#people li[data-identity="vera"] button:has-text("Unmute")', timeout=20_000)

    await person(alice, "vera", "kick")
    await vera.page.wait_for_selector("#notice:not([hidden])", timeout=20_000)
    assert "removed" in (await vera.page.text_content("#notice") or "")
    await playing(alice, "you")
    assert await eventually(lambda: room.sessions("vera"), lambda found: not found) == []
    assert faults(alice, vera) == []


async def test_the_dashboard_tells_of_rooms_and_sessions(chromium: Chromium, room: Room) -> None:
    host = room.host(5)
    await host.start()
    try:
        url = room.page("dashboard", "operator", "service").replace(f"room={room.id}", "room=*")
        service = token("*", "operator", "service")
        tab = await chromium.tab(url.rsplit("token=", 1)[0] + f"token={service}", helpers=False)
        async with room.watcher() as watcher:
            await watcher.until(lambda: len(watcher.videos[0].seen) > 5, 20)
            rows = await eventually(lambda: table(tab, "sessions"), lambda rows: len(of(rows, room)) == 2, 20)
            shown = {row["identity"]: row for row in of(rows, room)}
            assert {row["kind"] for row in shown.values()} == {"publisher", "viewer"}
            assert "video vp8" in shown["h5"]["shows"]
            assert [row["on air"] for row in of(await table(tab, "rooms"), room)] == ["h5"]
            (node,) = await table(tab, "nodes")
            assert node["state"] == "serving"
            await eventually(lambda: tab.page.evaluate(PLOTTED), lambda plots: len(plots) == 6 and all(plots), 30)
            assert "NaN" not in (await tab.page.text_content("main") or "")
            assert faults(tab) == []
    finally:
        await host.stop()


PLOTTED = """() => [...document.querySelectorAll('#plots > *')].map((plot) => plot.textContent.trim().length > 0)"""


async def table(tab: Tab, name: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = await tab.page.evaluate(
        """(id) => { const [head, ...rows] = [...document.querySelectorAll(`#${id} tr`)]
            .map((row) => [...row.children].map((cell) => cell.textContent));
            return rows.map((row) => Object.fromEntries(row.map((cell, i) => [head[i], cell]))); }""",
        name,
    )
    return rows


def of(rows: list[dict[str, Any]], room: Room) -> list[dict[str, Any]]:
    return [row for row in rows if row["room"] == room.id]


async def test_a_page_without_a_token_says_how_to_get_one(chromium: Chromium, relay: Relay) -> None:
    for name in ("studio", "watch", "dashboard"):
        tab = await chromium.tab(f"{relay.https}/{name}.html", helpers=False)
        assert "costream token" in (await tab.page.text_content("#notice") or "")
        assert tab.errors == []

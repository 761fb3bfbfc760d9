"""Hosts that vanish and return, restart ICE or come twice: their viewers' slots play on without renegotiation."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.interop.clients.process import ClientProcess
from tests.interop.clients.wrtc_client import Slot
from tests.interop.relays import Relay, Room, eventually, is_advancing, on_stage, session_of, tone_of
from tests.interop.restarting import restart_ice


def vanishing(room: Room, publisher: int) -> ClientProcess:
    """A host in a process of its own, which can be killed so that nobody says goodbye."""
    name = f"h{publisher}"
    command = [sys.executable, "-m", "costream.synthetic", room.whip, "--token", room.token(name, "guest")]
    return ClientProcess([*command, "--publisher", str(publisher), "--tone", str(tone_of(publisher))])


def played(slot: Slot, since: float) -> list[int]:
    """The counters that the slot has shown since then."""
    return [seen.painted.counter for seen in slot.seen if seen.painted and seen.at > since]


def hears(slot: Slot, publisher: int) -> bool:
    heard = slot.heard()
    return heard is not None and abs(heard.frequency - tone_of(publisher)) < 3


@pytest.mark.parametrize("pause", ["at once", "after the pause"])
async def test_a_killed_host_returns(relay_with: Callable[..., Relay], pause: str) -> None:
    room = await relay_with(session__media_silence_s=2).room()
    async with on_stage(room.host(2)), room.watcher(videos=2, audios=2) as watcher:
        host = vanishing(room, 1)
        await host.start()
        try:
            await watcher.until(lambda: all(len(slot.seen) > 20 for slot in watcher.videos), 30)
            slot = next(slot for slot in watcher.videos if slot.publishers == [1])
            other = next(slot for slot in watcher.videos if slot.publishers == [2])
            before = await room.publications("h1")
            await host.stop(signal=signal.SIGKILL)
            if pause == "after the pause":
                await eventually(
                    lambda: room.sessions("h1"), lambda found: [s["state"] for s in found] == ["pausing"], 20
                )
            host, returned = vanishing(room, 1), time.monotonic()
            await host.start()
            await watcher.until(lambda: len(played(slot, returned)) > 20, 30)
            await watcher.until(lambda: any(hears(each, 1) for each in watcher.audios), 20)
        finally:
            await host.stop(signal=signal.SIGKILL)
        assert is_advancing(played(slot, returned))
        assert slot.publishers == [1]
        assert other.publishers == [2]
        assert is_advancing(other.counters(2))
        after = await room.publications("h1")
        assert {p["id"] for p in after} == {p["id"] for p in before}
        assert {p["state"] for p in after} == {"live"}
        assert watcher.state == "connected"


async def test_a_seat_is_not_held_for_ever(relay_with: Callable[..., Relay]) -> None:
    room = await relay_with(session__media_silence_s=1, session__seat_hold_s=2).room()
    host = vanishing(room, 1)
    await host.start()
    try:
        await eventually(lambda: room.publications("h1"), lambda found: len(found) == 2, 30)
    finally:
        await host.stop(signal=signal.SIGKILL)
    await eventually(lambda: room.ask("GET", "stage"), lambda stage: not stage["seats"], 30)
    assert await room.publications() == []
    assert await room.sessions() == []


async def test_ice_restarts_with_another_address(room: Room) -> None:
    host = room.host(1)
    async with on_stage(host), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) > 10, 20)
        for client, bearer in ((host, room.token("h1", "guest")), (watcher, room.token("viewer", "viewer"))):
            session = session_of(client)
            address = (await room.session(session))["address"]
            await restart_ice(client, bearer)
            moved = await eventually(
                lambda of=session: room.session(of),  # type: ignore[misc]
                lambda told, old=address: told["address"] != old,  # type: ignore[misc]
            )
            assert moved["id"] == session
            since = time.monotonic()
            await watcher.until(lambda at=since: len(played(video, at)) > 20, 20)  # type: ignore[misc]
        assert is_advancing(video.counters(1))
        assert len(await room.sessions()) == 2


async def test_the_newer_of_two_sessions_replaces_the_older(room: Room) -> None:
    older, newer = room.host(1), room.host(1)
    async with on_stage(older), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) > 20, 20)
        before = {p["id"] for p in await room.publications("h1")}
        first = session_of(older)
        async with on_stage(newer):
            since = time.monotonic()
            found = await eventually(lambda: room.sessions("h1"), lambda found: len(found) == 1)
            assert found[0]["id"] == session_of(newer) != first
            # The newer one began to count at 0: its pictures are told from the older one's by that.
            await watcher.until(lambda: newer.counter - 30 < (played(video, since) or [0])[-1] <= newer.counter, 20)
            assert {p["id"] for p in await room.publications("h1")} == before
            assert await eventually(lambda: _value(older.state), lambda state: state != "connected")
            shown = len(video.seen)
            await watcher.until(lambda: len(video.seen) > shown + 20, 20)
        assert video.publishers == [1]
        assert watcher.state == "connected"


async def _value(value: str) -> str:
    await asyncio.sleep(0)
    return value

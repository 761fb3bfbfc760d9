"""libwebrtc publishes and watches through a relay: the right pictures and sounds, in the right slots."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from tests.interop.clients.wrtc_client import Seen, Slot, Watcher
from tests.interop.relays import Relay, Room, eventually, is_advancing, on_stage, session_of, tone_of

LARGE: dict[str, Any] = {"width": 1280, "height": 720, "fps": 12, "simulcast": True}


def hears(slot: Slot, publisher: int) -> bool:
    heard = slot.heard()
    return heard is not None and abs(heard.frequency - tone_of(publisher)) < 3


def pictures(slot: Slot, since: float) -> list[Seen]:
    return [seen for seen in slot.seen if seen.at > since]


def shows(slot: Slot, publisher: int, since: float, count: int = 10) -> bool:
    """Whether the slot's last `count` pictures since then are this publisher's, and readable."""
    new = pictures(slot, since)[-count:]
    return len(new) == count and all(s.painted is not None and s.painted.publisher == publisher for s in new)


READABLE = {"VP8": 0.9, "VP9": 0.85, "AV1": 0.6}
"""Share of pictures whose mark survives libwebrtc's encoder at this size; AV1's spares bits where it can."""


def check_in_order(watcher: Watcher, publishers: set[int], readable: float) -> None:
    """Each slot has shown one publisher, all different, in order, and as many marks were intact as the codec leaves."""
    assert [len(slot.publishers) for slot in watcher.videos] == [1] * len(watcher.videos)
    assert {slot.publishers[0] for slot in watcher.videos} == publishers
    for slot in watcher.videos:
        counters = slot.counters(slot.publishers[0])
        assert is_advancing(counters)
        assert len(counters) >= readable * len(slot.seen)


def check_layers_joined(slot: Slot, publisher: int) -> None:
    """Pictures never go back. One may come twice only where the layer changes: in the old size and in the new."""
    told = [(seen.painted.counter, seen.width) for seen in slot.seen if seen.painted]
    assert slot.publishers == [publisher]
    for (before, old), (after, new) in itertools.pairwise(told):
        assert after > before or (after == before and new != old), told


@pytest.mark.parametrize("codec", ["VP8", "VP9", "AV1"])
async def test_two_hosts_reach_a_viewer(relay: Relay, codec: str) -> None:
    room = await relay.room(codecs=["opus", codec.lower()])
    async with (
        on_stage(room.host(1, codec=codec), room.host(2, codec=codec)),
        room.watcher(videos=2, audios=2) as watcher,
    ):
        await watcher.until(lambda: all(len(slot.seen) >= 40 for slot in watcher.videos), 30)
        await watcher.until(lambda: all(any(hears(s, p) for s in watcher.audios) for p in (1, 2)), 20)
        check_in_order(watcher, {1, 2}, READABLE[codec])
        video = await room.publications(kind="video")
        assert {each["codec"] for each in video} == {codec.lower()}
        (session,) = await room.sessions("viewer")
        assert [slot["identity"] for slot in session["slots"] if slot["kind"] == "video"] == [
            f"h{slot.publishers[0]}" for slot in watcher.videos
        ]
    assert await eventually(room.sessions, lambda found: not found) == []


async def test_layers_follow_the_cap(room: Room) -> None:
    async with on_stage(room.host(3, **LARGE)), room.watcher() as watcher:
        (video,) = watcher.videos

        def width() -> int:
            return video.seen[-1].width if video.seen else 0

        await watcher.until(lambda: width() >= 640, 40)
        begin = time.monotonic()
        assert (await room.change_slot(watcher, video.index, max_layer="q"))["max_layer"] == "q"
        await watcher.until(lambda: width() == 320, 20)
        await room.change_slot(watcher, video.index, max_layer="h")
        await watcher.until(lambda: width() == 640, 20)
        await room.change_slot(watcher, video.index, max_layer=None, layer="f")
        await watcher.until(lambda: width() == 1280, 30)
        check_layers_joined(video, 3)
        readable = [seen for seen in pictures(video, begin) if seen.painted]
        assert len(readable) >= 0.9 * len(pictures(video, begin))
        layers = (await room.sessions("h3"))[0]["publications"]
        sizes = [(each["rid"], each["width"], each["height"]) for p in layers for each in p["layers"] if each["rid"]]
        assert sizes == [("q", 320, 180), ("h", 640, 360), ("f", 1280, 720)]


async def test_pinning_and_pausing(room: Room) -> None:
    async with on_stage(room.host(1), room.host(2)), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) >= 10, 20)
        first = video.publishers[-1]
        for wanted in (3 - first, first):
            (publication,) = await room.publications(f"h{wanted}", "video")
            asked = time.monotonic()
            slot = await room.change_slot(watcher, video.index, publication=publication["id"])
            assert (slot["identity"], slot["pinned"]) == (f"h{wanted}", True)
            await watcher.until(lambda who=wanted, at=asked: shows(video, who, at), 20)  # type: ignore[misc]
        assert video.publishers == [first, 3 - first, first]
        assert (await room.change_slot(watcher, video.index, paused=True))["paused"]
        await eventually(lambda: quiet(video), bool)
        before = video.counters(first)[-1]
        resumed = time.monotonic()
        await room.change_slot(watcher, video.index, paused=False)
        await watcher.until(lambda: shows(video, first, resumed), 20)
        assert video.counters(first)[-1] > before
        assert watcher.state == "connected"


async def quiet(slot: Slot, seconds: float = 1.0) -> bool:
    """Whether a slot that showed 20 pictures a second shows none for a while."""
    before = slot.frames
    await asyncio.sleep(seconds)
    return slot.frames == before


async def test_one_slot_follows_who_speaks(room: Room) -> None:
    hosts = [room.host(1), room.host(2)]
    async with on_stage(*hosts), room.watcher() as watcher:
        (video,), (audio,) = watcher.videos, watcher.audios
        for silent, speaking in ((1, 2), (2, 1), (1, 2)):
            await speak(room, f"h{speaking}", muted=False)
            await speak(room, f"h{silent}", muted=True)
            asked = time.monotonic()
            await watcher.until(lambda who=speaking, at=asked: shows(video, who, at), 20)  # type: ignore[misc]
            await watcher.until(lambda who=speaking: hears(audio, who), 20)  # type: ignore[misc]
        assert video.publishers[-3:] == [2, 1, 2]
        assert watcher.state == "connected"
        session = await room.session(session_of(watcher))
        assert [slot["identity"] for slot in session["slots"]] == ["h2", "h2"]


async def speak(room: Room, identity: str, *, muted: bool) -> None:
    await room.ask("PATCH", f"participants/{identity}", {"muted": {"audio": muted}})

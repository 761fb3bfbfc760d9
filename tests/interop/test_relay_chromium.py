"""Chromium publishes and watches through a relay: one and three layers, VP8 and H264."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.clients.chromium import Chromium, SlotReport, Tab
from tests.interop.relays import Relay, Room, eventually, tone_of

SHAPE = {"width": 960, "height": 540, "fps": 15}
LAYERS = [("q", 240, 136), ("h", 480, 270), ("f", 960, 540)]  # Chromium makes sizes even


async def publish(tab: Tab, room: Room, publisher: int, **options: Any) -> int:
    token = room.token(f"h{publisher}", "guest")
    return await tab.publish(room.whip, token, publisher=publisher, tone=tone_of(publisher), **SHAPE, **options)


def check_order(slot: SlotReport, publisher: int) -> None:
    """Only this publisher's pictures, never going back: what a page reads twice is one picture shown twice."""
    assert slot.publishers == [publisher]
    counters = [painted.counter for _, painted in slot.seen]
    assert counters == sorted(counters)
    assert len(set(counters)) > 0.8 * len(counters)


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_two_pages_reach_a_third(chromium: Chromium, relay: Relay, codec: str) -> None:
    room = await relay.room(codecs=["opus", codec.lower()])
    studio, audience = await chromium.tab(relay.http, bypass_csp=True), await chromium.tab(relay.http, bypass_csp=True)
    for publisher in (1, 2):
        await publish(studio, room, publisher, codec=codec)
    viewer = await audience.view(room.whep, room.token("viewer", "viewer"), videos=2, audios=2)
    seen = await audience.until(
        lambda: audience.slots(viewer), lambda slots: all(len(slot.seen) > 20 for slot in slots), 40
    )
    assert sorted(slot.publishers for slot in seen) == [[1], [2]]
    for slot in seen:
        check_order(slot, slot.publishers[0])
        assert len(slot.seen) > 0.8 * slot.frames
    await audience.until(lambda: audience.heard(viewer), lambda tones: hears(tones) == {1, 2}, 20)
    inbound = {s["mid"]: s for s in await audience.viewer_stats(viewer) if s["kind"] == "video"}
    assert all(s["packetsLost"] == 0 and s["freezeCount"] == 0 for s in inbound.values())
    assert await studio.unpublish(0) == 200
    await audience.until(lambda: room.sessions("h1"), lambda found: not found)
    assert await audience.unview(viewer) == 200


def hears(tones: list[tuple[float, float] | None]) -> set[int]:
    """The publishers whose tones sound."""
    return {p for p in (1, 2) for tone in tones if tone and abs(tone[0] - tone_of(p)) < 6}


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_three_layers(chromium: Chromium, relay: Relay, codec: str) -> None:
    room = await relay.room(codecs=["opus", codec.lower()])
    studio, audience = await chromium.tab(relay.http, bypass_csp=True), await chromium.tab(relay.http, bypass_csp=True)
    await publish(studio, room, 4, codec=codec, simulcast=True)
    layers = await eventually(lambda: layers_of(room), lambda told: len(told) == 3, 60)
    if codec == "VP8":  # the plane reads no sizes from H264's parameter sets: None
        layers = await eventually(lambda: layers_of(room), lambda told: all(x[1] for x in told), 30)
        assert all(abs(told[2] - wanted[2]) <= 2 for told, wanted in zip(layers, LAYERS, strict=True))
        assert [width for _, width, _ in layers] == [width for _, width, _ in LAYERS]
    assert [rid for rid, _, _ in layers] == [rid for rid, _, _ in LAYERS]
    viewer = await audience.view(room.whep, room.token("viewer", "viewer"))
    for changes, width in (
        ({"max_layer": "q"}, 240),
        ({"max_layer": "h"}, 480),
        ({"max_layer": None, "layer": "f"}, 960),
    ):
        session = (await room.sessions("viewer"))[0]["id"]
        await room.ask("PATCH", f"/v1/sessions/{session}/slots/1", changes)
        await audience.until(lambda: audience.slots(viewer), lambda slots, w=width: slots[0].width == w, 40)  # type: ignore[misc]
        await audience.slots(viewer, clear=True)
        (slot,) = await audience.until(lambda: audience.slots(viewer), lambda slots: len(slots[0].seen) > 15, 20)
        check_order(slot, 4)
        assert slot.width == width
    await eventually(
        lambda: room.sessions("viewer"), lambda found: [slot["layer"] for slot in found[0]["slots"]] == [None, "f"]
    )


async def layers_of(room: Room) -> list[tuple[str, int | None, int | None]]:
    """What the API says of the host's layers that arrive: rid, width, height."""
    found = await room.sessions("h4")
    return [
        (layer["rid"], layer["width"], layer["height"])
        for session in found
        for publication in session["publications"]
        for layer in publication["layers"]
        if publication["kind"] == "video" and layer["active"]
    ]

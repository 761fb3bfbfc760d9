"""The pages' handover.js, in the browser, with a program and slots that are made up: their moments are made one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.clients.chromium import Chromium
from tests.interop.relays import Relay

# A program `behind` ms, slots that come `off` ms later than they were asked to, and a page whose clock is wrong.
MADE_UP = """async ({ behind, off }) => {
    const { Handover } = await import('/js/handover.js');
    const wrong = 3_600_000, server = () => Date.now() + wrong, rates = new Set(), states = [];
    let moment = server() - behind, looked = performance.now();
    const video = { playbackRate: 1, muted: false, volume: 1, requestVideoFrameCallback(show) {
        setTimeout(() => {
            const at = performance.now();
            show(at, { mediaTime: program(), expectedDisplayTime: at });
        }, 10);
    } };
    const program = () => {
        const now = performance.now();
        moment += (now - looked) * video.playbackRate;
        rates.add(Math.round(video.playbackRate * 100));
        looked = now;
        return moment;
    };
    const player = { video, stopped: false, get shownAt() { return program(); }, momentOf: (time) => time,
        stop() { this.stopped = true; } };
    class Slots extends EventTarget {
        constructor(delayMs) { super(); this.delayMs = delayMs; this.asked = delayMs; this.closed = false; }
        async start() {
            this.timer = setInterval(() => {
                const syncId = BigInt(Math.round(server() - 120 - this.asked - off)) * 65536n;
                const metadata = { expectedDisplayTime: performance.now() };
                this.dispatchEvent(new CustomEvent('frame', { detail: { index: 0, syncId, metadata } }));
            }, 10);
        }
        setDelay(delayMs) { this.delayMs = delayMs; }
    }
    const over = document.createElement('div'), sounds = document.createElement('div');
    sounds.append(new Audio());
    let slots;
    const makeViewer = (delayMs) => (slots = new Slots(delayMs));
    const handover = new Handover(player, makeViewer, { over, sounds, muted: () => false });
    handover.addEventListener('state', ({ detail }) => {
        if (states.at(-1) !== detail.state) states.push(detail.state);
    });
    handover.addEventListener('state', ({ detail }) => {
        if (detail.state === 'aligning') over.dataset.hush = sounds.firstChild.volume;
    });
    const { apart } = await handover.run(server());
    const told = {
        apart, states, asked: slots.asked, rates: [...rates], stopped: player.stopped, rate: video.playbackRate,
        opacity: Number(over.style.opacity), loud: sounds.firstChild.volume, hush: Number(over.dataset.hush),
        volume: video.volume,
    };
    while (slots.delayMs === slots.asked) await new Promise((resolve) => setTimeout(resolve, 50));
    clearInterval(slots.timer);
    slots.closed = true;
    return { ...told, glided: slots.asked - slots.delayMs };
}"""


@pytest.mark.parametrize(("behind", "off"), [(1500, 0), (2500, 130), (2500, -130), (4600, 20)])
async def test_moments_are_brought_together(chromium: Chromium, relay: Relay, behind: int, off: int) -> None:
    tab = await chromium.tab(f"{relay.https}/", helpers=False)
    told: dict[str, Any] = await tab.page.evaluate(MADE_UP, {"behind": behind, "off": off})
    waits = behind > 4020
    assert told["states"] == [*(["waiting"] if waits else []), "connecting", "aligning", "live"]
    assert abs(told["apart"]) <= 50
    assert told["asked"] <= 3900
    assert waits or abs(told["asked"] - (behind - 120)) < 400
    assert told["glided"] == 50
    assert told["stopped"]
    assert (told["hush"], told["loud"], told["volume"]) == (0, 1, 0)
    assert (told["opacity"], told["rate"]) == (1, 1)
    assert (150 in told["rates"]) == waits
    if off > 50:
        assert min(told["rates"]) < 100, "the slots were behind: the program had to wait"
    if off < -50:
        assert max(told["rates"]) > 100, "the slots were ahead: the program had to hurry"
    assert not [error for error in tab.errors if "Failed to load resource" not in error]
